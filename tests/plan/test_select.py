from __future__ import annotations

from dataclasses import replace

import pytest

from tests.plan.topologies import GIB, RTX4090, Board, four_3090, gpu, mixed, nvswitch
from vlfleet.engine.launch import Preparation
from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.hardware.machine import Gpu, GpuProcess, Link, Machine
from vlfleet.plan.placement import Placement
from vlfleet.plan.select import place, usable

SHARE = 0.92
PYTHON = GpuProcess(4711, "python", 128 * GIB)


def machine(on: Board, **changes: Gpu) -> Machine:
    """With every NVLink pair a peer; `changes` by "gpu3"."""
    peers = frozenset(pair for pair, link in on.links.items() if link is Link.NVLINK)
    return Machine(tuple(changes.get(f"gpu{each.index}", each) for each in on.gpus), on.links, peers)


def busy(index: int, free_gib: float, *processes: GpuProcess) -> Gpu:
    return replace(gpu(index), free_bytes=int(free_gib * GIB), processes=processes)


def refused(on: Machine, replicas: int, tensor: int, pipeline: int, visible: str | None = None) -> VlfleetError:
    with pytest.raises(VlfleetError) as caught:
        place(on, visible, replicas, tensor, pipeline, SHARE)
    assert caught.value.exit_code is ExitCode.DOES_NOT_FIT
    return caught.value


@pytest.mark.parametrize(
    ("other", "line"),
    [
        (busy(3, 12.1, PYTHON), "GPU 3 (NVIDIA H200) has 12.1 of 140.4 GiB free; python (pid 4711) holds 128.0 GiB"),
        (
            busy(3, 12.1, GpuProcess(9, "", 100 * GIB), GpuProcess(8, "Xorg", None)),
            "GPU 3 (NVIDIA H200) has 12.1 of 140.4 GiB free; pid 9 holds 100.0 GiB, Xorg (pid 8) holds memory",
        ),
        (
            busy(3, 0, *(GpuProcess(pid, "w", GIB) for pid in range(6))),
            "GPU 3 (NVIDIA H200) has 0.0 of 140.4 GiB free; w (pid 0) holds 1.0 GiB, w (pid 1) holds 1.0 GiB, "
            "w (pid 2) holds 1.0 GiB, w (pid 3) holds 1.0 GiB, 2 more hold the rest",
        ),
        (
            busy(3, 12.1),
            "GPU 3 (NVIDIA H200) has 12.1 of 140.4 GiB free; who holds the rest cannot be seen from here "
            "(another container or user)",
        ),
        (
            replace(gpu(3), mig=True, fault="Insufficient Permissions", free_bytes=0, memory_bytes=0),
            "GPU 3 (NVIDIA H200) is cut into MIG instances (sudo nvidia-smi -i 3 -mig 0 makes it whole)",
        ),
        (
            Gpu(3, "", "NVIDIA GPU", 0, 0, (0, 0), fault="GPU is lost"),
            "GPU 3 (NVIDIA GPU) does not answer: GPU is lost",
        ),
    ],
)
def test_a_gpu_that_cannot_be_had_is_named_with_who_has_it(other: Gpu, line: str) -> None:
    assert usable([gpu(2), other, gpu(5)], SHARE) == ((gpu(2), gpu(5)), (line,))


@pytest.mark.parametrize(("free_share", "idle"), [(1.0, True), (0.92, True), (0.9199, False), (0.0, False)])
def test_busy_is_what_vllm_would_refuse(free_share: float, idle: bool) -> None:
    one = replace(gpu(0), memory_bytes=1_000_000, free_bytes=int(1_000_000 * free_share))
    assert bool(usable([one], SHARE)[0]) is idle


