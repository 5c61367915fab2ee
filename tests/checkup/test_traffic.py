"""Copies compared byte by byte, and an all-reduce, for real on the CPU; faults are put in by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.checkup.worlds import GIB, GPUS, MACHINE, PACKAGES, gpus, whole
from vlfleet.checkup.facts import reduce_inside, traffic, transfer_inside
from vlfleet.checkup.facts.gpus import Gpus
from vlfleet.checkup.facts.packages import Imports, Packages
from vlfleet.checkup.facts.traffic import Reductions, Transfers, gather_reductions, gather_transfers
from vlfleet.checkup.known import Known, NotKnown
from vlfleet.checkup.scene import Scene
from vlfleet.hardware.machine import GpuProcess

torch = pytest.importorskip("torch")
MIB = 1 << 20


def task(**changes: Any) -> dict[str, Any]:
    return {"device": "cpu", "count": 3, "bytes": MIB, "times": 1, **changes}


def test_copies_in_a_process_of_their_own() -> None:
    """The real script in the real Python, between names of the CPU; indices are those of the GPUs behind them."""
    found = traffic.transfer(sys.executable, task(bytes=4 * MIB), [0, 2, 5], ["GPU 1 is busy"], os.environ)
    assert (found.error, found.hung, found.bytes, found.left_out) == ("", False, 4 * MIB, ("GPU 1 is busy",))
    assert {(copy.source, copy.target) for copy in found.copies} == {(0, 2), (0, 5), (2, 0), (2, 5), (5, 0), (5, 2)}
    assert all((copy.wrong_bytes, copy.first_wrong, copy.peer) == (0, -1, False) for copy in found.copies)
    assert all(copy.gb_s > 0 for copy in found.copies)
    assert [(host.gpu, host.wrong_bytes) for host in found.hosts] == [(0, 0), (2, 0), (5, 0)]
    assert all(host.to_gb_s > 0 and host.from_gb_s > 0 for host in found.hosts)


@given(
    size=st.integers(1, 4096),
    places=st.sets(st.integers(0, 4095), max_size=8),
    seed=st.integers(0, 5),
)
def test_every_wrong_byte_is_counted(size: int, places: set[int], seed: int) -> None:
    sent = transfer_inside.pattern(torch, size, seed)
    received = sent.clone()
    inside = sorted(place for place in places if place < size)
    for place in inside:
        received[place] ^= 0xFF
    assert transfer_inside.difference(torch, sent, received) == (len(inside), inside[0] if inside else -1)


def test_a_copy_that_loses_bytes_is_told_with_its_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    real = transfer_inside.fastest

    def broken(devices: Any, target: Any, source: Any, indices: tuple[int, ...], times: int) -> float:
        seconds = real(devices, target, source, indices, times)
        if indices == (0, 2):
            target[777:780] = 255 - target[777:780]
        return seconds

    monkeypatch.setattr(transfer_inside, "fastest", broken)
    found = transfer_inside.transfer(torch, task())
    wrong = [
        (row["from"], row["to"], row["wrong_bytes"], row["first_wrong"]) for row in found["pairs"] if row["wrong_bytes"]
    ]
    assert wrong == [(0, 2, 3, 777)]


def test_a_copy_that_moves_nothing_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was in the target before is zeros, so that a copy that did not happen shows."""
    real = transfer_inside.fastest

    def idle(devices: Any, target: Any, source: Any, indices: tuple[int, ...], times: int) -> float:
        return real(devices, target, source, indices, times) if len(indices) == 1 else 1.0

    monkeypatch.setattr(transfer_inside, "fastest", idle)
    rows = transfer_inside.transfer(torch, task(count=2))["pairs"]
    assert all(row["wrong_bytes"] > 0.99 * MIB for row in rows)


def test_what_was_measured_before_an_error_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    real = transfer_inside.pair

    def failing(devices: Any, source: Any, to: int, sent: Any, times: int) -> dict[str, Any]:
        if to == 2:
            raise RuntimeError("CUDA error: an illegal memory access was encountered\nmore")
        return real(devices, source, to, sent, times)

    monkeypatch.setattr(transfer_inside, "pair", failing)
    found = transfer_inside.transfer(torch, task())
    assert [(row["from"], row["to"]) for row in found["pairs"]] == [(0, 1)]
    assert found["error"] == "RuntimeError: CUDA error: an illegal memory access was encountered"


