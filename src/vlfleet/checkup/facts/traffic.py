"""What GPUs say to each other, tried: copies compared byte by byte, and an all-reduce. In torch's Python, apart."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlfleet.checkup.command import run
from vlfleet.checkup.facts.gpus import Gpus
from vlfleet.checkup.facts.packages import Imports, Packages, last_json
from vlfleet.checkup.known import Known, Missing, NotKnown
from vlfleet.checkup.scene import Scene
from vlfleet.hardware.visible import visible

BYTES = 64 << 20
"""Of a copied pattern: beyond every cache on the way, and 7 ms over PCIe 3."""
TIMES = 3
LEAST_FREE_BYTES = 1 << 30
"""Of a GPU that takes part: CUDA's context takes 0.5 GiB (H200, measured), two patterns 0.13."""
LEAST_FREE_TO_REDUCE_BYTES = 2 << 30
"""NCCL's buffers take up to 0.4 GiB more (research: AIConfigurator's 342 MB for two ranks, 392 MB for eight)."""
SIZES = (8 << 10, 64 << 20)
"""What decoding one sequence and what a prefill reduces: latency and bandwidth."""
TRANSFER_SECONDS = 90.0
REDUCE_SECONDS = 60.0
_START_SECONDS = 30.0
"""For Python and torch to be loaded, beside the other work of a machine."""


@dataclass(frozen=True)
class Copy:
    """From one GPU to another; indices as nvidia-smi counts."""

    source: int
    target: int
    peer: bool
    """What torch.cuda.can_device_access_peer says."""
    wrong_bytes: int
    first_wrong: int
    """Where the first wrong byte is; -1: nowhere."""
    gb_s: float


@dataclass(frozen=True)
class HostCopy:
    """Between the host's pinned memory and a GPU."""

    gpu: int
    wrong_bytes: int
    to_gb_s: float
    from_gb_s: float


@dataclass(frozen=True)
class Transfers:
    """Every pair, both ways."""

    copies: tuple[Copy, ...] = ()
    hosts: tuple[HostCopy, ...] = ()
    bytes: int = BYTES
    error: str = ""
    hung: bool = False
    left_out: tuple[str, ...] = ()
    """GPUs that took no part, each with its reason."""


@dataclass(frozen=True)
class Reduction:
    """One size, by the slowest rank."""

    bytes: int
    seconds: float
    busbw_gb_s: float
    """As nccl-tests counts it."""
    wrong: int
    """Elements that were no exact sum, on all ranks."""


@dataclass(frozen=True)
class Reductions:
    """An all-reduce over all GPUs, one process each."""

    ranks: int = 0
    rows: tuple[Reduction, ...] = ()
    error: str = ""
    hung: bool = False
    said: tuple[str, ...] = ()
    """NCCL's warnings, or its last lines where it hung."""
    transports: Mapping[str, int] = field(default_factory=dict)
    """P2P/CUMEM, SHM/direct/direct, ...: how many channels NCCL made over each."""
    left_out: tuple[str, ...] = ()


def gather_transfers(scene: Scene, known: Known) -> Transfers:
    """Copies between the GPUs that have room.

    Raises:
        NotKnown: there is no GPU or no torch.
    """
    gpus, left_out = _able(scene, known, LEAST_FREE_BYTES)
    task = {"device": "cuda", "count": len(gpus), "bytes": BYTES, "times": TIMES}
    return transfer(known[Packages].python, task, gpus, left_out, _environment(scene, gpus))


def gather_reductions(scene: Scene, known: Known) -> Reductions:
    """An all-reduce over the GPUs that have room.

    Raises:
        NotKnown: there are fewer than two, or no torch.
    """
    gpus, left_out = _able(scene, known, LEAST_FREE_TO_REDUCE_BYTES)
    if len(gpus) < 2:
        raise NotKnown(Missing("; ".join(("fewer than two GPUs can take part", *left_out))))
    task = {"backend": "nccl", "count": len(gpus), "sizes": SIZES, "seconds": REDUCE_SECONDS}
    return reduce(known[Packages].python, task, left_out, _environment(scene, gpus))


