"""Rules about config.json. Every message quoted as transformers' was raised by 4.49.0, 4.52.4 and 4.57.6 when asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlfleet.checkpoint.layout_files import section, size
from vlfleet.checkpoint.lint_rule import FROM_HUB, NORMALISE, Evidence, Found, Rule, Severity

CONFIG = "config.json"
_FROM_HUB = FROM_HUB.format(CONFIG)
_OWN = ("architectures", "model_type", "torch_dtype", "dtype", "rope_scaling", "rope_parameters", "use_cache",
        "layer_types", "sliding_window", "image_token_id", "video_token_id", "transformers_version")  # fmt: skip
"""Keys that may differ between config.json and its text_config without consequence, or that have rules of their own."""


def ropes(config: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Every rope_scaling in the configuration, with where it stands."""
    nested = section(dict(config), "text_config")
    places = (("rope_scaling", config), ("text_config.rope_scaling", nested))
    return [(name, found["rope_scaling"]) for name, found in places if isinstance(found.get("rope_scaling"), dict)]


def _missing(evidence: Evidence) -> Found:
    text = evidence.contents.text
    if not ropes(evidence.config) and not section(text, "rope_parameters"):
        yield CONFIG, "has neither rope_scaling nor rope_parameters"


def _only_parameters(evidence: Evidence) -> Found:
    if not ropes(evidence.config) and section(evidence.contents.text, "rope_parameters"):
        yield CONFIG, "has rope_parameters (transformers 5), but no rope_scaling"


def _all_ropes(evidence: Evidence) -> list[tuple[str, dict[str, Any]]]:
    parameters = section(evidence.contents.text, "rope_parameters")
    return [*ropes(evidence.config), *([("rope_parameters", parameters)] if parameters else [])]


def _section_missing(evidence: Evidence) -> Found:
    for name, rope in _all_ropes(evidence):
        if "mrope_section" not in rope:
            yield CONFIG, f"{name} has no mrope_section"


def _section_sum(evidence: Evidence) -> Found:
    text = evidence.contents.text
    half = size(text, "head_dim", size(text, "hidden_size") // size(text, "num_attention_heads")) // 2
    for name, rope in _all_ropes(evidence):
        parts = rope.get("mrope_section")
        if parts is not None and (not _are_numbers(parts) or sum(parts) != half):
            yield CONFIG, f"mrope_section {parts} of {name} does not add up to half a head ({half})"


def _are_numbers(parts: object) -> bool:
    return isinstance(parts, list) and all(type(part) is int for part in parts)


def _rope_type_mrope(evidence: Evidence) -> Found:
    for name, rope in ropes(evidence.config):
        if rope.get("rope_type") == "mrope":
            yield CONFIG, f'{name} has "rope_type": "mrope"'


def _type_missing(evidence: Evidence) -> Found:
    for name, rope in ropes(evidence.config):
        if not evidence.qwen3 and "type" not in rope:
            yield CONFIG, f'{name} has no "type"'


def _type_default(evidence: Evidence) -> Found:
    for name, rope in ropes(evidence.config):
        if not evidence.qwen3 and rope.get("type") == "default":
            yield CONFIG, f'{name} has "type": "default" instead of "mrope"'


def _nested(evidence: Evidence) -> Found:
    if not evidence.qwen3 and section(evidence.config, "text_config"):
        yield CONFIG, "puts the language model's fields into text_config"


def _disagrees(evidence: Evidence) -> Found:
    nested = section(evidence.config, "text_config")
    for key in sorted((nested.keys() & evidence.config.keys()) - set(_OWN)):
        if nested[key] is not None and nested[key] != evidence.config[key]:
            yield CONFIG, f"{key} is {evidence.config[key]!r:.40}, in text_config {nested[key]!r:.40}"


def _architecture(evidence: Evidence) -> Found:
    named, right = evidence.config.get("architectures"), evidence.contents.family.architecture
    if not isinstance(named, list) or not named or named[0] != right:
        yield CONFIG, f"architectures is {named!r:.60}, not [{right!r}]"


def _dtype(evidence: Evidence) -> Found:
    if not evidence.qwen3 and "torch_dtype" not in evidence.config:
        now = evidence.contents.text.get("dtype")
        yield CONFIG, f"has no torch_dtype{f', but dtype {now!r}' if now else ''}"


RULES = (
    Rule(
        "rope-scaling-missing",
        Severity.ERROR,
        "transformers 4.49 to 4.57: \"'NoneType' object is not subscriptable\"; vLLM: text-only positions, wrong boxes",
        f"{NORMALISE} (for heads of 128, as all published models have), or {_FROM_HUB}",
        _missing,
    ),
    Rule(
        "rope-parameters-only",
        Severity.ERROR,
        "transformers 4.49 to 4.57: \"'NoneType' object is not subscriptable\"; vLLM on them: text-only positions",
        NORMALISE,
        _only_parameters,
    ),
    Rule(
        "rope-scaling-mrope-section-missing",
        Severity.ERROR,
        "transformers 4.49 to 4.57: KeyError 'mrope_section'; 5: \"split_with_sizes expects split_sizes to sum\"; "
        "vLLM: \"Legacy rope_type 'mrope' requires 'mrope_section'\"",
        f"write mrope_section into it (a YaRN dict needs it as well), or {_FROM_HUB}",
        _section_missing,
    ),
    Rule(
        "rope-scaling-mrope-section-sum",
        Severity.ERROR,
        'every engine: "split_with_sizes expects split_sizes to sum exactly to"',
        _FROM_HUB,
        _section_sum,
    ),
    Rule(
        "rope-scaling-rope-type-mrope",
        Severity.ERROR,
        "transformers 4.49 to 4.57: KeyError 'mrope'",
        NORMALISE,
        _rope_type_mrope,
    ),
    Rule(
        "rope-scaling-missing-type",
        Severity.WARNING,
        "vLLM before 0.6.3, which asks for rope_scaling['type']: KeyError 'type'",
        NORMALISE,
        _type_missing,
    ),
    Rule(
        "rope-scaling-type-default",
        Severity.WARNING,
        'vLLM before 0.6.3, with the transformers of its time: assert "factor" in rope_scaling',
        NORMALISE,
        _type_default,
    ),
    Rule(
        "config-nested",
        Severity.WARNING,
        "transformers 4.45 to 4.51, and vLLM on them: \"'dict' object has no attribute 'to_dict'\"",
        NORMALISE,
        _nested,
    ),
    Rule(
        "config-text-disagrees",
        Severity.ERROR,
        "transformers 4.52 and later compute with text_config, older ones and tools with the outer value",
        "set both to what the tensors have, then " + NORMALISE,
        _disagrees,
    ),
    Rule(
        "architecture-wrong",
        Severity.ERROR,
        'vLLM and SGLang: "Model architectures [...] are not supported for now"',
        NORMALISE,
        _architecture,
    ),
    Rule(
        "torch-dtype-missing",
        Severity.WARNING,
        "vLLM on transformers before 4.56 takes float32, and then float16, in which Qwen2.5-VL can overflow",
        NORMALISE,
        _dtype,
    ),
)
