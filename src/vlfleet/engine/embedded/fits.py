"""What the embedded engine can be refused for before torch is imported."""

from __future__ import annotations

import psutil

from vlfleet.checkpoint import CheckpointInfo
from vlfleet.errors import ExitCode, VlfleetError

PARAMETER_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "auto": 4}
"""On a CPU; `auto` is float32 there, for bfloat16 arithmetic is emulated or slower on most."""
REPLICA_BYTES = 700 << 20
"""Libraries, activations and caches of one replica beside its weights. The demo model's is 454 MB in all under 600
requests, 47 MB of it weights; rounded up for larger pictures."""


def check_host_memory(info: CheckpointInfo, dtype: str, replicas: int = 1) -> None:
    """Compare what `replicas` need with what is free now.

    Raises:
        VlfleetError: exit code 3, when they do not fit.
    """
    free = psutil.virtual_memory().available
    each = info.parameters * PARAMETER_BYTES[dtype] + REPLICA_BYTES
    if replicas * each <= free:
        return
    fit = free // each
    remedy = f"use --replicas {fit}" if fit else "use a smaller model or a GPU"
    if dtype in ("auto", "float32") and info.parameters * 2 + REPLICA_BYTES <= free:
        remedy += ", or add `-- --dtype bfloat16`, which halves the weights"
    what = f"{replicas} replicas of {info.path.name} need" if replicas > 1 else f"{info.path.name} needs"
    cause = f"{what} {replicas * each / 2**30:.1f} GiB of memory, {free / 2**30:.1f} GiB are free"
    raise VlfleetError(cause, remedy, ExitCode.DOES_NOT_FIT)


def refuse_quantised(info: CheckpointInfo) -> None:
    """Raises VlfleetError, exit code 3, for weights that this engine cannot compute with."""
    if info.quantization:
        cause = f"{info.path.name} is quantised ({info.quantization}), which the embedded engine cannot run"
        raise VlfleetError(cause, "serve it with vLLM, or give the checkpoint in bf16", ExitCode.DOES_NOT_FIT)
