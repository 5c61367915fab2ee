"""vLLM's options as far as they decide memory, and the defaults that it fills in. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from vlfleet.plan.releases import Release
from vlfleet.plan.shape import ModelShape
from vlfleet.plan.terms import GIB

GPU_MEMORY_UTILIZATION = 0.92
"""config/cache.py, 0.20.2 to 0.33.0."""
MM_PROCESSOR_CACHE_GB = 4.0
"""GiB of processed media that an API server keeps (config/multimodal.py, 0.20.2 to 0.32.0)."""
LIMIT_PER_PROMPT = 999
"""Media of one kind in a request when --limit-mm-per-prompt does not say (config/multimodal.py)."""


@dataclass(frozen=True)
class Flags:
    """Under vLLM's names. None: whatever vLLM takes then."""

    max_model_len: int | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    max_pixels: int | None = None
    """Of --mm-processor-kwargs; None: what the checkpoint's preprocessor_config.json says."""
    images_per_prompt: int = LIMIT_PER_PROMPT
    videos_per_prompt: int = LIMIT_PER_PROMPT
    gpu_memory_utilization: float = GPU_MEMORY_UTILIZATION
    kv_cache_memory_bytes: int | None = None
    kv_cache_dtype: str = "auto"
    mm_encoder_tp_mode: str = "weights"
    mm_processor_cache_gb: float = MM_PROCESSOR_CACHE_GB
    api_server_count: int = 1
    data_parallel_size: int = 1
    enforce_eager: bool = False
    cudagraph_capture_sizes: tuple[int, ...] | None = None
    skip_mm_profiling: bool = False
    enable_expert_parallel: bool = False
    disable_custom_all_reduce: bool = False
    llm_class: bool = False
    """vLLM's offline `LLM(...)`, which has other defaults than `vllm serve`."""
    runner: int | None = None
    """VLLM_USE_V2_MODEL_RUNNER: 1 or 2; None: what the release takes."""
    layer_partition: tuple[int, ...] | None = None
    """VLLM_PP_LAYER_PARTITION."""


def read_flags(options: Mapping[str, Any]) -> Flags:
    """From options under vLLM's names (`vars()` of an EngineOptions): None is as good as absent, others are ignored.

    A limit is a number, or as vLLM also takes it {"count": number}; a medium that is not named keeps vLLM's limit.
    """
    known = {field.name for field in fields(Flags)}
    given = {name: value for name, value in options.items() if name in known and value is not None}
    for medium, name in (("image", "images_per_prompt"), ("video", "videos_per_prompt")):
        limit = (options.get("limit_mm_per_prompt") or {}).get(medium)
        if limit is not None:
            given[name] = int(limit.get("count", LIMIT_PER_PROMPT) if isinstance(limit, Mapping) else limit)
    pixels = (options.get("mm_processor_kwargs") or {}).get("max_pixels")
    if pixels is not None:
        given["max_pixels"] = int(pixels)
    return Flags(**given)


@dataclass(frozen=True)
class Sizes:
    """What vLLM settles on."""

    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int


def sizes(flags: Flags, shape: ModelShape, gpu_total_bytes: int, gpu_name: str, release: Release) -> Sizes:
    """The defaults of engine/arg_utils.py::get_batch_defaults: they move with the GPU's memory.

    160 GiB and more (0.28 and newer)  16384 tokens, 1024 sequences
    70 GiB and more, but no A100        8192 tokens (16384 in the LLM class), 1024 sequences
    less                                2048 tokens (8192), 256 sequences
    """
    if gpu_total_bytes >= 160 * GIB and release >= (0, 28, 0):
        tokens, sequences = 16384, 1024
    elif gpu_total_bytes >= 70 * GIB and "a100" not in gpu_name.lower():
        tokens, sequences = (16384 if flags.llm_class else 8192), 1024
    else:
        tokens, sequences = (8192 if flags.llm_class else 2048), 256
    max_model_len = flags.max_model_len or shape.max_position_embeddings
    max_num_seqs = flags.max_num_seqs or sequences
    max_num_batched_tokens = flags.max_num_batched_tokens or min(tokens, max_num_seqs * max_model_len)
    if flags.max_num_seqs is None:
        max_num_seqs = min(max_num_seqs, max_num_batched_tokens)
    return Sizes(max_model_len, max_num_seqs, max_num_batched_tokens)


def capture_sizes(flags: Flags, settled: Sizes) -> tuple[int, ...]:
    """Batch sizes, in tokens, that CUDA graphs are captured for (config/vllm.py::_set_cudagraph_sizes).

    1, 2, 4, 8 to 248 in steps of 8, 256 to min(2 * max_num_seqs, 512) in steps of 16.
    """
    if flags.enforce_eager:
        return ()
    most = min(2 * settled.max_num_seqs, 512, settled.max_num_batched_tokens)
    if flags.cudagraph_capture_sizes is not None:
        return tuple(sorted({size for size in flags.cudagraph_capture_sizes if size <= settled.max_num_batched_tokens}))
    found = {size for size in (1, 2, 4, *range(8, 256, 8), *range(256, 513, 16)) if size <= most}
    if settled.max_num_batched_tokens <= most:
        found.add(settled.max_num_batched_tokens)
    return tuple(sorted(found))


def graph_count(flags: Flags, settled: Sizes) -> int:
    """Graphs of mode FULL_AND_PIECEWISE: one piecewise for each size, one whole for each size that decodes can have."""
    captured = capture_sizes(flags, settled)
    return len(captured) + sum(size <= settled.max_num_seqs for size in captured)
