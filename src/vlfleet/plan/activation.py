"""What one step of the language model needs beside weights and KV cache: activations and logits. Pure."""

from __future__ import annotations

from vlfleet.plan.flags import Sizes
from vlfleet.plan.shape import ModelShape
from vlfleet.plan.split import share
from vlfleet.plan.tensors import HALF, Rank


def token_bytes(shape: ModelShape, rank: Rank) -> int:
    """Of one token at the widest moment of a layer, in compiled code.

    Dense: (3 * hidden_size + 3 * intermediate_size / tp) * 2: residual, the MLP's input and output; gate, up and their
    product. Derived before it was measured; two starts of the 7B on H200 with 0.26.0 that differ by 8,192 tokens differ
    by 134,609 +- 112 bytes a token, where this says 135,168.
    MoE: the two workspaces of the Triton kernel, top_k * (max(I, hidden) + max(2 * I, hidden)) rows of one number, its
    output, residual and input (fused_moe/experts/triton_moe.py::workspace_shapes). Not measured.
    """
    hidden, tp = shape.hidden_size, rank.tensor_parallel_size
    if shape.num_experts:
        inner = shape.moe_intermediate_size
        inner = inner if rank.expert_parallel else share(inner, tp, "the experts' intermediate size")
        workspaces = shape.num_experts_per_tok * (max(inner, hidden) + max(2 * inner, hidden))
        return (workspaces + 3 * hidden) * HALF
    return 3 * (hidden + share(shape.intermediate_size, tp, "the intermediate size")) * HALF


def profiled_logits_bytes(shape: ModelShape, rank: Rank, settled: Sizes, runner: int) -> int:
    """While vLLM measures: one row of logits for each of max_num_seqs, on the last stage.

    Runner 2 leaves them in 16 bits and samples in place (v1/worker/gpu/sample/sampler.py); gathered from all ranks they
    are there twice. Runner 1 has a copy, the probabilities and the noise in 32 bits beside them: 14 bytes a number
    (v1/sample/sampler.py, v1/sample/ops/topk_topp_sampler.py). Read, not measured.
    """
    if not rank.last:
        return 0
    numbers = min(settled.max_num_seqs, settled.max_num_batched_tokens) * shape.vocab_size
    if runner == 1:
        return numbers * 14
    return numbers * HALF * (2 if rank.tensor_parallel_size > 1 else 1)