def transfer(
    python: str, task: Mapping[str, Any], gpus: Sequence[int], left_out: Sequence[str], env: Mapping[str, str]
) -> Transfers:
    """Runs `transfer_inside.py` in that Python; `gpus` are the indices behind its devices.

    Raises:
        NotKnown: it gave no answer and did not hang.
    """
    inside = Path(__file__).with_name("transfer_inside.py")
    done = run([python, str(inside)], seconds=TRANSFER_SECONDS, stdin=json.dumps(task), env=env)
    if done.hung:
        return Transfers(hung=True, left_out=tuple(left_out))
    said = last_json(done, "the copies between GPUs", TRANSFER_SECONDS)
    return Transfers(
        copies=tuple(
            Copy(gpus[c["from"]], gpus[c["to"]], c["peer"], c["wrong_bytes"], c["first_wrong"], c["gb_s"])
            for c in said["pairs"]
        ),
        hosts=tuple(HostCopy(gpus[h["device"]], h["wrong_bytes"], h["to_gb_s"], h["from_gb_s"]) for h in said["hosts"]),
        bytes=task["bytes"],
        error=said["error"],
        left_out=tuple(left_out),
    )


def reduce(python: str, task: Mapping[str, Any], left_out: Sequence[str], env: Mapping[str, str]) -> Reductions:
    """Runs `reduce_inside.py` in that Python.

    Raises:
        NotKnown: it gave no answer and did not hang.
    """
    inside = Path(__file__).with_name("reduce_inside.py")
    limit = float(task["seconds"]) + _START_SECONDS
    done = run([python, str(inside)], seconds=limit, stdin=json.dumps(task), env=env)
    if done.hung:
        return Reductions(ranks=task["count"], hung=True, error="the program that started the ranks hangs itself")
    said = last_json(done, "the all-reduce", limit)
    return Reductions(
        ranks=task["count"],
        rows=tuple(Reduction(**row) for row in said["rows"]),
        error=said["error"],
        hung=said["hung"],
        said=tuple(said["said"]),
        transports=said["transports"],
        left_out=tuple(left_out),
    )


def _able(scene: Scene, known: Known, least_free_bytes: int) -> tuple[list[int], tuple[str, ...]]:
    """The GPUs that may take part without disturbing anybody, and why the others may not."""
    gpus, packages = known[Gpus], known[Packages]
    if gpus.fault:
        raise NotKnown(Missing(gpus.fault))
    if "torch" not in packages.versions:
        raise NotKnown(Missing(f"the Python at {packages.python} has no torch to copy with"))
    imports = known.get(Imports)
    if gpus.machine.gpus and imports is not None and not imports.devices:
        raise NotKnown(Missing("torch sees no GPU"))
    states = {state.index: state for state in gpus.states}
    able, left_out = [], []
    for gpu in visible(gpus.machine, scene.env.get("CUDA_VISIBLE_DEVICES")):
        mode = states[gpu.index].compute_mode if gpu.index in states else 0
        if gpu.fault or gpu.mig:
            left_out.append(f"GPU {gpu.index} {'does not answer' if gpu.fault else 'is cut into MIG instances'}")
        elif gpu.free_bytes < least_free_bytes:
            left_out.append(f"GPU {gpu.index} has only {gpu.free_bytes / 2**30:.1f} GiB free")
        elif mode == 2 or (mode and gpu.processes):
            left_out.append(f"GPU {gpu.index} takes no further process (compute mode)")
        else:
            able.append(gpu.index)
    if not able:
        raise NotKnown(Missing("; ".join(left_out) or "there is no GPU"))
    return able, tuple(left_out)


def _environment(scene: Scene, gpus: Sequence[int]) -> dict[str, str]:
    """The caller's, with these GPUs in the order in which nvidia-smi counts; NVLink multicast stays off."""
    return {
        **os.environ,
        **scene.env,
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus)),
        "NCCL_NVLS_ENABLE": "0",
        "TORCH_SYMM_MEM_DISABLE_MULTICAST": "1",
        "NVSHMEM_DISABLE_NVLS": "1",
    }
