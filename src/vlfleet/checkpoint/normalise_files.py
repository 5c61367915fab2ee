"""Tokenizer and processor files in the form of the hub. Pure: contents in, contents out."""

from __future__ import annotations

from typing import Any

from vlfleet.checkpoint.layout_files import section
from vlfleet.checkpoint.lint_files import IMAGE_PROCESSORS, SIDE_TOKENS
from vlfleet.families import Family

_V5_TOKENIZER = ("backend", "is_local", "local_files_only")
PROCESSORS = {"qwen2_vl": "Qwen2VLProcessor", "qwen2_5_vl": "Qwen2_5_VLProcessor"}
"""`processor_class` of the families that have Qwen2's tokenizer."""
_EDGES = (("min_pixels", "shortest_edge"), ("max_pixels", "longest_edge"))


def normal_tokenizer(tokenizer: dict[str, Any], template: str) -> dict[str, Any]:
    """tokenizer_config.json. `template` is the chat template that stands in a file of its own, or empty."""
    normal = {key: value for key, value in tokenizer.items() if key not in _V5_TOKENIZER}
    if normal.get("tokenizer_class") == "TokenizersBackend":
        normal["tokenizer_class"] = "Qwen2Tokenizer"
    extra = normal.get("extra_special_tokens")
    if isinstance(extra, list):
        del normal["extra_special_tokens"]
        normal.setdefault("additional_special_tokens", extra)
    if template and not normal.get("chat_template"):
        normal["chat_template"] = template
    return normal


def normal_preprocessor(preprocessor: dict[str, Any], family: Family) -> dict[str, Any]:
    """preprocessor_config.json, with its limits in both places where engines look: min_pixels and size."""
    if family.model_type.startswith("qwen3"):
        return preprocessor
    normal = dict(preprocessor)
    size = section(preprocessor, "size")
    limits = {}
    for pixels, edge in _EDGES:
        limit = preprocessor.get(pixels)
        limit = size.get(edge, size.get(pixels)) if limit is None else limit
        if isinstance(limit, int):
            limits[pixels], limits[edge] = limit, limit
    sane = limits.get("max_pixels", 0) >= SIDE_TOKENS * family.factor**2  # else lint tells: no engine shall obey it
    if len(limits) == 4 and sane:
        normal |= {pixels: limits[pixels] for pixels, _ in _EDGES}
        if size:
            normal["size"] = {edge: limits[edge] for _, edge in reversed(_EDGES)}
    if normal.get("image_processor_type") not in IMAGE_PROCESSORS:
        normal["image_processor_type"] = IMAGE_PROCESSORS[0]
    normal.setdefault("processor_class", PROCESSORS[family.model_type])
    return normal


def without_nested(processor: dict[str, Any]) -> dict[str, Any]:
    """processor_config.json without the parts that older engines expect in files of their own."""
    return {key: value for key, value in processor.items() if key not in ("image_processor", "video_processor")}
