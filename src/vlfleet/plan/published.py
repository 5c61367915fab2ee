"""config.json of the published Qwen-VL models, as far as sizes go: a plan needs no download. Pure.

Sizes: the config.json of each on the hub. The quantised releases of Qwen2-VL-72B and Qwen2.5-VL-72B have a padded
intermediate size of 29,696; the first upload of Qwen2.5-VL-72B-AWQ, which had 29,568, is not meant by its name here.
"""

from __future__ import annotations

import difflib
import re
from typing import Any

from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.plan.oracle.weight_formats import WeightFormat, stored_as

Row = tuple[int, int, int, int, int, int, bool, int]
"""Layers, hidden size, heads, key-value heads, intermediate size, vocabulary, tied embeddings, vision MLP."""
MODELS: dict[str, Row] = {
    "Qwen2-VL-2B": (28, 1536, 12, 2, 8960, 151936, True, 5120),
    "Qwen2-VL-7B": (28, 3584, 28, 4, 18944, 152064, False, 5120),
    "Qwen2-VL-72B": (80, 8192, 64, 8, 29568, 152064, False, 5120),
    "Qwen2.5-VL-3B": (36, 2048, 16, 2, 11008, 151936, True, 3420),
    "Qwen2.5-VL-7B": (28, 3584, 28, 4, 18944, 152064, False, 3420),
    "Qwen2.5-VL-32B": (64, 5120, 40, 8, 27648, 152064, False, 3456),
    "Qwen2.5-VL-72B": (80, 8192, 64, 8, 29568, 152064, False, 3456),
    "Qwen3-VL-2B": (28, 2048, 16, 8, 6144, 151936, True, 4096),
    "Qwen3-VL-4B": (36, 2560, 32, 8, 9728, 151936, True, 4096),
    "Qwen3-VL-8B": (36, 4096, 32, 8, 12288, 151936, False, 4304),
    "Qwen3-VL-32B": (64, 5120, 64, 8, 25600, 151936, False, 4304),
    "Qwen3-VL-30B-A3B": (48, 2048, 32, 4, 768, 151936, False, 4304),
    "Qwen3-VL-235B-A22B": (94, 4096, 64, 4, 1536, 151936, False, 4304),
}
"""By the name on the hub without "-Instruct"; the intermediate size of a MoE model is that of one expert."""
PADDED_72B = 29696
_SUFFIXES = {
    "AWQ": ("Qwen", WeightFormat.AWQ),
    "GPTQ-Int4": ("Qwen", WeightFormat.GPTQ_INT4),
    "GPTQ-Int8": ("Qwen", WeightFormat.GPTQ_INT8),
    "FP8": ("Qwen", WeightFormat.FP8_BLOCK),
    "FP8-dynamic": ("RedHatAI", WeightFormat.FP8_CHANNEL),
    "quantized.w4a16": ("RedHatAI", WeightFormat.W4A16),
}
"""How a release's name ends, and who published it."""
_PADDED = (WeightFormat.AWQ, WeightFormat.GPTQ_INT4, WeightFormat.GPTQ_INT8)


def find(name: str) -> tuple[str, dict[str, Any]]:
    """The name on the hub and config.json: "Qwen/Qwen2.5-VL-7B-Instruct", "qwen2.5-vl-7b", "...-7B-Instruct-AWQ".

    Raises:
        VlfleetError: exit code 2, no published model is called so; the error names the nearest ones.
    """
    plain = _plain(name.rpartition("/")[2])
    for model in sorted(MODELS, key=len, reverse=True):
        rest = plain.removeprefix(_plain(model)) if plain.startswith(_plain(model)) else None
        if rest is None:
            continue
        rest = rest.removeprefix("instruct")
        if not rest:
            return f"Qwen/{model}-Instruct", config_of(model)
        for suffix, (owner, stored) in _SUFFIXES.items():
            if rest == _plain(suffix):
                return f"{owner}/{model}-Instruct-{suffix}", config_of(model, stored)
    near = difflib.get_close_matches(plain, {_plain(model): model for model in MODELS}, n=2, cutoff=0.6)
    names = [model for model in MODELS if _plain(model) in near] or list(MODELS)[4:6]
    remedy = f"nearest: {', '.join(names)}; else give a checkpoint folder or a config.json"
    raise VlfleetError(f"{name} is no folder, no file, and no published Qwen-VL model", remedy, ExitCode.USAGE)


