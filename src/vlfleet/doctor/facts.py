"""What an engine says of itself in its log: its version, its options, and the memory that it counted."""

from __future__ import annotations

import re

from vlfleet.doctor.lines import Line
from vlfleet.doctor.rule import as_number

_VERSION = re.compile(r"(?:█\s+version|API server version|LLM engine \(v|vLLM version:?) ?(\d+\.\d+\.\d+)")
"""0.26 and 0.32 print it in their banner, 0.6 to 0.11 as `vLLM API server version`, all in `LLM engine (v0.26.0)`."""
_OPTIONS = re.compile(
    r"['\"]?\b(tensor_parallel_size|pipeline_parallel_size|data_parallel_size|max_model_len|max_seq_len|max_num_seqs"
    r"|max_num_batched_tokens|gpu_memory_utilization)['\"]?[=:]\s?(\d+(?:\.\d+)?)\b"
)
_LIMIT = re.compile(r"['\"](image|video)s?['\"]: ?(?:\{['\"]count['\"]: ?)?(\d+)")
_SAID = (
    ("Available KV cache memory", re.compile(r"Available KV cache memory: (?P<available_kv_gib>-?[\d.]+) GiB")),
    ("Model loading took", re.compile(r"Model loading took (?P<weights_gib>[\d.]+) Gi?B")),
    ("Using max model len", re.compile(r"Using max model len (?P<max_model_len>\d+)")),
    ("max_num_batched_tokens=", re.compile(r"max_num_batched_tokens=(?P<max_num_batched_tokens>\d+)")),
    ("model weights take", re.compile(r"model weights take (?P<weights_gib>[\d.]+)GiB")),
    ("total_gpu_memory (", re.compile(r"total_gpu_memory \((?P<total_gib>[\d.]+)GiB\)")),
    ("total capacity of", re.compile(r"total capacity of (?P<total_gib>[\d.]+) GiB")),
)


class Facts:
    """Collected line by line; the last word counts, but of the version the first."""

    def __init__(self, version: str | None = None) -> None:
        self.version = version or ""
        self.numbers: dict[str, float] = {}

    def read(self, line: Line) -> None:
        """Takes from the line what it knows."""
        text = line.text
        if not self.version and ("version" in text or "LLM engine (v" in text) and (match := _VERSION.search(text)):
            self.version = match[1]
        for literal, pattern in _SAID:
            if literal in text and (match := pattern.search(text)):
                self._keep(match.groupdict())
        if "args: " in text or "LLM engine (v" in text:
            self._keep(dict(_OPTIONS.findall(text)))
            if "limit_mm_per_prompt" in text:
                limits = text.partition("limit_mm_per_prompt")[2].partition("}")[0]
                self._keep({f"limit_{kind}": count for kind, count in _LIMIT.findall(limits)})

    def _keep(self, said: dict[str, str]) -> None:
        if "max_seq_len" in said:
            said["max_model_len"] = said.pop("max_seq_len")
        for name, text in said.items():
            if (number := as_number(text)) is not None:
                self.numbers[name] = number
