"""From the machine as it is, with its busy and its divided GPUs, to a place for every replica."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.hardware.machine import Gpu, GpuProcess, Machine
from vlfleet.hardware.visible import visible
from vlfleet.plan.assignment import assign, too_few
from vlfleet.plan.placement import Placement

_CONTEXT_BYTES = 640 << 20
"""What a CUDA context takes before vLLM looks how much is free: 0.51 GiB of an H200 (measured, 0.26.0)."""
_LEAST_SHARE = 0.5
"""Less of a GPU is not worth an offer: what does not fit on half of it is the usual reason to want all."""
_NAMED = 4
"""Holders of one GPU that are named; a desktop has dozens."""


def usable(gpus: Sequence[Gpu], needed_share: float) -> tuple[tuple[Gpu, ...], tuple[str, ...]]:
    """The GPUs that an engine can have, in their order, and one line for each of the others that says why not.

    A GPU is busy by vLLM's own rule, for which it would refuse to start: less of its memory is free than
    `needed_share` (--gpu-memory-utilization). vLLM measures with its own CUDA context in place, so a GPU that passes
    here by less than that (0.5 GiB) is still refused there.
    """
    reasons = {gpu.index: _unusable(gpu, needed_share) for gpu in gpus}
    idle = tuple(gpu for gpu in gpus if not reasons[gpu.index])
    return idle, tuple(reason for reason in reasons.values() if reason)


def place(
    machine: Machine,
    visible_devices: str | None,
    replicas: int,
    tensor_parallel_size: int,
    pipeline_parallel_size: int,
    needed_share: float,
) -> tuple[tuple[Placement, ...], tuple[str, ...]]:
    """A place for each replica on idle GPUs that `visible_devices` (CUDA_VISIBLE_DEVICES) leaves; notes for a person.

    Raises:
        VlfleetError: exit code 3, too few GPUs are idle: the error names those that are not, and who holds them; or
            `visible_devices` names a MIG instance.
    """
    if not machine.gpus:
        remedy = (
            "nvidia-smi -L must list one; a container needs --gpus all -e NVIDIA_DRIVER_CAPABILITIES=compute,utility"
        )
        raise VlfleetError("no NVIDIA GPU was found here", remedy, ExitCode.DOES_NOT_FIT)
    seen = visible(machine, visible_devices)
    idle, left_out = usable(seen, needed_share)
    needed = replicas * tensor_parallel_size * pipeline_parallel_size
    if len(idle) < needed:
        cause, remedies = too_few(replicas, tensor_parallel_size, pipeline_parallel_size, len(idle))
        if len(seen) < len(machine.gpus):
            cause += f" (CUDA_VISIBLE_DEVICES={visible_devices} leaves {len(seen)} of {len(machine.gpus)})"
        busy = [gpu for gpu in seen if gpu not in idle and not gpu.mig and not gpu.fault]
        first = (*_ends(busy), *_smaller_share(busy, needed - len(idle)))
        raise VlfleetError("; ".join((cause, *left_out)), ", or ".join((*first, *remedies)), ExitCode.DOES_NOT_FIT)
    assignment = assign(idle, machine.links, replicas, tensor_parallel_size, pipeline_parallel_size)
    chosen = {gpu.index: gpu for gpu in idle}
    placements = tuple(
        Placement(
            gpus=indices,
            memory_bytes=min(chosen[index].memory_bytes for index in indices),
            peer_access=_peer_access(machine, indices, tensor_parallel_size),
            free_bytes=min(chosen[index].free_bytes for index in indices),
            gpu=_model([chosen[index] for index in indices]),
        )
        for indices in assignment
    )
    return placements, tuple(f"left out: {reason}" for reason in left_out)


def _model(gpus: Sequence[Gpu]) -> str:
    names = {gpu.name for gpu in gpus}
    return names.pop() if len(names) == 1 else ""


def _unusable(gpu: Gpu, needed_share: float) -> str:
    """Why not, or empty."""
    who = f"GPU {gpu.index} ({gpu.name})"
    if gpu.mig:
        return f"{who} is cut into MIG instances (sudo nvidia-smi -i {gpu.index} -mig 0 makes it whole)"
    if gpu.fault:
        return f"{who} does not answer: {gpu.fault}"
    if gpu.free_bytes >= needed_share * gpu.memory_bytes:
        return ""
    holders = [f"{_called(each)} holds {_holding(each)}" for each in gpu.processes[:_NAMED]]
    holders += [f"{len(gpu.processes) - _NAMED} more hold the rest"] if len(gpu.processes) > _NAMED else []
    held_by = ", ".join(holders) or "who holds the rest cannot be seen from here (another container or user)"
    return f"{who} has {gpu.free_bytes / 2**30:.1f} of {gpu.memory_bytes / 2**30:.1f} GiB free; {held_by}"


def _called(process: GpuProcess) -> str:
    return f"{process.name} (pid {process.pid})" if process.name else f"pid {process.pid}"


def _holding(process: GpuProcess) -> str:
    return "memory" if process.memory_bytes is None else f"{process.memory_bytes / 2**30:.1f} GiB"


def _ends(busy: Sequence[Gpu]) -> tuple[str, ...]:
    """The remedy of ending the largest holder of each busy GPU, each named once."""
    largest = dict.fromkeys(_called(gpu.processes[0]) for gpu in busy if gpu.processes)
    return (f"end {', '.join(largest)}",) if largest else ()


def _smaller_share(busy: Sequence[Gpu], missing: int) -> tuple[str, ...]:
    """The remedy of asking for no more than is free, where that is most of a GPU: a desktop's screen takes a little."""
    shares = sorted(((gpu.free_bytes - _CONTEXT_BYTES) / gpu.memory_bytes for gpu in busy), reverse=True)
    if len(shares) < missing or shares[missing - 1] < _LEAST_SHARE:
        return ()
    return (f"--gpu-memory-utilization {math.floor(100 * shares[missing - 1]) / 100}",)


def _peer_access(machine: Machine, indices: Sequence[int], tensor_parallel_size: int) -> bool:
    """Whether every two GPUs of each tensor-parallel group are peers."""
    groups = [indices[at : at + tensor_parallel_size] for at in range(0, len(indices), tensor_parallel_size)]
    return all(frozenset(pair) in machine.peers for group in groups for pair in combinations(group, 2))
