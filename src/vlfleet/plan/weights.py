"""Weights of each rank, as vLLM's log will count them. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

from vlfleet.plan.allocator import LOADING_SPLIT_LIMIT, Temporary, allocate
from vlfleet.plan.releases import Release, accounting
from vlfleet.plan.shape import ModelShape
from vlfleet.plan.split import pipeline_layers
from vlfleet.plan.tensors import TEMPORARY, Rank, tensors
from vlfleet.plan.terms import Term


@dataclass(frozen=True)
class Weights:
    """What one rank holds after loading."""

    vision_bytes: int
    embedding_bytes: int
    layers_bytes: int
    head_bytes: int
    tables_bytes: int
    """M-RoPE's cosines and sines, and Qwen3-VL's buffers for visual features."""
    rounding_bytes: int
    """What PyTorch's allocator hands out beyond that: `allocator.allocate`."""
    unused_bytes: int
    """What it took from the driver beyond that, for tensors to come."""

    @property
    def tensors_bytes(self) -> int:
        """Of all tensors: what vLLM's own classes have on the meta device."""
        return self.vision_bytes + self.embedding_bytes + self.layers_bytes + self.head_bytes + self.tables_bytes

    @property
    def allocated_bytes(self) -> int:
        """What the log says: "Model loading took N GiB"."""
        return self.tensors_bytes + self.rounding_bytes

    @property
    def reserved_bytes(self) -> int:
        """What the driver gave."""
        return self.allocated_bytes + self.unused_bytes


def ranks(
    shape: ModelShape,
    tensor_parallel_size: int = 1,
    pipeline_parallel_size: int = 1,
    *,
    data_mode: bool = False,
    expert_parallel: bool = False,
    partition: tuple[int, ...] | None = None,
) -> tuple[Rank, ...]:
    """One for each pipeline stage: the ranks of a tensor-parallel group hold the same amounts."""
    stages = pipeline_layers(shape.num_hidden_layers, pipeline_parallel_size, partition)
    return tuple(
        Rank(
            tensor_parallel_size,
            layers,
            first=stage == 0,
            last=stage == pipeline_parallel_size - 1,
            vision_parallel_size=1 if data_mode else tensor_parallel_size,
            expert_parallel=expert_parallel,
        )
        for stage, layers in enumerate(stages)
    )


@lru_cache(maxsize=4096)
def weights(shape: ModelShape, rank: Rank, release: Release, max_num_batched_tokens: int = 0) -> Weights:
    """What `rank` holds with this release of vLLM; `max_num_batched_tokens` matters to Qwen3-VL alone.

    Raises:
        VlfleetError: something cannot be cut evenly.
    """
    rules = accounting(release, moe=bool(shape.num_experts))
    factor = 1 if shape.model_type.startswith("qwen3") and rules.short_rope else 4
    parts = list(tensors(shape, rank, shape.max_position_embeddings * factor, max_num_batched_tokens))
    of: Counter[str] = Counter()
    for part, size in parts:
        of[part] += size
    sizes = (Temporary(size) if part == TEMPORARY else size for part, size in parts)
    books = allocate(sizes, LOADING_SPLIT_LIMIT if rules.split_limit else None)
    return Weights(
        vision_bytes=of["vision"],
        embedding_bytes=of["embedding"],
        layers_bytes=of["layers"],
        head_bytes=of["head"],
        tables_bytes=of["tables"],
        rounding_bytes=books.allocated_bytes - books.requested_bytes,
        unused_bytes=books.reserved_bytes - books.allocated_bytes,
    )


def weight_terms(held: Weights) -> tuple[Term, ...]:
    """One for each part that is there."""
    models = "vLLM's model_executor/models"
    found = (
        Term("language layers", held.layers_bytes, "sum over layers of fused QKV, output, MLP, norms", source=models),
        Term("embedding", held.embedding_bytes, "pad64(vocab_size) / tp * hidden_size * 2", source=models),
        Term("head", held.head_bytes, "pad64(vocab_size) / tp * hidden_size * 2", source=models),
        Term("vision tower", held.vision_bytes, "blocks, merger, patches; on every pipeline stage", source=models),
        Term(
            "position tables",
            held.tables_bytes,
            "max_position_embeddings * 4 * head_dim * 2 (Qwen3-VL: + deepstack * max_num_batched_tokens * hidden * 2)",
            source="model_executor/layers/rotary_embedding/mrope.py; models/qwen3_vl.py",
        ),
        Term(
            "allocator's rounding",
            held.rounding_bytes,
            "tensors of 20 MiB and more are rounded up to 2 MiB",
            source="v1/worker/gpu_worker.py::_scoped_allocator_max_split; PyTorch's CUDACachingAllocator.cpp",
        ),
    )
    return tuple(term for term in found if term.bytes)
