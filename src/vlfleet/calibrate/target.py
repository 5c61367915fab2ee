"""What is measured: which vLLM, on which GPUs, with the shape of which model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vlfleet import demo
from vlfleet.engine.launch import Engine, Placement
from vlfleet.engine.vllm import VllmEngine, support
from vlfleet.engine.vllm.install import Install
from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.hardware.catalogue import find_model
from vlfleet.hardware.catalogue_table import GpuModel
from vlfleet.hardware.machine import Gpu, Link, Machine, link_of
from vlfleet.hardware.probe import probe
from vlfleet.hardware.visible import visible
from vlfleet.plan.model import Model, read_model
from vlfleet.plan.select import usable

DEFAULT_MODEL = "Qwen2.5-VL-7B"
_IDLE_SHARE = 0.5
"""Of a GPU's memory that must be free: half of it may go to the weights of a cut."""


@dataclass(frozen=True)
class Target:
    """Everything that is settled before anything is measured."""

    engine: Engine
    install: Install
    model: Model
    gpus: tuple[Gpu, ...] = ()
    """One or two; none: vLLM's CPU backend."""
    gpu: GpuModel | None = None
    """In the catalogue."""
    link: Link = Link.NVLINK
    peer_access: bool = True
    """Of the two."""

    @property
    def release(self) -> str:
        return ".".join(map(str, self.install.release))

    @property
    def where(self) -> str:
        """NVML's name, or "CPU"."""
        return self.gpus[0].name if self.gpus else "CPU"

    @property
    def singles(self) -> tuple[Placement, ...]:
        """Places for an engine without tensor parallelism."""
        return tuple(Placement((gpu.index,), gpu.memory_bytes) for gpu in self.gpus) or (Placement(),)

    @property
    def pair(self) -> Placement | None:
        """The place of one with it."""
        if len(self.gpus) < 2:
            return None
        memory = min(gpu.memory_bytes for gpu in self.gpus)
        return Placement(tuple(gpu.index for gpu in self.gpus), memory, self.peer_access)


def find(model: str | None, gpus: str | None) -> Target:
    """This machine's vLLM and GPUs; `gpus` names one or two by index. Without GPUs, vLLM for the CPU.

    Raises:
        VlfleetError: exit code 1, there is no vLLM; 3, no GPU that it could use; 2, `model` or `gpus` is wrong.
    """
    engine = VllmEngine()
    try:
        install = engine.install
    except VlfleetError as error:
        raise VlfleetError(error.cause, error.remedy) from None
    support(install, False)
    if install.cpu:
        if gpus:
            cause = f"--gpus {gpus}: the vLLM that is installed here is built for the CPU"
            raise VlfleetError(cause, "leave it out, or install vLLM for GPUs", ExitCode.USAGE)
        return Target(engine, install, read(model or str(demo.model_path())))
    machine = probe()
    taken = choose(machine, os.environ.get("CUDA_VISIBLE_DEVICES"), gpus)
    first = taken[0]
    pair = frozenset(gpu.index for gpu in taken)
    return Target(
        engine=engine,
        install=install,
        model=read(model or DEFAULT_MODEL),
        gpus=taken,
        gpu=find_model(first.name, first.memory_bytes),
        link=link_of(machine.links, taken[0].index, taken[-1].index),
        peer_access=pair in machine.peers,
    )


def read(text: str) -> Model:
    """A folder, with or without weights, or the name of a published model.

    Raises:
        VlfleetError: it is none of these.
    """
    folder = Path(text).expanduser()
    if folder.is_dir() and not any(folder.glob("*.safetensors")):
        return replace(read_model(str(folder / "config.json")), path=folder)
    return read_model(text)


def choose(machine: Machine, visible_devices: str | None, named: str | None) -> tuple[Gpu, ...]:
    """One GPU or two alike: those that are `named`, else the first idle ones, the second the nearest to the first.

    Raises:
        VlfleetError: exit code 3, none is idle; 2, `named` cannot be had.
    """
    idle, busy = usable(visible(machine, visible_devices), _IDLE_SHARE)
    if named:
        return _named(named, idle, busy)
    if not idle:
        cause = "; ".join(busy) or "this machine has no NVIDIA GPU, and its vLLM is not built for the CPU"
        raise VlfleetError(cause, "calibrate where the GPUs are, and idle", ExitCode.DOES_NOT_FIT)
    first = idle[0]
    alike = [gpu for gpu in idle[1:] if gpu.name == first.name]
    nearest = min(alike, key=lambda gpu: link_of(machine.links, first.index, gpu.index), default=None)
    return (first,) if nearest is None else (first, nearest)


def _named(named: str, idle: Sequence[Gpu], busy: Sequence[str]) -> tuple[Gpu, ...]:
    try:
        indices = list(dict.fromkeys(int(index) for index in named.split(",")))
    except ValueError:
        indices = []
    if not 1 <= len(indices) <= 2:
        raise VlfleetError(f"--gpus {named} is not one index or two", "write --gpus 0, or 0,1", ExitCode.USAGE)
    by_index = {gpu.index: gpu for gpu in idle}
    if missing := [index for index in indices if index not in by_index]:
        cause = "; ".join((f"--gpus {named}: GPU {missing[0]} is not there or not idle", *busy))
        raise VlfleetError(cause, f"idle: {', '.join(map(str, by_index)) or 'none'}", ExitCode.USAGE)
    taken = tuple(by_index[index] for index in indices)
    if len({gpu.name for gpu in taken}) > 1:
        raise VlfleetError(f"--gpus {named} are of two kinds", "calibrate each kind by itself", ExitCode.USAGE)
    return taken