def test_a_process_that_takes_little_does_no_harm() -> None:
    desktop = replace(gpu(0, RTX4090), free_bytes=23 * GIB, processes=(GpuProcess(812, "Xorg", GIB // 2),))
    assert usable([desktop], SHARE) == ((desktop,), ())


def test_places_go_into_a_preparation() -> None:
    prepared = Preparation(*place(machine(nvswitch()), None, 2, 2, 2, SHARE))
    assert prepared.placements == (
        Placement((0, 1, 2, 3), 143771 << 20, peer_access=True),
        Placement((4, 5, 6, 7), 143771 << 20, peer_access=True),
    )
    assert prepared.notes == ()


def test_busy_gpus_are_left_out_while_others_do() -> None:
    placements, notes = place(machine(nvswitch(), gpu3=busy(3, 12.1, PYTHON)), None, 3, 2, 1, SHARE)
    assert [placement.gpus for placement in placements] == [(0, 1), (4, 5), (6, 7)]
    assert notes == ("left out: GPU 3 (NVIDIA H200) has 12.1 of 140.4 GiB free; python (pid 4711) holds 128.0 GiB",)


def test_too_few_idle_gpus_name_who_holds_the_others() -> None:
    error = refused(machine(nvswitch(), gpu3=busy(3, 12.1, PYTHON)), 4, 2, 1)
    assert error.cause == (
        "4 replicas of TP 2 need 8 GPUs, 7 are free; "
        "GPU 3 (NVIDIA H200) has 12.1 of 140.4 GiB free; python (pid 4711) holds 128.0 GiB"
    )
    assert error.remedy == "end python (pid 4711), or --replicas 3, or --tensor-parallel-size 1"


def test_a_screen_on_the_only_gpu_costs_a_smaller_share() -> None:
    xorg = GpuProcess(812, "Xorg", 2 * GIB)
    desktop = replace(gpu(0, RTX4090), free_bytes=21 * GIB, processes=(xorg,))
    error = refused(Machine((desktop,)), 1, 1, 1)
    assert error.remedy == "end Xorg (pid 812), or --gpu-memory-utilization 0.84, or use a machine with more GPUs"
    placements, _ = place(Machine((desktop,)), None, 1, 1, 1, 0.84)
    assert placements == (Placement((0,), 24564 << 20, peer_access=True),)


def test_a_smaller_share_is_offered_only_where_it_is_enough() -> None:
    """GPU 1 has half of it to give, GPU 2 nearly nothing: for two more GPUs no share does."""
    on = machine(mixed(RTX4090, RTX4090, RTX4090))
    some = replace(on.gpus[1], free_bytes=14 * GIB, processes=(GpuProcess(5, "a", 10 * GIB),))
    none = replace(on.gpus[2], free_bytes=2 * GIB, processes=(GpuProcess(6, "b", 20 * GIB), GpuProcess(5, "a", GIB)))
    on = replace(on, gpus=(on.gpus[0], some, none))
    assert refused(on, 2, 1, 1).remedy == "end a (pid 5), b (pid 6), or --gpu-memory-utilization 0.55, or --replicas 1"
    assert refused(on, 3, 1, 1).remedy == "end a (pid 5), b (pid 6), or --replicas 1"


def test_visible_devices_are_obeyed() -> None:
    placements, notes = place(machine(nvswitch()), "7,5,6,1", 1, 2, 1, SHARE)
    assert placements[0].gpus == (5, 6)
    assert notes == ()
    assert "(CUDA_VISIBLE_DEVICES=7,5 leaves 2 of 8)" in refused(machine(nvswitch()), 3, 1, 1, visible="7,5").cause
    assert "(CUDA_VISIBLE_DEVICES=0,0 leaves 0 of 8)" in refused(machine(nvswitch()), 1, 1, 1, visible="0,0").cause
    with pytest.raises(VlfleetError, match="whole GPUs"):
        place(machine(nvswitch()), "MIG-c7c1", 1, 1, 1, SHARE)


def test_a_hidden_busy_gpu_is_nobodys_business() -> None:
    _, notes = place(machine(nvswitch(), gpu3=busy(3, 12.1, PYTHON)), "0,1", 2, 1, 1, SHARE)
    assert notes == ()


def test_without_a_gpu() -> None:
    error = refused(Machine(), 1, 1, 1)
    assert error.cause == "no NVIDIA GPU was found here"
    assert "--gpus all" in error.remedy


def test_peer_access_is_of_tensor_parallel_groups() -> None:
    on = machine(four_3090())  # peers: 0 and 2, 1 and 3
    assert [p.peer_access for p in place(on, None, 2, 2, 1, SHARE)[0]] == [True, True]
    assert [p.peer_access for p in place(on, None, 1, 2, 2, SHARE)[0]] == [True]
    assert [p.peer_access for p in place(on, None, 1, 4, 1, SHARE)[0]] == [False]
    assert [p.peer_access for p in place(replace(on, peers=frozenset()), None, 4, 1, 1, SHARE)[0]] == [True] * 4
    assert [p.peer_access for p in place(replace(on, peers=frozenset()), None, 2, 2, 1, SHARE)[0]] == [False] * 2


def test_memory_is_of_the_smallest() -> None:
    on = machine(mixed(RTX4090, RTX4090))
    on = replace(on, gpus=(on.gpus[0], replace(on.gpus[1], memory_bytes=20 * GIB, free_bytes=20 * GIB)))
    assert place(on, None, 1, 2, 1, SHARE)[0][0].memory_bytes == 20 * GIB
