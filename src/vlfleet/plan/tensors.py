"""Every tensor that vLLM allocates while it loads a model, for one rank, in the order of its constructors. Pure.

Those that do not stay are there where they leave a large gap: the float32 tables of the language model's rotation.

Read in vLLM 0.26.0, model_executor/models/{qwen2,qwen3,qwen3_moe,qwen2_vl,qwen2_5_vl,qwen3_vl,qwen3_vl_moe}.py and
model_executor/layers/{linear,vocab_parallel_embedding,rotary_embedding/mrope}.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vlfleet.plan.quantized import Quantized
from vlfleet.plan.shape import ModelShape
from vlfleet.plan.split import kv_heads_per_rank, padded_vocabulary, share

HALF = 2
"""Bytes of a bfloat16 or float16."""
TEMPORARY = "temporary"
_VISION_POSITIONS = 8192
"""Rows of the vision tower's table of cosines and sines (`max_position` in its get_rope)."""


@dataclass(frozen=True)
class Rank:
    """One GPU's place in a replica."""

    tensor_parallel_size: int
    layers: range
    """Its language layers."""
    first: bool = True
    """Of the pipeline stages."""
    last: bool = True
    vision_parallel_size: int = 1
    """1 in --mm-encoder-tp-mode data, else the tensor-parallel size."""
    expert_parallel: bool = False


def tensors(shape: ModelShape, rank: Rank, rope_positions: int, deepstack_rows: int) -> Iterator[tuple[str, int]]:
    """(part, bytes) of each tensor: parts are vision, embedding, layers, head and tables, and TEMPORARY.

    `rope_positions` are the rows of the M-RoPE table, `deepstack_rows` those of Qwen3-VL's buffers for visual features
    (max_num_batched_tokens). The vision tower is on every pipeline stage (`_mark_tower_model` does not ask which).

    Raises:
        VlfleetError: something cannot be cut evenly.
    """
    yield from (("vision", size) for size in _vision(shape, rank))
    if deepstack_rows and shape.vision.deepstack_layers:
        yield from [("tables", deepstack_rows * shape.hidden_size * HALF)] * shape.vision.deepstack_layers
    rows = share(padded_vocabulary(shape.vocab_size), rank.tensor_parallel_size, "the vocabulary")
    vocabulary = rows * shape.hidden_size * HALF
    # Qwen3-VL's MoE classes do not ask which stage they are: embedding, last norm and head are on every one.
    first, last = (rank.first or shape.num_experts > 0), (rank.last or shape.num_experts > 0)
    if first or (last and shape.tie_word_embeddings):
        yield "embedding", vocabulary
    for number, layer in enumerate(rank.layers):
        yield from (("layers", size) for size in _attention(shape, rank, layer))
        if number == 0:
            # RotaryEmbedding._compute_cos_sin_cache: angles, cosines, sines, and both in one, then in 16 bits.
            angles = rope_positions * shape.head_dim // 2 * 4
            yield from [(TEMPORARY, size) for size in (angles, angles, angles, 2 * angles)]
            yield "tables", rope_positions * shape.head_dim * HALF
        yield from (("layers", size) for size in _mlp(shape, rank, layer))
        yield from [("layers", shape.hidden_size * HALF)] * 2
    if last:
        yield "layers", shape.hidden_size * HALF
        if not shape.tie_word_embeddings:
            yield "head", vocabulary


def _attention(shape: ModelShape, rank: Rank, layer: int) -> Iterator[int]:
    tp, hidden, head = rank.tensor_parallel_size, shape.hidden_size, shape.head_dim
    queries = share(shape.num_attention_heads, tp, "the number of attention heads") * head
    fused = queries + 2 * kv_heads_per_rank(shape.num_key_value_heads, tp) * head
    scheme = _scheme(shape, f"layers.{layer}.self_attn.q_proj", f"layers.{layer}.self_attn.qkv_proj")
    yield from _linear(scheme, hidden, fused, bias=shape.qkv_bias)
    scheme = _scheme(shape, f"layers.{layer}.self_attn.o_proj")
    yield from _linear(scheme, queries, hidden, bias=False)
    if not shape.qkv_bias:
        yield from [head * HALF] * 2