def test_copies_that_hang_are_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\nsleep 60\n")
    script.chmod(0o755)
    monkeypatch.setattr(traffic, "TRANSFER_SECONDS", 0.5)
    found = traffic.transfer(str(script), task(), [0, 1, 2], ("x",), os.environ)
    assert found == Transfers(hung=True, left_out=("x",))
    monkeypatch.setattr(traffic, "_START_SECONDS", 0.3)
    reduced = traffic.reduce(str(script), {"count": 2, "seconds": 0.2}, (), os.environ)
    assert (reduced.hung, reduced.ranks) == (True, 2)


def test_an_all_reduce_over_two_processes() -> None:
    """gloo does on the CPU what NCCL does on GPUs: the same script, the same check of every sum."""
    asked = {"backend": "gloo", "count": 2, "sizes": [8192, MIB], "seconds": 60}
    found = traffic.reduce(sys.executable, asked, ("GPU 7 is busy",), os.environ)
    assert (found.error, found.hung, found.ranks, found.left_out) == ("", False, 2, ("GPU 7 is busy",))
    assert [(row.bytes, row.wrong) for row in found.rows] == [(8192, 0), (MIB, 0)]
    assert all(row.seconds > 0 for row in found.rows)
    assert found.rows[1].busbw_gb_s == pytest.approx(MIB / found.rows[1].seconds / 1e9)


def test_a_rank_that_cannot_start_is_explained() -> None:
    """Without a GPU NCCL has nothing to work on: what torch says of it is what a person reads."""
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    asked = {"backend": "nccl", "count": 1, "sizes": [8192], "seconds": 60}
    found = traffic.reduce(sys.executable, asked, (), os.environ)
    assert (found.rows, found.hung) == ((), False)
    assert "cuda" in found.error.lower()
    assert "Error" in found.error


class Sums:
    """torch.distributed of one rank, whose all-reduce goes wrong after the first time."""

    def __init__(self) -> None:
        self.times = 0

    def get_rank(self) -> int:
        return 0

    def all_reduce(self, data: Any) -> None:
        self.times += 1
        if self.times > 1:
            data[5] += 1


def test_wrong_sums_are_counted() -> None:
    row = reduce_inside.measure(torch, Sums(), torch.device("cpu"), 8192, 1)
    assert (row["bytes"], row["wrong"]) == (8192, 1)


SAID = """\
box:1:1 [0] NCCL INFO Channel 00/0 : 0[0] -> 1[1] via SHM/direct/direct
box:1:1 [0] NCCL INFO Channel 01/0 : 0[0] -> 1[1] via SHM/direct/direct
box:1:1 [0] transport/p2p.cc:275 NCCL WARN Cuda failure 'peer access is not supported'
"""


def sleeping(index: int, asked: dict[str, Any], folder: Path) -> subprocess.Popen[bytes]:
    """A rank that says what NCCL says, sleeps, and ends with its index."""
    script = f"import time; print({SAID!r}, flush=True); time.sleep({asked['sleep'][index]}); raise SystemExit({index})"
    with (folder / f"rank{index}.log").open("wb") as log:
        return subprocess.Popen([sys.executable, "-c", script], stdout=log, stderr=log)


def test_ranks_that_hang_are_killed_and_nccls_words_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reduce_inside, "start", sleeping)
    begun = time.monotonic()
    found = reduce_inside.lead({"count": 2, "seconds": 2, "sleep": [60, 60]})
    assert time.monotonic() - begun < 30
    assert (found["hung"], found["rows"]) == (True, [])
    assert found["said"] == ["Cuda failure 'peer access is not supported'"]
    assert found["transports"] == {"SHM/direct/direct": 4}
    json.dumps(found)


def test_a_rank_that_fails_ends_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reduce_inside, "start", sleeping)
    begun = time.monotonic()
    found = reduce_inside.lead({"count": 2, "seconds": 60, "sleep": [60, 0]})
    assert time.monotonic() - begun < 30
    assert (found["hung"], found["error"]) == (False, "the ranks ended with [-9, 1]")


def known(found: Gpus = GPUS, packages: Packages = PACKAGES) -> Known:
    return Known(found, packages)


def taken_part(
    monkeypatch: pytest.MonkeyPatch, found: Gpus, env: dict[str, str] | None = None
) -> tuple[dict[str, Any], list[int], tuple[str, ...], dict[str, str]]:
    seen: list[Any] = []

    def transfer(python: str, asked: Any, indices: Any, left_out: Any, env: Any) -> Transfers:
        seen.append((asked, list(indices), tuple(left_out), env))
        return Transfers()

    monkeypatch.setattr(traffic, "transfer", transfer)
    gather_transfers(Scene(env=env or {}), known(found))
    return seen[0]  # type: ignore[no-any-return]


