"""What vLLM's log tells of a start: its phases, and what the engine decided.

Read in the source of 0.32.0 and in real logs of 0.26.0 on H200 and 0.32.0 on the CPU. Text that differs between
versions is matched where both agree.
"""

from __future__ import annotations

import re

from vlfleet.engine.launch import Observation, Value

_PHASES = (
    ("Starting to load model ", "load"),
    ("Loading model from scratch", "load"),
    ("Model loading took ", "profile"),
    ("Using cache directory: ", "compile"),
    ("Dynamo bytecode transform time", "compile"),
    ("Compiling a graph for ", "compile"),
    ("Warming up model for the compilation", "compile"),
    ("torch.compile took ", "profile"),
    ("Encoder cache will be initialized with a budget", "profile"),
    ("Capturing CUDA graphs", "capture"),
    ("Graph capturing finished", "warm-up"),
    (" KV cache size: ", "warm-up"),
    ("init engine (profile, create kv cache, warmup model) took", "warm-up"),
    ("Application startup complete", "ready"),
)
_DECISIONS = tuple(
    (literal, re.compile(pattern))
    for literal, pattern in (
        ("Initializing a V1 LLM engine", r"engine \(v(?P<version>[^)]+)\)"),
        ("Model loading took", r"took (?P<weights_gib>[\d.]+) GiB(?: memory)? and (?P<load_seconds>[\d.]+) seconds"),
        ("max_num_batched_tokens=", r"enabled with max_num_batched_tokens=(?P<max_num_batched_tokens>\d+)"),
        ("Encoder cache will be", r"budget of (?P<encoder_budget_tokens>\d+) tokens"),
        ("torch.compile took", r"took (?P<compile_seconds>[\d.]+) s in total"),
        ("Available KV cache memory", r"memory: (?P<kv_cache_gib>-?[\d.]+) GiB"),
        (" KV cache size: ", r"size: (?P<kv_cache_tokens>[\d,]+) tokens"),
        (
            "Maximum concurrency for",
            r"concurrency for (?P<max_model_len>[\d,]+) tokens per request: (?P<max_concurrency>[\d.]+)x",
        ),
        ("Graph capturing finished", r"in (?P<capture_seconds>\d+) secs, took (?P<graphs_gib>[\d.]+) GiB"),
        ("for peak activation", r"(?P<activation_gib>[\d.]+)\s*GiB for peak activation"),
        ("for non-torch memory", r"(?P<non_torch_gib>[\d.]+)\s*GiB for non-torch memory"),
        ("on startup. Desired GPU", r"on device \((?P<free_gib>[\d.]+)/(?P<total_gib>[\d.]+)\s*GiB\)"),
    )
)


def observe(line: str) -> Observation | None:
    """The phase that begins with this line, and the figures in it; None for most lines."""
    phase = next((name for text, name in _PHASES if text in line), "")
    decisions: dict[str, Value] = {}
    for literal, pattern in _DECISIONS:
        if literal in line and (match := pattern.search(line)):
            decisions |= {name: _value(name, text) for name, text in match.groupdict().items()}
    return Observation(phase, decisions) if phase or decisions else None


def _value(name: str, text: str) -> Value:
    if name == "version":
        return text
    number = text.replace(",", "")
    return float(number) if "." in number or name.endswith(("gib", "seconds", "concurrency")) else int(number)
