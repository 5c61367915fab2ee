"""What vLLM measures before it sizes the KV cache, by release: data, read in each wheel's source. Pure.

0.20.2, 0.22.1 to 0.33.0 were read (v1/worker/gpu_worker.py, v1/worker/gpu_model_runner.py, v1/worker/gpu/,
utils/mem_utils.py, config/vllm.py, engine/arg_utils.py); 0.21 is taken to be as 0.20.2 where both neighbours differ.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

Release = tuple[int, int, int]
"""Of vLLM, as (0, 26, 0)."""


def parse_release(version: str) -> Release:
    """Of "0.26.0" or "0.32.0+cpu"; a development version counts as the release that it leads to."""
    numbers = [int(number) for number in re.findall(r"\d+", version.partition("+")[0])[:3]]
    major, minor, patch = (*numbers, 0, 0, 0)[:3]
    return major, minor, patch


@dataclass(frozen=True)
class Accounting:
    """How one release comes to its "Available KV cache memory"."""

    runner: int
    """1 or 2: which model runner serves Qwen-VL unless VLLM_USE_V2_MODEL_RUNNER says otherwise."""
    profiles_encoder: bool
    """The vision tower and its outputs are part of the measured peak."""
    estimates_graphs: bool
    """Room for CUDA graphs is subtracted."""
    by_free_memory: bool
    """Everything that is gone from the GPU counts; else weights, peak and what PyTorch did not allocate are added up,
    and what the runner allocated for itself is forgotten."""
    split_limit: bool
    """Weights are loaded under max_split_size_mb 20."""
    short_rope: bool
    """Qwen3-VL's M-RoPE table has max_position_embeddings rows, not four times as many."""


def accounting(release: Release, *, moe: bool = False, runner: int | None = None) -> Accounting:
    """The rules of one release. `runner` overrides the choice (VLLM_USE_V2_MODEL_RUNNER).

    0.25 and 0.26 with runner 2 measure text alone and no graphs: the KV cache takes what the vision tower needs (vLLM
    PR #48469). 0.27 measures the tower again, 0.29 the graphs too, and moves MoE models to runner 2.
    """
    if runner is None:
        runner = 2 if release >= ((0, 29, 0) if moe else (0, 25, 0)) else 1
    return Accounting(
        runner=runner,
        profiles_encoder=runner == 1 or release >= (0, 27, 0),
        estimates_graphs=runner == 1 or release >= (0, 29, 0),
        by_free_memory=release >= (0, 27, 0),
        split_limit=release >= (0, 22, 0),
        short_rope=release >= (0, 32, 0),
    )
