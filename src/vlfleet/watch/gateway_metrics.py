"""What the gateway counts, out of the text of its metrics: the one form in which it hands that out."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

from vlfleet.watch.exposition import Line, read
from vlfleet.watch.histogram import EMPTY, Histogram, from_cumulative
from vlfleet.watch.model import GatewaySample, Traffic

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640)
"""Buckets for times of the engine; vLLM's own go to the same order of magnitude."""
_OF_REPLICA = {
    "vlfleet:images_total": "images",
    "vlfleet:visual_tokens_total": "visual_tokens",
    "vlfleet:media_saved_bytes_total": "saved_bytes",
    "vlfleet:retries_total": "retries",
    "vlfleet:broken_streams_total": "broken_streams",
    "vlfleet:predicted_first_token_seconds_total": "predicted_first_token_seconds",
}
_HOW = {
    ("vlfleet:media_total", "held"): "media_held",
    ("vlfleet:media_total", "sent"): "media_sent",
    ("vlfleet:encoder_runs_total", "needed"): "looks_needed",
    ("vlfleet:encoder_runs_total", "repeated"): "looks_repeated",
    ("vlfleet:encoder_runs_total", "avoided"): "looks_avoided",
}
_OF_FLEET = {
    "vlfleet:queue_requests": "queue_requests",
    "vlfleet:queue_work_seconds": "queue_work_seconds",
    "vlfleet:queue_refused_total": "refused",
}
_REQUESTS, _TRUST, _OVERHEAD = "vlfleet:requests_total", "vlfleet:cache_trust_ratio", "vlfleet:gateway_overhead_seconds"
_HISTOGRAMS = {
    "vlfleet:time_to_first_token_seconds": "first_token",
    "vlfleet:request_duration_seconds": "duration",
    _OVERHEAD: "overhead",
}
_FIRST_BY_SIZE, _WHOLE_BY_SIZE = (
    "vlfleet:time_to_first_token_by_size_seconds",
    "vlfleet:request_duration_by_size_seconds",
)
_CLIENT_LEFT = "499"
_NOBODY = ("", "none")
"""The replica of a request that was refused before any had it."""
_STARTS = (
    *(*_OF_REPLICA, "vlfleet:media_total", "vlfleet:encoder_runs_total", *_OF_FLEET, _REQUESTS, _TRUST),
    *(f"{name}_{part}" for name in (*_HISTOGRAMS, _FIRST_BY_SIZE, _WHOLE_BY_SIZE) for part in ("bucket", "sum")),
)


def read_gateway(text: str) -> GatewaySample:
    """The gateway's counters and those of each replica that it names."""
    fleet: dict[str, float] = defaultdict(float)
    replicas: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    buckets: dict[tuple[str, str], dict[float, float]] = defaultdict(dict)
    sums: dict[tuple[str, str], float] = {}
    for line in read(text, _STARTS):
        name, labels, value = line
        replica = labels.get("replica", "")
        key = replica or labels.get("visual_tokens", "")
        if not math.isfinite(value):
            continue
        if field := _OF_FLEET.get(name):
            fleet[field] += value
        elif field := _OF_REPLICA.get(name) or _HOW.get((name, labels.get("how", ""))):
            replicas[replica][field] += value
        elif name == _REQUESTS:
            _request(line, fleet, replicas)
        elif name == _TRUST and labels.get("cache") == "mm":
            replicas[replica]["mm_trust"] = value
        elif name.endswith("_bucket"):
            buckets[name.removesuffix("_bucket"), key][float(labels["le"])] = value
        elif name.endswith("_sum"):
            sums[name.removesuffix("_sum"), key] = value
    found = {key: from_cumulative(each, sums.get(key, 0.0)) for key, each in buckets.items()}
    facts: dict[str, dict[str, Any]] = {replica: dict(each) for replica, each in replicas.items()}
    sizes: dict[str, dict[str, Histogram]] = {_FIRST_BY_SIZE: {}, _WHOLE_BY_SIZE: {}}
    for (name, key), histogram in found.items():
        if name in sizes:
            sizes[name][key] = histogram
        elif name != _OVERHEAD:
            facts.setdefault(key, {})[_HISTOGRAMS[name]] = histogram
    traffic = {replica: Traffic(**each) for replica, each in facts.items() if replica not in _NOBODY}
    return GatewaySample(
        **fleet,
        overhead=found.get((_OVERHEAD, ""), EMPTY),
        first_token_by_size=sizes[_FIRST_BY_SIZE],
        duration_by_size=sizes[_WHOLE_BY_SIZE],
        traffic=traffic,
    )


def _request(line: Line, fleet: dict[str, float], replicas: dict[str, dict[str, float]]) -> None:
    code, replica = line.labels.get("code", ""), line.labels.get("replica", "")
    if code == _CLIENT_LEFT:
        return
    if replica in _NOBODY:
        fleet["refused_before"] += line.value if code.startswith("5") else 0.0
    else:
        replicas[replica]["failed" if code.startswith("5") else "answered"] += line.value
