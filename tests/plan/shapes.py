"""config.json of the 13 Qwen-VL models on the hub, as far as sizes go."""

from __future__ import annotations

from typing import Any

Sizes = tuple[int, int, int, int, int, bool]
"""Layers, heads, key-value heads, intermediate size, vocabulary, tied embeddings."""


def _language(hidden: int, sizes: Sizes, context: int) -> dict[str, Any]:
    layers, heads, kv_heads, inner, vocabulary, tied = sizes
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": inner,
        "vocab_size": vocabulary,
        "tie_word_embeddings": tied,
        "max_position_embeddings": context,
    }


def _qwen2_vl(hidden: int, *rest: Any) -> dict[str, Any]:
    vision = {
        "depth": 32, "embed_dim": 1280, "mlp_ratio": 4, "num_heads": 16, "in_chans": 3, "hidden_size": hidden,
        "patch_size": 14, "spatial_merge_size": 2, "spatial_patch_size": 14, "temporal_patch_size": 2,
    }  # fmt: skip
    return {"model_type": "qwen2_vl", **_language(hidden, rest, 32768), "vision_config": vision}


def _qwen2_5_vl(vision_inner: int, hidden: int, *rest: Any) -> dict[str, Any]:
    vision = {
        "depth": 32, "hidden_size": 1280, "intermediate_size": vision_inner, "num_heads": 16, "in_chans": 3,
        "out_hidden_size": hidden, "patch_size": 14, "spatial_merge_size": 2, "spatial_patch_size": 14,
        "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31], "tokens_per_second": 2, "temporal_patch_size": 2,
    }  # fmt: skip
    return {"model_type": "qwen2_5_vl", **_language(hidden, rest, 128000), "vision_config": vision}


def _qwen3_vl(large_tower: bool, hidden: int, *rest: Any, experts: int = 0) -> dict[str, Any]:
    text = {**_language(hidden, rest, 262144), "head_dim": 128}
    if experts:
        text |= {"num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": experts}
    vision = {
        "depth": 27 if large_tower else 24, "hidden_size": 1152 if large_tower else 1024,
        "intermediate_size": 4304 if large_tower else 4096, "num_heads": 16, "in_channels": 3,
        "out_hidden_size": hidden, "patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2,
        "num_position_embeddings": 2304, "deepstack_visual_indexes": [8, 16, 24] if large_tower else [5, 11, 17],
    }  # fmt: skip
    tied = text["tie_word_embeddings"]
    model_type = "qwen3_vl_moe" if experts else "qwen3_vl"
    return {"model_type": model_type, "tie_word_embeddings": tied, "text_config": text, "vision_config": vision}


CONFIGS: dict[str, dict[str, Any]] = {
    "Qwen2-VL-2B": _qwen2_vl(1536, 28, 12, 2, 8960, 151936, True),
    "Qwen2-VL-7B": _qwen2_vl(3584, 28, 28, 4, 18944, 152064, False),
    "Qwen2-VL-72B": _qwen2_vl(8192, 80, 64, 8, 29568, 152064, False),
    "Qwen2.5-VL-3B": _qwen2_5_vl(3420, 2048, 36, 16, 2, 11008, 151936, True),
    "Qwen2.5-VL-7B": _qwen2_5_vl(3420, 3584, 28, 28, 4, 18944, 152064, False),
    "Qwen2.5-VL-32B": _qwen2_5_vl(3456, 5120, 64, 40, 8, 27648, 152064, False),
    "Qwen2.5-VL-72B": _qwen2_5_vl(3456, 8192, 80, 64, 8, 29568, 152064, False),
    "Qwen3-VL-2B": _qwen3_vl(False, 2048, 28, 16, 8, 6144, 151936, True),
    "Qwen3-VL-4B": _qwen3_vl(False, 2560, 36, 32, 8, 9728, 151936, True),
    "Qwen3-VL-8B": _qwen3_vl(True, 4096, 36, 32, 8, 12288, 151936, False),
    "Qwen3-VL-32B": _qwen3_vl(True, 5120, 64, 64, 8, 25600, 151936, False),
    "Qwen3-VL-30B-A3B": _qwen3_vl(True, 2048, 48, 32, 4, 6144, 151936, False, experts=768),
    "Qwen3-VL-235B-A22B": _qwen3_vl(True, 4096, 94, 64, 4, 12288, 151936, False, experts=1536),
}

AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "modules_to_not_convert": ["visual"]}
GPTQ_8 = {"quant_method": "gptq", "bits": 8, "group_size": 128}
FP8_CHANNEL = {
    "quant_method": "compressed-tensors",
    "ignore": ["re:.*lm_head", "re:.*visual.*"],
    "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "float", "strategy": "channel"}}},
}
FP8_BLOCK = {"quant_method": "fp8", "weight_block_size": [128, 128], "modules_to_not_convert": ["visual"]}


def config(model: str, quantization: dict[str, Any] | None = None, **text: Any) -> dict[str, Any]:
    """A copy, quantised, and with other sizes of the language model."""
    found = CONFIGS[model]
    changed = {**found, "quantization_config": quantization} if quantization else dict(found)
    if "text_config" in found:
        changed["text_config"] = {**found["text_config"], **text}
        return changed
    return {**changed, **text}
