"""Where one replica runs."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Placement:
    """Where one replica runs. Without GPUs: on the CPU, or wherever the engine finds a GPU by itself."""

    gpus: tuple[int, ...] = ()
    """Indices in PCI order, as nvidia-smi counts; the ranks in their order: all of a pipeline stage, then the next."""
    memory_bytes: int = 0
    """Of the smallest of these GPUs."""
    peer_access: bool = True
    """Whether every two GPUs of a tensor-parallel group can read each other's memory."""
    free_bytes: int = field(default=0, compare=False)
    """Of the fullest of these GPUs when they were chosen; 0: not known."""
    gpu: str = field(default="", compare=False)
    """Their model, as NVML calls it; empty: not known, or several."""
