"""What a rank holds beside weights, activations and KV cache: context, collectives, buffers, CUDA graphs. Pure."""

from __future__ import annotations

from vlfleet.plan import activation
from vlfleet.plan.flags import Flags, Sizes, capture_sizes, graph_count
from vlfleet.plan.kv import BLOCK_SIZE
from vlfleet.plan.memory_calibration import Calibration
from vlfleet.plan.shape import ModelShape
from vlfleet.plan.tensors import HALF, Rank
from vlfleet.plan.terms import MIB, Term

CUSTOM_ALL_REDUCE_BYTES = 3 * 8 * MIB
"""Two shared buffers and a table, 8 MiB each (distributed/device_communicators/custom_all_reduce.py)."""
_SEQUENCE_BYTES = 4 * (3 * 1024 + 128 + 1024 + 129)
"""Of one sequence in runner 2: allowed and biased tokens, biases, stop tokens, bad words and their offsets
(v1/worker/gpu/sample/logit_bias.py, bad_words.py)."""


def context(calibration: Calibration) -> Term:
    return Term(
        "CUDA context", calibration.context_bytes, source="total less free at the start", fitted=calibration.source
    )


def collectives(rank: Rank, stages: int, flags: Flags, calibration: Calibration) -> Term:
    """Taken before vLLM looks how much is free: they bound gpu_memory_utilization, not the KV cache."""
    ranks = rank.tensor_parallel_size * stages
    measured = calibration.collectives_bytes != Calibration.collectives_bytes
    custom = 0 if flags.disable_custom_all_reduce or rank.tensor_parallel_size == 1 else CUSTOM_ALL_REDUCE_BYTES
    return Term(
        "NCCL and custom all-reduce",
        calibration.collectives_bytes + custom if ranks > 1 else 0,
        "buffers of NCCL + 3 * 8 MiB",
        (("ranks", ranks),),
        "v1/worker/gpu_worker.py::init_device; custom_all_reduce.py",
        calibration.source if measured else "a prior that was not measured here",
    )


def kernels(calibration: Calibration) -> Term:
    return Term(
        "kernels and libraries", calibration.non_torch_bytes, source='"non-torch memory"', fitted=calibration.source
    )


def cublas_workspace_bytes(capability: tuple[int, int]) -> int:
    """32 MiB on Hopper and the first Blackwells, else 8.1 MiB (PyTorch's aten/src/ATen/cuda/CublasHandlePool.cpp)."""
    return 32 * MIB if capability in ((9, 0), (10, 0)) else 2 * 4 * MIB + 8 * 16 * 1024


def buffers(shape: ModelShape, rank: Rank, settled: Sizes, runner: int) -> Term:
    """What the model runner allocates for itself. vLLM before 0.27 does not count it anywhere.

    The largest is runner 2's count of every token in every sequence, for penalties that few requests ask for:
    max_num_seqs * vocab_size * 4, 0.58 GiB with 1024 sequences ("rarely used but can be very large", penalties.py).
    """
    tokens, sequences = settled.max_num_batched_tokens, settled.max_num_seqs
    table = -(-settled.max_model_len // (8 * BLOCK_SIZE)) * 8 * 4
    size = tokens * (4 + 8 + 8 + 1) + 3 * (tokens + 1) * 8 + 2 * sequences * table
    if rank.first:
        size += tokens * shape.hidden_size * HALF
    else:
        size += 2 * tokens * shape.hidden_size * HALF
    if runner == 2 and rank.last:
        mask = -(-shape.vocab_size // 32) * 4
        size += sequences * (shape.vocab_size * 4 + 2 * mask + _SEQUENCE_BYTES)
    return Term(
        "runner's buffers",
        size,
        "tokens * hidden_size * 2 + (runner 2) max_num_seqs * vocab_size * 4 + tables",
        (("max_num_batched_tokens", tokens), ("max_num_seqs", sequences)),
        "v1/worker/gpu/{states,input_batch,block_table}.py, gpu/sample/penalties.py, v1/worker/gpu_model_runner.py",
    )


def graph_pool_bytes(shape: ModelShape, rank: Rank, flags: Flags, settled: Sizes, calibration: Calibration) -> float:
    """Activations of the largest CUDA graph, which all graphs share."""
    largest = max(capture_sizes(flags, settled), default=0)
    return largest * activation.token_bytes(shape, rank) * calibration.activation_scale


def graphs(shape: ModelShape, rank: Rank, flags: Flags, settled: Sizes, calibration: Calibration) -> Term:
    """CUDA graphs: so much for each graph and layer, and the activations of the largest."""
    count, layers = graph_count(flags, settled), len(rank.layers)
    largest = max(capture_sizes(flags, settled), default=0)
    pool = round(graph_pool_bytes(shape, rank, flags, settled, calibration))
    return Term(
        "CUDA graphs",
        count * layers * calibration.graph_bytes + pool,
        "graphs * layers * bytes of one + largest size * bytes of a token",
        (("graphs", count), ("layers", layers), ("largest", largest)),
        "config/vllm.py::_set_cudagraph_sizes, v1/worker/gpu/cudagraph_utils.py",
        calibration.source,
    )