def config_of(model: str, stored: WeightFormat = WeightFormat.BF16) -> dict[str, Any]:
    """config.json in this format of a model named in `MODELS`."""
    layers, hidden, heads, kv_heads, inner, vocabulary, tied, vision_mlp = MODELS[model]
    if model.endswith("72B") and stored in _PADDED:
        inner = PADDED_72B
    text = {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": inner,
        "vocab_size": vocabulary,
    }
    qwen3 = model.startswith("Qwen3")
    build = _qwen3 if qwen3 else _qwen2_5 if model.startswith("Qwen2.5") else _qwen2
    return stored_as(build(text, tied, vision_mlp), stored)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9.]", "", name.lower())


def _qwen2(text: dict[str, Any], tied: bool, vision_mlp: int, context: int = 32768) -> dict[str, Any]:
    vision = {
        "depth": 32, "embed_dim": 1280, "mlp_ratio": vision_mlp // 1280, "num_heads": 16, "in_chans": 3,
        "hidden_size": text["hidden_size"], "patch_size": 14, "spatial_merge_size": 2, "spatial_patch_size": 14,
        "temporal_patch_size": 2,
    }  # fmt: skip
    return {
        **text,
        "model_type": "qwen2_vl",
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "torch_dtype": "bfloat16",
        "tie_word_embeddings": tied,
        "max_position_embeddings": context,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        "vision_config": vision,
    }


def _qwen2_5(text: dict[str, Any], tied: bool, vision_mlp: int) -> dict[str, Any]:
    vision = {
        "depth": 32, "hidden_size": 1280, "intermediate_size": vision_mlp, "num_heads": 16, "in_chans": 3,
        "out_hidden_size": text["hidden_size"], "patch_size": 14, "spatial_merge_size": 2, "spatial_patch_size": 14,
        "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31], "tokens_per_second": 2, "temporal_patch_size": 2,
    }  # fmt: skip
    other = {"model_type": "qwen2_5_vl", "architectures": ["Qwen2_5_VLForConditionalGeneration"]}
    return {**_qwen2(text, tied, 5120, 128000), **other, "vision_config": vision}


def _qwen3(text: dict[str, Any], tied: bool, vision_mlp: int) -> dict[str, Any]:
    small, hidden, inner = vision_mlp == 4096, int(text["hidden_size"]), int(text["intermediate_size"])
    experts = inner < hidden  # only the MoE models' MLPs are narrower than the model
    model_type = "qwen3_vl_moe" if experts else "qwen3_vl"
    nested = {**text, "head_dim": 128, "max_position_embeddings": 262144, "dtype": "bfloat16"}
    nested |= {"model_type": f"{model_type}_text", "rope_scaling": {"mrope_section": [24, 20, 20]}}
    if experts:
        nested |= {"intermediate_size": 3 * hidden, "num_experts": 128, "num_experts_per_tok": 8}
        nested |= {"moe_intermediate_size": inner, "decoder_sparse_step": 1, "mlp_only_layers": []}
        nested["norm_topk_prob"] = True  # vLLM reads it without a default
    vision = {
        "depth": 24 if small else 27, "hidden_size": 1024 if small else 1152, "intermediate_size": vision_mlp,
        "num_heads": 16, "in_channels": 3, "out_hidden_size": hidden, "patch_size": 16, "spatial_merge_size": 2,
        "temporal_patch_size": 2, "num_position_embeddings": 2304, "model_type": model_type,
        "deepstack_visual_indexes": [5, 11, 17] if small else [8, 16, 24],
    }  # fmt: skip
    name = "Qwen3VLMoeForConditionalGeneration" if experts else "Qwen3VLForConditionalGeneration"
    return {
        "model_type": model_type,
        "architectures": [name],
        "tie_word_embeddings": tied,
        "text_config": nested,
        "vision_config": vision,
    }
