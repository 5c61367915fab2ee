"""A sample as history keeps it: named numbers, each of which can be added up over time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from vlfleet.watch.histogram import EMPTY, Histogram
from vlfleet.watch.model import ReplicaSample, Sample

Point = dict[str, float]
"""`subject|name`: a gauge, averaged over time; `subject|name^`: the largest of it; `subject|name+`: a sum."""


def point(now: Sample, before: Sample | None) -> Point:
    """What `now` is, and what was counted since `before`."""
    found: dict[str, float | None] = {
        "host|cpu": now.host.cpu,
        "host|memory": now.host.used_bytes / now.host.memory_bytes if now.host.memory_bytes else None,
        "fleet|queue": now.gateway.queue_requests,
        "fleet|ready": float(sum(each.phase == "ready" for each in now.replicas)),
    }
    for gpu in now.gpus:
        subject = f"gpu{gpu.index}"
        used = gpu.used_bytes / gpu.memory_bytes if gpu.used_bytes is not None and gpu.memory_bytes else None
        found[f"{subject}|utilization"] = gpu.utilization
        found[f"{subject}|memory"] = used
        found[f"{subject}|celsius"] = None if gpu.temperature_celsius is None else float(gpu.temperature_celsius)
        found[f"{subject}|watts"] = gpu.power_watts
        if before is not None and gpu.power_watts is not None:
            found[f"{subject}|joules+"] = gpu.power_watts * max(0.0, now.monotonic - before.monotonic)
    for replica in now.replicas:
        found |= _replica(replica, before.replica(replica.name) if before else None, comparable=before is not None)
    if before is not None:
        found["fleet|refused+"] = max(0.0, now.gateway.refused_before - before.gateway.refused_before)
        found |= _buckets("fleet|first_token", now.first_token, before.first_token)
        found |= _buckets("fleet|duration", now.duration, before.duration)
        for name in ("first_token", "duration"):
            sizes, old = (getattr(each.gateway, f"{name}_by_size") for each in (now, before))
            for size, times in sizes.items():
                found |= _buckets(f"fleet|{name}@{size}", times, old.get(size, EMPTY))
    return {name: value for name, value in found.items() if value is not None and math.isfinite(value)}


_COUNTED = {
    "answered": "answered",
    "failed": "failed",
    "images": "images",
    "visual_tokens": "visual_tokens",
    "saved_bytes": "saved_bytes",
    "needed": "looks_needed",
    "repeated": "looks_repeated",
    "avoided": "looks_avoided",
    "predicted_seconds": "predicted_first_token_seconds",
}


def _replica(now: ReplicaSample, before: ReplicaSample | None, *, comparable: bool) -> dict[str, float | None]:
    subject = now.name
    found: dict[str, float | None] = {f"{subject}|in_flight": float(now.in_flight)}
    if now.engine:
        found[f"{subject}|kv"] = now.engine.kv_usage
    if not comparable:
        return found
    for name, field in _COUNTED.items():
        new, old = getattr(now.traffic, field), getattr(before.traffic, field) if before else 0.0
        found[f"{subject}|{name}+"] = new - old if new >= old else new
    streams = now.traffic.first_token
    if before:
        streams = streams.since(before.traffic.first_token)
    found[f"{subject}|streams+"], found[f"{subject}|first_token_seconds+"] = streams.count, streams.sum
    if now.engine and now.engine.generation_tokens is not None and before and before.engine:
        old_tokens = before.engine.generation_tokens or 0.0
        found[f"{subject}|tokens+"] = max(0.0, now.engine.generation_tokens - old_tokens)
    return found


def _buckets(name: str, now: Histogram, before: Histogram) -> dict[str, float | None]:
    """Observations of each bucket, also of empty ones: the names of all points are then the same, and stored once."""
    if not now.counts:
        return {}
    new = now.since(before)
    ends = (*new.bounds, math.inf)
    found: dict[str, float | None] = {f"{name}_le_{end:g}+": n for end, n in zip(ends, new.counts, strict=True)}
    return found | {f"{name}_sum+": new.sum}


def merged(points: Sequence[Mapping[str, float]]) -> Point:
    """Several points that follow each other as one: sums added, gauges averaged, and their largest kept."""
    sums: Point = {}
    numbers: dict[str, int] = {}
    most: Point = {}
    for each in points:
        for name, value in each.items():
            if name.endswith("^"):
                most[name] = max(value, most.get(name, value))
            else:
                sums[name] = sums.get(name, 0.0) + value
                numbers[name] = numbers.get(name, 0) + 1
                if not name.endswith("+") and f"{name}^" not in each:
                    most[f"{name}^"] = max(value, most.get(f"{name}^", value))
    averaged = {name: value if name.endswith("+") else value / numbers[name] for name, value in sums.items()}
    return averaged | most


def histogram(points: Sequence[Mapping[str, float]], name: str) -> Histogram:
    """The observations of all these points, for percentiles."""
    counts: dict[float, float] = {}
    total = 0.0
    start = f"{name}_le_"
    for each in points:
        total += each.get(f"{name}_sum+", 0.0)
        for key, value in each.items():
            if key.startswith(start):
                end = float(key[len(start) : -1])
                counts[end] = counts.get(end, 0.0) + value
    if not any(counts.values()):
        return Histogram()
    ends = sorted({*counts, math.inf})
    return Histogram(tuple(ends[:-1]), tuple(counts.get(end, 0.0) for end in ends), total)
