"""Every weight that a model of a configuration has, by its name on the hub, before any quantisation. Pure.

Source: the model classes of transformers (models/qwen2_vl, qwen2_5_vl, qwen3_vl, qwen3_vl_moe), whose parameter counts
this reproduces for all 13 published sizes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vlfleet.checkpoint.layout import text_prefix, vision_prefix
from vlfleet.checkpoint.layout_files import section, size, text_of
from vlfleet.families import Family


@dataclass(frozen=True)
class Weight:
    """One parameter of the model."""

    name: str
    shape: tuple[int, ...]
    linear: bool = False
    """The weight [out_features, in_features] of a linear layer, which quantisation may store in another way."""
    optional: bool = False


def expected(config: dict[str, Any], family: Family) -> list[Weight]:
    """All weights of the model that config.json describes.

    Raises:
        VlfleetError: config.json lacks a size.
    """
    vision = section(config, "vision_config")
    tower = {"qwen2_vl": _qwen2_vision, "qwen2_5_vl": _qwen2_5_vision}.get(family.model_type, _qwen3_vision)
    prefix = vision_prefix(family)
    seen = [Weight(prefix + weight.name, weight.shape, weight.linear) for weight in tower(vision)]
    text, start = text_of(config), text_prefix(family)
    vocabulary = (size(text, "vocab_size"), size(text, "hidden_size"))
    return [
        *seen,
        Weight(f"{start}embed_tokens.weight", vocabulary),
        *(weight for layer in range(size(text, "num_hidden_layers")) for weight in _layer(text, family, start, layer)),
        Weight(f"{start}norm.weight", (vocabulary[1],)),
        Weight("lm_head.weight", vocabulary, linear=True, optional=is_tied(config)),
    ]


def is_tied(config: dict[str, Any]) -> bool:
    """Whether the head is the embedding. An engine that finds the key nowhere takes it for false."""
    return bool(text_of(config).get("tie_word_embeddings", False))


def experts_in_layer(text: dict[str, Any], layer: int) -> int:
    """Experts of this layer; 0: a plain MLP."""
    experts = text.get("num_experts") or 0
    if not experts or layer in (text.get("mlp_only_layers") or ()):
        return 0
    return int(experts) if (layer + 1) % int(text.get("decoder_sparse_step") or 1) == 0 else 0


def _linear(name: str, out: int, inputs: int, bias: bool = True) -> list[Weight]:
    weight = Weight(f"{name}.weight", (out, inputs), linear=True)
    return [weight, Weight(f"{name}.bias", (out,))] if bias else [weight]


def _norm(name: str, width: int, bias: bool = False) -> list[Weight]:
    return [Weight(f"{name}.{kind}", (width,)) for kind in ("weight", "bias")[: 1 + bias]]


def _layer(text: dict[str, Any], family: Family, prefix: str, layer: int) -> Iterator[Weight]:
    """One layer of the language model: Qwen2 has biases on q, k, v; Qwen3 has norms on the heads of q and k."""
    hidden, heads = size(text, "hidden_size"), size(text, "num_attention_heads")
    head_dim = size(text, "head_dim", hidden // heads)
    kv = size(text, "num_key_value_heads", heads) * head_dim
    qwen3 = family.model_type.startswith("qwen3")
    bias = bool(text.get("attention_bias")) if qwen3 else True
    here = f"{prefix}layers.{layer}"
    yield from _norm(f"{here}.input_layernorm", hidden)
    yield from _norm(f"{here}.post_attention_layernorm", hidden)
    for name, out in (("q_proj", heads * head_dim), ("k_proj", kv), ("v_proj", kv)):
        yield from _linear(f"{here}.self_attn.{name}", out, hidden, bias)
    yield from _linear(f"{here}.self_attn.o_proj", hidden, heads * head_dim, bias=qwen3 and bias)
    if qwen3:
        yield from _norm(f"{here}.self_attn.q_norm", head_dim)
        yield from _norm(f"{here}.self_attn.k_norm", head_dim)
    if experts := experts_in_layer(text, layer):
        inner = size(text, "moe_intermediate_size")
        yield Weight(f"{here}.mlp.gate.weight", (experts, hidden), linear=True)
        yield Weight(f"{here}.mlp.experts.gate_up_proj", (experts, hidden, 2 * inner))
        yield Weight(f"{here}.mlp.experts.down_proj", (experts, inner, hidden))
    else:
        yield from _mlp(f"{here}.mlp", hidden, size(text, "intermediate_size"), bias=False)


def separate_experts(weight: Weight) -> list[Weight]:
    """The same experts one by one, as quantised checkpoints store them; `weight` is one that holds them all."""
    start, _, name = weight.name.rpartition(".experts.")
    experts, rows, columns = weight.shape
    names = ("gate_proj", "up_proj") if name == "gate_up_proj" else (name,)
    return [
        Weight(f"{start}.experts.{expert}.{each}.weight", (columns // len(names), rows), linear=True)
        for expert in range(experts)
        for each in names
    ]


def _mlp(name: str, width: int, inner: int, bias: bool) -> Iterator[Weight]:
    yield from _linear(f"{name}.gate_proj", inner, width, bias)
    yield from _linear(f"{name}.up_proj", inner, width, bias)
    yield from _linear(f"{name}.down_proj", width, inner, bias)


def _patches(vision: dict[str, Any], width: int) -> tuple[int, ...]:
    patch = size(vision, "patch_size", 14)
    channels = vision.get("in_chans", vision.get("in_channels", 3))
    return (width, int(channels), size(vision, "temporal_patch_size", 2), patch, patch)


def _attention(name: str, width: int) -> Iterator[Weight]:
    yield from _linear(f"{name}.attn.qkv", 3 * width, width)
    yield from _linear(f"{name}.attn.proj", width, width)


def _qwen2_vision(vision: dict[str, Any]) -> Iterator[Weight]:
    width, out = size(vision, "embed_dim", 1280), size(vision, "hidden_size")
    inner = int(width * vision.get("mlp_ratio", 4))
    merged = width * size(vision, "spatial_merge_size", 2) ** 2
    yield Weight("patch_embed.proj.weight", _patches(vision, width))
    for block in (f"blocks.{number}" for number in range(size(vision, "depth", 32))):
        yield from _norm(f"{block}.norm1", width, bias=True)
        yield from _norm(f"{block}.norm2", width, bias=True)
        yield from _attention(block, width)
        yield from _linear(f"{block}.mlp.fc1", inner, width)
        yield from _linear(f"{block}.mlp.fc2", width, inner)
    yield from _norm("merger.ln_q", width, bias=True)
    yield from _linear("merger.mlp.0", merged, merged)
    yield from _linear("merger.mlp.2", out, merged)


def _qwen2_5_vision(vision: dict[str, Any]) -> Iterator[Weight]:
    width, out = size(vision, "hidden_size"), size(vision, "out_hidden_size")
    merged = width * size(vision, "spatial_merge_size", 2) ** 2
    yield Weight("patch_embed.proj.weight", _patches(vision, width))
    for block in (f"blocks.{number}" for number in range(size(vision, "depth", 32))):
        yield from _norm(f"{block}.norm1", width)
        yield from _norm(f"{block}.norm2", width)
        yield from _attention(block, width)
        yield from _mlp(f"{block}.mlp", width, size(vision, "intermediate_size", 3420), bias=True)
    yield from _norm("merger.ln_q", width)
    yield from _linear("merger.mlp.0", merged, merged)
    yield from _linear("merger.mlp.2", out, merged)


def _qwen3_vision(vision: dict[str, Any]) -> Iterator[Weight]:
    width, out = size(vision, "hidden_size"), size(vision, "out_hidden_size")
    inner = size(vision, "intermediate_size")
    merged = width * size(vision, "spatial_merge_size", 2) ** 2
    yield Weight("patch_embed.proj.weight", _patches(vision, width))
    yield Weight("patch_embed.proj.bias", (width,))
    yield Weight("pos_embed.weight", (size(vision, "num_position_embeddings"), width))
    for block in (f"blocks.{number}" for number in range(size(vision, "depth"))):
        yield from _norm(f"{block}.norm1", width, bias=True)
        yield from _norm(f"{block}.norm2", width, bias=True)
        yield from _attention(block, width)
        yield from _linear(f"{block}.mlp.linear_fc1", inner, width)
        yield from _linear(f"{block}.mlp.linear_fc2", width, inner)
    mergers = [("merger", width)]
    mergers += [
        (f"deepstack_merger_list.{number}", merged) for number in range(len(vision["deepstack_visual_indexes"]))
    ]
    for merger, normed in mergers:
        yield from _norm(f"{merger}.norm", normed, bias=True)
        yield from _linear(f"{merger}.linear_fc1", merged, merged)
        yield from _linear(f"{merger}.linear_fc2", out, merged)
