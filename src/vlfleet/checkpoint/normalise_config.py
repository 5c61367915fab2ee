"""config.json in the form that the hub has, which every engine reads. Pure.

Qwen2-VL and Qwen2.5-VL: flat, `rope_scaling` with `"type": "mrope"`, `torch_dtype`; read by transformers 4.45 to 5,
vLLM 0.6 to 0.33 and SGLang. Qwen3-VL: nested, as transformers 4.57 wrote it, since no older engine knows the family.
"""

from __future__ import annotations

from typing import Any

from vlfleet.checkpoint.layout_files import section, text_of
from vlfleet.families import Family

_V5 = ("rope_parameters", "layer_types", "dtype")
"""Keys that transformers 5 writes, and whose older names stand beside them or are put there."""
_PUBLISHED_HEAD = 128
_PUBLISHED_SECTIONS = [16, 24, 24]
"""Of every published Qwen2-VL and Qwen2.5-VL, all of which have heads of 128."""
_DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}


def normal_config(config: dict[str, Any], family: Family, stored_dtype: str) -> dict[str, Any]:
    """`config` in the hub's form. A configuration that has it already comes back equal.

    `stored_dtype` is that of most tensors, as safetensors names it, for a configuration that says none.
    """
    if family.model_type.startswith("qwen3"):
        return _nested(config, family)
    text = text_of(config)
    flat = {key: value for key, value in text.items() if key not in (*_V5, "text_config")}
    flat = {key: value for key, value in flat.items() if value is not None or key in config}
    if flat.get("sliding_window", 0) is None:  # transformers 5 writes null for what is not used
        del flat["sliding_window"]
    flat["architectures"] = _architectures(config, family)
    flat["model_type"] = family.model_type
    flat["vision_config"] = _vision(config, family)
    if "torch_dtype" not in flat:
        flat["torch_dtype"] = text.get("dtype") or _DTYPES.get(stored_dtype, "bfloat16")
    theta = text.get("rope_theta", section(text, "rope_parameters").get("rope_theta"))
    if theta is not None:
        flat["rope_theta"] = theta
    rope = section(text, "rope_scaling") or section(text, "rope_parameters") or _published(text)
    if rope:
        flat["rope_scaling"] = _flat_rope(rope)
    return flat


def _flat_rope(rope: dict[str, Any]) -> dict[str, Any]:
    """`{"type": "mrope", "mrope_section": ...}`; a scaled one (YaRN) keeps its own type and figures."""
    kinds = [rope.get("rope_type"), rope.get("type")]
    scaled = [kind for kind in kinds if kind not in (None, "default", "mrope")]
    rest = {key: value for key, value in rope.items() if key not in ("type", "rope_type", "rope_theta")}
    return {"type": scaled[0] if scaled else "mrope", **rest}


def _published(text: dict[str, Any]) -> dict[str, Any]:
    hidden, heads = text.get("hidden_size"), text.get("num_attention_heads")
    known = isinstance(hidden, int) and isinstance(heads, int) and heads > 0 and hidden == heads * _PUBLISHED_HEAD
    return {"mrope_section": _PUBLISHED_SECTIONS} if known else {}


def _nested(config: dict[str, Any], family: Family) -> dict[str, Any]:
    """Qwen3-VL as on the hub: rope_scaling and rope_theta where transformers 5 has rope_parameters."""
    text = dict(section(config, "text_config"))
    parameters = dict(text.pop("rope_parameters", None) or {})
    if parameters:
        if (theta := parameters.pop("rope_theta", None)) is not None:
            text.setdefault("rope_theta", theta)
        text["rope_scaling"] = text.get("rope_scaling") or parameters
        if text.get("pad_token_id", 0) is None:
            del text["pad_token_id"]
    if config.get("tie_word_embeddings"):
        text["tie_word_embeddings"] = True  # where transformers 4.57 and vLLM look
    normal = {**config, "text_config": text, "vision_config": _vision(config, family)}
    normal["architectures"] = _architectures(config, family)
    return normal


def _architectures(config: dict[str, Any], family: Family) -> list[str]:
    named = config.get("architectures")
    right = isinstance(named, list) and bool(named) and named[0] == family.architecture
    return named if right and isinstance(named, list) else [family.architecture]


def _vision(config: dict[str, Any], family: Family) -> dict[str, Any]:
    """Without what transformers 5 adds: it calls the part `qwen2_5_vl_vision`, which older versions do not know."""
    vision = section(config, "vision_config")
    normal = {key: value for key, value in vision.items() if key not in ("rope_parameters", "dtype", "torch_dtype")}
    if str(normal.get("model_type", "")).endswith("_vision"):
        normal["model_type"] = family.model_type
    return normal
