"""The GPUs, as a child process asks the driver about them: a driver that hangs takes only the child with it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from vlfleet.checkup.command import run
from vlfleet.checkup.known import Known
from vlfleet.checkup.scene import Scene
from vlfleet.hardware.machine import Gpu, GpuProcess, Link, Machine

SECONDS = 30.0
"""For all questions. Without persistence mode each GPU is first woken, which takes 1 to 3 s on large ones."""


@dataclass(frozen=True)
class GpuState:
    """What NVML says of one GPU beside `hardware.machine.Gpu`; None where it says nothing."""

    index: int
    pcie_width: int | None = None
    pcie_max_width: int | None = None
    pcie_slot_generation: int | None = None
    """The newest that GPU and slot have together; the current one drops when idle and says nothing."""
    pcie_gpu_generation: int | None = None
    """The newest that the GPU has."""
    persistence: bool | None = None
    compute_mode: int | None = None
    """nvmlComputeMode_t: 0 default, 1 exclusive thread, 2 prohibited, 3 exclusive process."""
    ecc_uncorrected: int | None = None
    """Since the driver was loaded."""
    remap_pending: bool | None = None
    remap_failed: bool | None = None
    retired_pending: bool | None = None
    power_limit_watts: float | None = None
    power_default_watts: float | None = None
    clock_mhz: int | None = None
    """Application clock of the SMs."""
    clock_default_mhz: int | None = None
    slowdowns: tuple[str, ...] = ()
    """Why the clocks are low now, without being idle: names of hardware.reading.THROTTLE_REASONS."""
    fabric_state: int | None = None
    """nvmlGpuFabricState_t: 0 none, 1 not started, 2 in progress, 3 completed."""
    fabric_status: int | None = None
    """nvmlReturn_t of the fabric's registration; means something once it is completed."""
    nvlinks: tuple[bool, ...] = ()
    """Each link: whether it is up."""
    temperature_celsius: int | None = None


@dataclass(frozen=True)
class Gpus:
    """All GPUs of this machine."""

    machine: Machine = field(default_factory=Machine)
    states: tuple[GpuState, ...] = ()
    """Of the GPUs that answer."""
    fault: str = ""
    """Why the driver cannot be asked; then nothing else is known."""
    remedy: str = ""
    cuda_init: int | None = None
    """CUresult of cuInit(0); None: not asked (--quick), or there is no libcuda."""
    libcuda: bool | None = None
    """Whether libcuda.so.1 can be loaded; None: not asked."""
    of_vlfleet: frozenset[int] = frozenset()
    """Processes on GPUs that a fleet of vlfleet started."""

    @property
    def whole(self) -> tuple[Gpu, ...]:
        """The GPUs that answer and are not cut up."""
        return tuple(gpu for gpu in self.machine.gpus if not gpu.mig and not gpu.fault)


def gather(scene: Scene, _: Known) -> Gpus:
    """Asks in a child process, for at most SECONDS."""
    argv = [
        sys.executable,
        "-P",
        "-m",
        "vlfleet.checkup.facts.gpus_inside",
        *(["--no-cuda"] if scene.quick else []),
    ]
    done = run(argv, seconds=SECONDS, env={**os.environ, **scene.env})
    if done.hung:
        cause = f"the NVIDIA driver did not answer within {SECONDS:g} s"
        return Gpus(fault=cause, remedy="see `sudo dmesg | grep -i -e NVRM -e Xid`; a reboot frees what hangs")
    try:
        found = parse(json.loads(done.out.strip().rpartition("\n")[2]))
        pids = [process.pid for gpu in found.machine.gpus for process in gpu.processes]
        return replace(found, of_vlfleet=frozenset(filter(_of_vlfleet, pids)))
    except (ValueError, KeyError, TypeError):
        return Gpus(fault=f"the program that asks the driver ended with {done.code}: {done.last_line[:200]}")


def parse(said: Mapping[str, Any]) -> Gpus:
    """From what `gpus_inside` printed."""
    if said["fault"]:
        return Gpus(fault=said["fault"], remedy=said["remedy"])
    machine = said["machine"]
    return Gpus(
        machine=Machine(
            gpus=tuple(_gpu(each) for each in machine["gpus"]),
            links={frozenset((a, b)): Link(link) for a, b, link in machine["links"]},
            peers=frozenset(frozenset(pair) for pair in machine["peers"]),
            driver_version=machine["driver_version"],
            cuda_version=machine["cuda_version"],
            host_memory_bytes=machine["host_memory_bytes"],
            cores=machine["cores"],
        ),
        states=tuple(_state(each) for each in said["states"]),
        cuda_init=said["cuda_init"],
        libcuda=said["libcuda"],
    )


def _gpu(facts: Mapping[str, Any]) -> Gpu:
    processes = tuple(GpuProcess(**each) for each in facts["processes"])
    return Gpu(**{**facts, "capability": tuple(facts["capability"]), "processes": processes})


def _state(facts: Mapping[str, Any]) -> GpuState:
    return GpuState(**{**facts, "slowdowns": tuple(facts["slowdowns"]), "nvlinks": tuple(facts["nvlinks"])})


def _of_vlfleet(pid: int) -> bool:
    """Whether one of its ancestors is the shim under which a fleet starts its engines."""
    import psutil

    try:
        return any("vlfleet" in " ".join(each.cmdline()) for each in psutil.Process(pid).parents())
    except psutil.Error:
        return False