def test_every_gpu_takes_part_and_multicast_stays_off(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, indices, left_out, env = taken_part(monkeypatch, GPUS)
    assert (asked["device"], asked["count"], asked["bytes"], indices, left_out) == (
        "cuda",
        4,
        64 * MIB,
        [0, 1, 2, 3],
        (),
    )
    assert (env["CUDA_VISIBLE_DEVICES"], env["CUDA_DEVICE_ORDER"]) == ("0,1,2,3", "PCI_BUS_ID")
    assert (env["NCCL_NVLS_ENABLE"], env["TORCH_SYMM_MEM_DISABLE_MULTICAST"]) == ("0", "1")


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (whole(1, free_bytes=GIB - 1), "GPU 1 has only 1.0 GiB free"),
        (whole(1, mig=True), "GPU 1 is cut into MIG instances"),
        (whole(1, fault="lost"), "GPU 1 does not answer"),
        (gpus(1, compute_mode=2), "GPU 1 takes no further process (compute mode)"),
    ],
)
def test_gpus_that_are_left_alone(found: Gpus, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines that run are not disturbed."""
    asked, indices, left_out, _ = taken_part(monkeypatch, found)
    assert (asked["count"], indices, left_out) == (3, [0, 2, 3], (reason,))


def test_an_exclusive_gpu_takes_part_while_it_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    exclusive = gpus(1, compute_mode=3)
    assert taken_part(monkeypatch, exclusive)[1] == [0, 1, 2, 3]
    held = replace(MACHINE.gpus[1], processes=(GpuProcess(7),))
    machine = replace(MACHINE, gpus=(MACHINE.gpus[0], held, *MACHINE.gpus[2:]))
    assert taken_part(monkeypatch, replace(exclusive, machine=machine))[1] == [0, 2, 3]


def test_hidden_gpus_stay_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    _, indices, _, env = taken_part(monkeypatch, GPUS, {"CUDA_VISIBLE_DEVICES": "3,1"})
    assert (indices, env["CUDA_VISIBLE_DEVICES"]) == ([3, 1], "3,1")


def test_who_cannot_be_tried() -> None:
    with pytest.raises(NotKnown, match="there is no GPU"):
        gather_transfers(Scene(env={}), known(Gpus()))
    with pytest.raises(NotKnown, match="hangs"):
        gather_transfers(Scene(env={}), known(Gpus(fault="it hangs")))
    with pytest.raises(NotKnown, match="no torch"):
        gather_transfers(Scene(env={}), known(packages=replace(PACKAGES, versions={})))
    with pytest.raises(NotKnown, match="torch sees no GPU"):
        gather_transfers(Scene(env={}), Known(GPUS, PACKAGES, Imports()))
    crowded = tuple(replace(gpu, free_bytes=GIB) for gpu in MACHINE.gpus[1:])
    one = replace(GPUS, machine=replace(MACHINE, gpus=(MACHINE.gpus[0], *crowded)))
    with pytest.raises(NotKnown, match="fewer than two GPUs can take part; GPU 1 has only"):
        gather_reductions(Scene(env={}), known(one))


def test_the_all_reduce_asks_for_more_room(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def reduce(python: str, asked: Any, left_out: Any, env: Any) -> Reductions:
        seen.append((asked, left_out))
        return Reductions()

    monkeypatch.setattr(traffic, "reduce", reduce)
    gather_reductions(Scene(env={}), known(whole(0, free_bytes=3 * GIB // 2)))
    (asked, left_out) = seen[0]
    assert (asked["backend"], asked["count"], asked["sizes"]) == ("nccl", 3, (8192, 64 * MIB))
    assert left_out == ("GPU 0 has only 1.5 GiB free",)


def test_on_gpus_what_is_sent_is_pinned_and_every_copy_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way of GPUs, with the CPU in their place: CUDA returns before a copy is done."""
    waited: list[int] = []
    pinned: list[int] = []

    def pin(tensor: Any) -> Any:
        pinned.append(tensor.numel())
        return tensor

    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    monkeypatch.setattr(torch.cuda, "can_device_access_peer", lambda one, other: (one, other) != (1, 0))
    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(transfer_inside.Devices, "device", lambda devices, index: torch.device("cpu"))
    found = transfer_inside.transfer(torch, task(device="cuda", count=2, times=2))
    assert found["error"] == ""
    assert [(row["from"], row["to"], row["peer"], row["wrong_bytes"]) for row in found["pairs"]] == [
        (0, 1, True, 0),
        (1, 0, False, 0),
    ]
    assert pinned == [MIB] * 4  # the pattern and what comes back, of each GPU
    turns = 3  # the first one is not counted
    assert waited.count(0) == waited.count(1) == 2 * turns * (1 + 1 + 2)
