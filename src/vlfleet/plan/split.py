"""How vLLM cuts a model: sizes over tensor-parallel ranks, layers over pipeline stages. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from vlfleet.checkpoint.pad_size import VOCABULARY_MULTIPLE
from vlfleet.errors import ExitCode, VlfleetError


def share(size: int, ranks: int, what: str) -> int:
    """The part of one rank, when all are equal.

    Raises:
        VlfleetError: `size` is no multiple of `ranks`; `plan.legality` knows vLLM's own words for it.
    """
    if size % ranks:
        raise VlfleetError(
            f"{what} of {size:,} cannot be cut into {ranks} equal parts",
            "use a smaller --tensor-parallel-size, or pad the checkpoint",
            ExitCode.DOES_NOT_FIT,
        )
    return size // ranks


def padded_vocabulary(vocab_size: int) -> int:
    """Rows of the embedding, and of the head, over all ranks."""
    return -(-vocab_size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE


def kv_heads_per_rank(num_key_value_heads: int, tensor_parallel_size: int) -> int:
    """With more ranks than heads each rank holds a copy of one (QKVParallelLinear in model_executor/layers/linear.py).

    Raises:
        VlfleetError: the heads can be neither cut nor copied evenly.
    """
    if tensor_parallel_size >= num_key_value_heads:
        share(tensor_parallel_size, num_key_value_heads, "a tensor-parallel group")
        return 1
    return share(num_key_value_heads, tensor_parallel_size, "the number of key-value heads")


def pipeline_layers(num_hidden_layers: int, stages: int, partition: Sequence[int] | None = None) -> tuple[range, ...]:
    """The language layers of each pipeline stage, as `get_pp_indices` in vLLM's distributed/utils.py deals them out.

    Layers left over go one each to the stages before the last, from the back. `partition` is what
    VLLM_PP_LAYER_PARTITION says.

    Raises:
        VlfleetError: there are fewer layers than stages, or `partition` does not add up.
    """
    counts = list(partition) if partition else [num_hidden_layers // stages] * stages
    if not partition:
        for back in range(num_hidden_layers % stages):
            counts[-2 - back] += 1
    if len(counts) != stages or sum(counts) != num_hidden_layers or min(counts) < 1:
        raise VlfleetError(
            f"{num_hidden_layers} layers cannot be dealt out as {','.join(map(str, counts))} to {stages} stages",
            "use a smaller --pipeline-parallel-size, or another VLLM_PP_LAYER_PARTITION",
            ExitCode.DOES_NOT_FIT,
        )
    starts = [sum(counts[:stage]) for stage in range(stages)]
    return tuple(range(start, start + count) for start, count in zip(starts, counts, strict=True))
