"""The KV cache: bytes, blocks, tokens and the errors, rounded as vLLM rounds. Pure.

Read in v1/core/kv_cache_utils.py and v1/kv_cache_interface.py of 0.20.2 to 0.33.0 (kv_cache_planning.py in 0.33): the
arithmetic of a model whose layers all attend to everything is the same in all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlfleet.plan.releases import Release
from vlfleet.plan.shape import ModelShape
from vlfleet.plan.split import kv_heads_per_rank
from vlfleet.plan.terms import gib

BLOCK_SIZE = 16
"""Tokens of a block on CUDA (config/cache.py)."""
_NARROW = ("fp8", "fp8_e4m3", "fp8_e5m2", "fp8_inc", "int8")


@dataclass(frozen=True)
class KvCache:
    """What the engine can hold: blocks of the rank that has the fewest."""

    blocks: int
    max_model_len: int
    block_size: int = BLOCK_SIZE

    @property
    def max_concurrency(self) -> float:
        """Requests of max_model_len at once: what "Maximum concurrency" says."""
        return self.blocks / -(-self.max_model_len // self.block_size)

    @property
    def tokens(self) -> int:
        """What "GPU KV cache size" says: concurrency times max_model_len, which is not always blocks times 16."""
        return int(self.max_concurrency * self.max_model_len)


def token_bytes(
    shape: ModelShape, tensor_parallel_size: int = 1, layers: int | None = None, dtype: str = "auto"
) -> int:
    """Of one token on one rank: 2 * layers * max(1, num_key_value_heads / tp) * head_dim * bytes of a number.

    `layers` are those of the rank's pipeline stage. `dtype` is --kv-cache-dtype; "auto" is the model's own 16 bits.

    Raises:
        VlfleetError: the heads can be neither cut nor copied evenly.
    """
    heads = kv_heads_per_rank(shape.num_key_value_heads, tensor_parallel_size)
    count = shape.num_hidden_layers if layers is None else layers
    number_bytes = 4 if dtype == "float32" else 1 if dtype in _NARROW else 2
    return 2 * count * heads * shape.head_dim * number_bytes


def blocks(available_bytes: int, bytes_per_token: int, block_size: int = BLOCK_SIZE) -> int:
    """That fit; vLLM takes the least of all ranks."""
    return max(0, available_bytes // (block_size * bytes_per_token))


def needed_bytes(max_model_len: int, bytes_per_token: int, block_size: int = BLOCK_SIZE) -> int:
    """For one request of max_model_len."""
    return -(-max_model_len // block_size) * block_size * bytes_per_token


def longest(available_bytes: int, bytes_per_token: int, limit: int, block_size: int = BLOCK_SIZE) -> int:
    """The "estimated maximum model length": whole blocks, at most `limit`; 0 when not one block fits."""
    return min(blocks(available_bytes, bytes_per_token, block_size) * block_size, limit)


def error(
    available_bytes: Sequence[int],
    bytes_per_token: Sequence[int],
    max_model_len: int,
    release: Release,
    block_size: int = BLOCK_SIZE,
) -> str:
    """The first rank's complaint in vLLM's words, or an empty string; one entry of each sequence a pipeline stage."""
    for available, each in zip(available_bytes, bytes_per_token, strict=True):
        if available <= 0:
            return _no_memory(release)
        needed = needed_bytes(max_model_len, each, block_size)
        if needed > available:
            return _too_long(max_model_len, needed, available, longest(available, each, max_model_len), release)
    return ""


_SEE = "See https://docs.vllm.ai/en/latest/configuration/conserving_memory/ for more details."
_NAMES_CPU: Release = (0, 22, 0)
"""Both errors say since then that the flag means the CPU's memory too (not in 0.20.2, 0.21 was not read)."""


def _no_memory(release: Release) -> str:
    cpu = " (this flag also controls CPU memory reservation on the CPU backend, despite its name)"
    return (
        "No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing the engine"
        f"{cpu if release >= _NAMES_CPU else ''}. {_SEE}"
    )


def _too_long(max_model_len: int, needed: int, available: int, estimate: int, release: Release) -> str:
    model = "model's" if release >= _NAMES_CPU else "models's"
    cpu = " (which also controls CPU memory on the CPU backend)" if release >= _NAMES_CPU else ""
    fits = f"Based on the available memory, the estimated maximum model length is {estimate}. " if estimate else ""
    return (
        f"To serve at least one request with the {model} max seq len ({max_model_len}), ({gib(needed)} GiB KV cache is "
        f"needed, which is larger than the available KV cache memory ({gib(available)} GiB). {fits}"
        f"Try increasing `gpu_memory_utilization`{cpu} or decreasing `max_model_len` when initializing the engine. "
        f"{_SEE}"
    )


def startup_error(free_bytes: int, total_bytes: int, requested_bytes: int, utilization: float, device: str) -> str:
    """What `request_memory` (v1/worker/utils.py) says when less is free than is asked for, or an empty string."""
    if free_bytes >= requested_bytes:
        return ""
    return (
        f"Free memory on device {device} ({gib(free_bytes)}/{gib(total_bytes)} GiB) on startup is less than desired "
        f"GPU memory utilization ({utilization}, {gib(requested_bytes)} GiB). Decrease GPU memory utilization or "
        "reduce GPU memory used by other processes."
    )
