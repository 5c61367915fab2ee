"""What an engine says on /metrics. The names are those of vLLM 0.20 to 0.33 and of the embedded engine."""

from __future__ import annotations

import math
from collections import defaultdict

from vlfleet.watch.exposition import read
from vlfleet.watch.histogram import Histogram, from_cumulative
from vlfleet.watch.model import EngineSample

_GAUGES = {"vllm:num_requests_running": "running", "vllm:num_requests_waiting": "waiting"}
_SHARE = "vllm:kv_cache_usage_perc"
"""The fullest counts, not the sum. vLLM before 0.10 called it gpu_cache_usage_perc."""
_COUNTERS = {
    "vllm:num_preemptions_total": "preemptions",
    "vllm:request_success_total": "finished",
    "vllm:prompt_tokens_total": "prompt_tokens",
    "vllm:generation_tokens_total": "generation_tokens",
    "vllm:mm_cache_queries_total": "mm_queries",
    "vllm:mm_cache_hits_total": "mm_hits",
    "vllm:prefix_cache_queries_total": "prefix_queries",
    "vllm:prefix_cache_hits_total": "prefix_hits",
}
_HISTOGRAMS = {
    "vllm:time_to_first_token_seconds": "first_token",
    "vllm:inter_token_latency_seconds": "inter_token",
}
_STARTS = (
    *(f"{name}{end}" for name in (*_GAUGES, *_COUNTERS, _SHARE) for end in ("{", " ")),
    *(f"{name}_{part}" for name in _HISTOGRAMS for part in ("bucket{", "sum{", "sum ")),
)


def read_engine(text: str) -> EngineSample:
    """Sums over all engines and labels of one server; what is not there is None. Impossible values are left out, and
    named in `broken`."""
    sums: dict[str, float] = {}
    buckets: dict[str, dict[float, float]] = defaultdict(lambda: defaultdict(float))
    totals: dict[str, float] = defaultdict(float)
    broken = set()
    for name, labels, value in read(text, _STARTS):
        if not math.isfinite(value) or value < 0 or (name == _SHARE and value > 1):
            broken.add(name)
        elif name == _SHARE:
            sums["kv_usage"] = max(sums.get("kv_usage", 0.0), value)
        elif field := _GAUGES.get(name) or _COUNTERS.get(name):
            sums[field] = sums.get(field, 0.0) + value
        else:
            base, _, part = name.rpartition("_")
            if part == "sum":
                totals[base] += value
            elif (end := _end(labels.get("le", ""))) is not None:
                buckets[base][end] += value
    histograms: dict[str, Histogram] = {}
    for name, field in _HISTOGRAMS.items():
        if name in buckets:
            try:
                histograms[field] = from_cumulative(buckets[name], totals[name])
            except ValueError:
                broken.add(name)
    return EngineSample(**sums, **histograms, broken=tuple(sorted(broken)))  # type: ignore[arg-type]


def _end(label: str) -> float | None:
    try:
        return float(label)
    except ValueError:
        return None