def _mlp(shape: ModelShape, rank: Rank, layer: int) -> Iterator[int]:
    tp, hidden = rank.tensor_parallel_size, shape.hidden_size
    if not shape.num_experts:
        inner = share(shape.intermediate_size, tp, "the intermediate size")
        names = (f"layers.{layer}.mlp.gate_proj", f"layers.{layer}.mlp.gate_up_proj")
        yield from _linear(_scheme(shape, *names), hidden, 2 * inner, bias=False)
        yield from _linear(_scheme(shape, f"layers.{layer}.mlp.down_proj"), inner, hidden, bias=False)
        return
    yield shape.num_experts * hidden * HALF  # the router is never cut and never quantised
    experts = shape.num_experts
    inner = shape.moe_intermediate_size
    if rank.expert_parallel:
        experts = share(experts, tp, "the number of experts")
    else:
        inner = share(inner, tp, "the experts' intermediate size")
    names = (f"layers.{layer}.mlp.experts.0.gate_proj", f"layers.{layer}.mlp.experts")
    scheme = _scheme(shape, *names)
    scheme = scheme and scheme.for_experts(inner)
    for inputs, outputs in ((hidden, 2 * inner), (inner, hidden)):
        yield from (experts * size for size in _linear(scheme, inputs, outputs, bias=False))


def _vision(shape: ModelShape, rank: Rank) -> Iterator[int]:
    vision, ranks = shape.vision, rank.vision_parallel_size
    width, bias = vision.hidden_size, vision.hidden_size * HALF
    heads = share(vision.num_heads, ranks, "the vision tower's number of heads") * vision.head_dim
    inner = share(vision.intermediate_size, ranks, "the vision tower's intermediate size")
    norm = [bias] if vision.gated else [bias, bias]
    yield vision.patch_elements * width * HALF
    if vision.num_position_embeddings:
        yield bias
        yield vision.num_position_embeddings * width * HALF
    yield _VISION_POSITIONS * (vision.head_dim // 2) * HALF
    for block in range(vision.depth):
        name = f"visual.blocks.{block}"
        yield from norm * 2
        yield from _linear(_scheme(shape, f"{name}.attn.qkv"), width, 3 * heads, bias=True)
        yield from _linear(_scheme(shape, f"{name}.attn.proj"), heads, width, bias=True)
        ups = (f"{name}.mlp.gate_proj", f"{name}.mlp.fc1", f"{name}.mlp.linear_fc1", f"{name}.mlp.gate_up_proj")
        yield from _linear(_scheme(shape, *ups), width, (2 if vision.gated else 1) * inner, bias=True)
        downs = (f"{name}.mlp.down_proj", f"{name}.mlp.fc2", f"{name}.mlp.linear_fc2")
        yield from _linear(_scheme(shape, *downs), inner, width, bias=True)
    yield from norm
    yield from _merger(shape, ranks, "visual.merger")
    for number in range(vision.deepstack_layers):
        yield from [width * vision.patches_per_token * HALF] * 2
        yield from _merger(shape, ranks, f"visual.deepstack_merger_list.{number}")


def _merger(shape: ModelShape, ranks: int, name: str) -> Iterator[int]:
    merged = shape.vision.hidden_size * shape.vision.patches_per_token
    cut = share(merged, ranks, "the merger's width")
    scheme = _scheme(shape, f"{name}.mlp.0", f"{name}.linear_fc1")
    yield from _linear(scheme, merged, cut, bias=True)
    yield from _linear(scheme, cut, shape.vision.out_hidden_size, bias=True)


def _linear(scheme: Quantized | None, inputs: int, outputs: int, *, bias: bool) -> Iterator[int]:
    if scheme is None:
        yield inputs * outputs * HALF
    else:
        yield from scheme.linear(inputs, outputs)
    if bias:
        yield outputs * HALF


def _scheme(shape: ModelShape, *names: str) -> Quantized | None:
    """How a layer is quantised, or None; each name is tried as the hub, transformers 5 and vLLM have it."""
    found = shape.quantized
    if found is None:
        return None
    prefixes = ("", "model.") if names[0].startswith("visual") else ("model.", "model.language_model.")
    every = [prefix + name for prefix in prefixes for name in names]
    return found if found.covers(*every) else None
