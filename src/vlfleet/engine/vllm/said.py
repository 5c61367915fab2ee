"""What a command line says of the options that decide memory and speed, as vLLM's own parser would read it. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from vlfleet.engine.vllm.flags import canonical
from vlfleet.plan.flags import Flags, read_flags

_NUMBERS = (
    "max_model_len",
    "max_num_seqs",
    "max_num_batched_tokens",
    "gpu_memory_utilization",
    "kv_cache_memory_bytes",
    "mm_processor_cache_gb",
)
_TEXTS = ("dtype", "quantization", "kv_cache_dtype", "mm_encoder_tp_mode")
_SWITCHES = ("enforce_eager", "enable_expert_parallel", "disable_custom_all_reduce", "skip_mm_profiling")
_OBJECTS = ("limit_mm_per_prompt", "mm_processor_kwargs", "compilation_config")
_SHORT = {"-q": "--quantization"}
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_HARMLESS = frozenset(
    (
        *("--host", "--port", "--served-model-name", "--api-server-count", "--disable-uvicorn-access-log"),
        *("--tensor-parallel-size", "--pipeline-parallel-size", "--distributed-executor-backend"),
        *("--load-format", "--seed", "--generation-config", "--override-generation-config", "--trust-remote-code"),
        *("--chat-template", "--chat-template-content-format", "--enable-auto-tool-choice", "--tool-call-parser"),
        *("--enable-prefix-caching", "--no-enable-prefix-caching", "--scheduling-policy", "--reasoning-parser"),
        *("--allowed-origins", "--allowed-local-media-path", "--allowed-media-domains", "--media-io-kwargs"),
        *("--enable-log-requests", "--max-log-len", "--uvicorn-log-level", "--disable-log-stats"),
    )
)
"""Flags that change no byte of a GPU's memory."""
_DTYPES = ("auto", "bfloat16", "float16", "half")
"""Of 16 bits, as the checkpoints are."""


def said(arguments: Sequence[str]) -> dict[str, Any]:
    """The options that are known here, under vLLM's names; the last one wins, and what cannot be read is left out."""
    found: dict[str, Any] = {}
    for name, text in _pairs(arguments):
        option, _, key = name.removeprefix("--").partition(".")
        option, key = option.replace("-", "_"), key.replace("-", "_")
        off = option.removeprefix("no_")
        if option in _SWITCHES or off in _SWITCHES:
            found[off] = option in _SWITCHES
        elif option in _TEXTS:
            found[option] = text
        elif option in _NUMBERS and (number := _number(text)) is not None:
            found[option] = number
        elif option in _OBJECTS and isinstance(value := _json(text), dict if not key else object):
            found[option] = {**found.get(option, {}), key: value} if key else value
    return found


def unknown(arguments: Sequence[str]) -> str:
    """The first flag that the planner's models of memory and speed know nothing of; empty: there is none."""
    known = {f"--{name.replace('_', '-')}" for name in (*_NUMBERS, *_TEXTS, *_SWITCHES, *_OBJECTS)}
    known |= {f"--no-{name.replace('_', '-')}" for name in _SWITCHES}
    for name, text in _pairs(arguments):
        flag, _, key = name.partition(".")
        if flag not in known | _HARMLESS:
            return flag
        if flag == "--dtype" and text not in _DTYPES:
            return f"{flag} {text}"
        if flag == "--compilation-config" and not _only_compiles(key, text):
            return flag
    return ""


def _only_compiles(key: str, text: str) -> bool:
    """Whether a --compilation-config holds nothing but compile_mm_encoder."""
    value = {key.replace("-", "_"): text} if key else _json(text)
    return isinstance(value, dict) and set(value) == {"compile_mm_encoder"}


def flag_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """Of `said` (or of an EngineOptions' fields) what the memory model asks for: fields of `plan.flags.Flags`."""
    whole = read_flags(given)
    names = {name for name, value in given.items() if value is not None and name in vars(Flags())}
    for medium, name in (("image", "images_per_prompt"), ("video", "videos_per_prompt")):
        if medium in (given.get("limit_mm_per_prompt") or {}):
            names.add(name)
    if "max_pixels" in (given.get("mm_processor_kwargs") or {}):
        names.add("max_pixels")
    return {name: getattr(whole, name) for name in sorted(names)}


def _pairs(arguments: Sequence[str]) -> list[tuple[str, str]]:
    """Each flag with the word that belongs to it, empty where another flag follows."""
    pairs: list[tuple[str, str]] = []
    for argument, after in zip(arguments, [*arguments, "-x"][1:], strict=True):
        if re.match(r"--?[A-Za-z]", argument):
            name, equals, text = argument.partition("=")
            follows = "" if re.match(r"--?[A-Za-z]", after) else after
            name = _SHORT.get(name, name)
            pairs.append((canonical(name), text if equals else follows))
    return pairs


def _number(text: str) -> int | float | None:
    """As vLLM reads sizes: 8192, 0.9, 8k, 4G; None for "auto" and what is no number."""
    match = re.fullmatch(r"(\d+|\d*\.\d+|\d[\d.]*e-?\d+)([kmgKMG]?)", text)
    if match is None:
        return None
    value = float(match[1]) * _UNITS[match[2]]
    return int(value) if match[2] or match[1].isdigit() else value


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
