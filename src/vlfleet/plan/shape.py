"""What of a checkpoint's config.json decides memory: the sizes of the language model and of the vision tower. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vlfleet.errors import VlfleetError
from vlfleet.families import KNOWN_FAMILIES
from vlfleet.plan.quantized import TAKE, Quantized, read_quantized


@dataclass(frozen=True)
class VisionShape:
    """The vision tower."""

    depth: int
    hidden_size: int
    intermediate_size: int
    gated: bool
    """The MLP has gate and up (Qwen2.5-VL), else one layer up."""
    num_heads: int
    patch_size: int
    out_hidden_size: int
    temporal_patch_size: int = 2
    spatial_merge_size: int = 2
    in_channels: int = 3
    num_position_embeddings: int = 0
    """Rows of a learned position table (Qwen3-VL)."""
    deepstack_layers: int = 0
    """Layers whose features go beside the last one's into the language model (Qwen3-VL)."""

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def patch_elements(self) -> int:
        """Numbers of one patch, as the processor hands them over."""
        return self.in_channels * self.temporal_patch_size * self.patch_size**2

    @property
    def patches_per_token(self) -> int:
        return self.spatial_merge_size**2

    @property
    def token_side_pixels(self) -> int:
        """Side of one visual token, in pixels of the resized image."""
        return self.patch_size * self.spatial_merge_size

    @property
    def outputs_per_token(self) -> int:
        """Rows of the language model's width that one visual token becomes."""
        return 1 + self.deepstack_layers


@dataclass(frozen=True)
class ModelShape:
    """A Qwen-VL model, under the names of config.json."""

    model_type: str
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    max_position_embeddings: int
    tie_word_embeddings: bool
    vision: VisionShape
    num_experts: int = 0
    """0: dense."""
    num_experts_per_tok: int = 0
    moe_intermediate_size: int = 0
    quantized: Quantized | None = None

    @property
    def qkv_bias(self) -> bool:
        """Qwen2 has it; Qwen3 normalises queries and keys instead."""
        return not self.model_type.startswith("qwen3")

    @property
    def layer_parameters(self) -> int:
        """Of one language layer, uncut."""
        hidden, queries = self.hidden_size, self.num_attention_heads * self.head_dim
        keys = self.num_key_value_heads * self.head_dim
        attention = hidden * (queries + 2 * keys) + queries * hidden
        attention += queries + 2 * keys if self.qkv_bias else 2 * self.head_dim
        if self.num_experts:
            mlp = self.num_experts * 3 * hidden * self.moe_intermediate_size + hidden * self.num_experts
        else:
            mlp = 3 * hidden * self.intermediate_size
        return attention + mlp + 2 * hidden

    @property
    def vision_parameters(self) -> int:
        vision = self.vision
        width, inner = vision.hidden_size, vision.intermediate_size
        merged = width * vision.patches_per_token
        norm = width if vision.gated else 2 * width  # RMSNorm has no bias
        ups = 2 if vision.gated else 1
        block = 4 * (width * width + width) + ups * (width * inner + inner) + inner * width + width + 2 * norm
        merger = merged * merged + merged + merged * vision.out_hidden_size + vision.out_hidden_size
        deepstack = vision.deepstack_layers * (merger + 2 * merged)
        table = vision.num_position_embeddings * width
        patch = vision.patch_elements * width + (width if table else 0)
        return patch + table + vision.depth * block + merger + norm + deepstack

    @property
    def parameters(self) -> int:
        """Of everything, uncut; tied embeddings counted once."""
        tables = self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)
        return self.vision_parameters + tables + self.num_hidden_layers * self.layer_parameters + self.hidden_size


def read_shape(config: Mapping[str, Any], quantization: str | None = None) -> ModelShape:
    """From config.json, flat as on the hub or with `text_config`; `quantization` is what --quantization says.

    Raises:
        VlfleetError: not a Qwen-VL model, or a size is missing or no positive whole number.
    """
    merged = {**(config.get("text_config") or {}), **{key: value for key, value in config.items() if value is not None}}
    model_type = str(config.get("model_type"))
    if model_type not in KNOWN_FAMILIES:
        known = ", ".join(family.name for family in KNOWN_FAMILIES.values())
        raise VlfleetError(f"model_type {model_type!r} in config.json is not planned for", f"use one of {known}")
    experts = _size(merged, "num_experts") if model_type.endswith("moe") else 0
    heads, hidden = _size(merged, "num_attention_heads"), _size(merged, "hidden_size")
    return ModelShape(
        model_type=model_type,
        hidden_size=hidden,
        num_hidden_layers=_size(merged, "num_hidden_layers"),
        num_attention_heads=heads,
        num_key_value_heads=_size(merged, "num_key_value_heads", heads),
        head_dim=_size(merged, "head_dim", hidden // heads),
        intermediate_size=_size(merged, "intermediate_size", 0 if experts else None),
        vocab_size=_size(merged, "vocab_size"),
        max_position_embeddings=_size(merged, "max_position_embeddings"),
        tie_word_embeddings=bool(merged.get("tie_word_embeddings", False)),
        vision=_vision(model_type, config.get("vision_config")),
        num_experts=experts,
        num_experts_per_tok=_size(merged, "num_experts_per_tok") if experts else 0,
        moe_intermediate_size=_size(merged, "moe_intermediate_size") if experts else 0,
        quantized=read_quantized(config, quantization),
    )


def _vision(model_type: str, found: object) -> VisionShape:
    if not isinstance(found, dict):
        raise VlfleetError("config.json lacks vision_config", TAKE)
    family = KNOWN_FAMILIES[model_type]
    common = {
        "depth": _size(found, "depth", where="vision_config."),
        "num_heads": _size(found, "num_heads", where="vision_config."),
        "patch_size": _size(found, "patch_size", family.patch_size, "vision_config."),
        "temporal_patch_size": _size(found, "temporal_patch_size", family.temporal_patch_size, "vision_config."),
        "spatial_merge_size": _size(found, "spatial_merge_size", family.spatial_merge_size, "vision_config."),
        "in_channels": _size(found, "in_channels", int(found.get("in_chans") or 3), "vision_config."),
    }
    if model_type == "qwen2_vl":
        width = _size(found, "embed_dim", where="vision_config.")
        inner = int(width * float(found.get("mlp_ratio", 4)))
        out = _size(found, "hidden_size", where="vision_config.")
        return VisionShape(hidden_size=width, intermediate_size=inner, gated=False, out_hidden_size=out, **common)
    qwen3 = model_type.startswith("qwen3")
    return VisionShape(
        hidden_size=_size(found, "hidden_size", where="vision_config."),
        intermediate_size=_size(found, "intermediate_size", where="vision_config."),
        gated=not qwen3,
        out_hidden_size=_size(found, "out_hidden_size", where="vision_config."),
        num_position_embeddings=_size(found, "num_position_embeddings", where="vision_config.") if qwen3 else 0,
        deepstack_layers=len(found.get("deepstack_visual_indexes") or ()),
        **common,
    )


def _size(config: Mapping[str, Any], key: str, default: int | None = None, where: str = "") -> int:
    value = config.get(key)
    if value is None:
        if default is None:
            raise VlfleetError(f"config.json lacks {where}{key}", TAKE)
        return default
    if type(value) is not int or value < 1:
        raise VlfleetError(f"{where}{key} in config.json is {value!r:.50}, no positive whole number", TAKE)
    return value
