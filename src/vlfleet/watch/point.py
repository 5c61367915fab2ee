"""A sample as history keeps it: named numbers, each of which can be added up over time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

from vlfleet.hardware.reading import GpuReading
from vlfleet.watch.histogram import EMPTY, Histogram
from vlfleet.watch.model import ReplicaSample, Sample

Point = dict[str, float]
"""`subject|name`: a gauge, averaged over time; `subject|name^`: the largest of it; `subject|name+`: a sum."""

SECONDS = "fleet|seconds+"
"""That a point stands for: a row of a large fleet, or of a minute in which it was started, is not watched for all of
its time."""
MOST_REPLICAS = 64
"""That have numbers of their own."""
OTHERS = "others"
"""The rest of a larger fleet, as one subject: a row of a thousand replicas would have 20,000 numbers."""


def point(now: Sample, before: Sample | None) -> Point:
    """What `now` is, and what was counted since `before`."""
    found: dict[str, float | None] = {
        "host|cpu": now.host.cpu,
        "host|memory": now.host.used_bytes / now.host.memory_bytes if now.host.memory_bytes else None,
        "fleet|queue": now.gateway.queue_requests,
        "fleet|ready": float(sum(each.in_rotation for each in now.replicas)),
    }
    held = {index for replica in now.replicas for index in replica.gpus}
    seconds = max(0.0, now.monotonic - before.monotonic) if before else None
    found[SECONDS] = seconds
    for gpu in now.gpus:
        found |= _gpu(gpu, before.gpu(gpu.index) if before else None, seconds, held=gpu.index in held)
    others = []
    for number, replica in enumerate(now.replicas):
        old = before.replica(replica.name) if before else None
        subject = replica.name if number < MOST_REPLICAS else OTHERS
        numbers = _replica(subject, replica, old, comparable=before is not None)
        if subject == OTHERS:
            others.append({name: value for name, value in numbers.items() if value is not None})
        else:
            found |= numbers
    found |= {name: value for name, value in merged(others).items() if not name.endswith("^")}
    if before is not None:
        found["fleet|refused+"] = max(0.0, now.gateway.refused_before - before.gateway.refused_before)
        found |= _buckets("fleet|first_token", now.first_token, before.first_token)
        found |= _buckets("fleet|duration", now.duration, before.duration)
        for name in ("first_token", "duration"):
            sizes, old = (getattr(each.gateway, f"{name}_by_size") for each in (now, before))
            for size, times in sizes.items():
                found |= _buckets(f"fleet|{name}@{size}", times, old.get(size, EMPTY))
    return {name: value for name, value in found.items() if value is not None and math.isfinite(value)}


def _gpu(now: GpuReading, before: GpuReading | None, seconds: float | None, *, held: bool) -> dict[str, float | None]:
    """`held`: it belongs to a replica."""
    subject = f"gpu{now.index}"
    found: dict[str, float | None] = {
        f"{subject}|utilization": now.utilization,
        f"{subject}|memory": now.used_bytes / now.memory_bytes
        if now.used_bytes is not None and now.memory_bytes
        else None,
        f"{subject}|celsius": None if now.temperature_celsius is None else float(now.temperature_celsius),
        f"{subject}|watts": now.power_watts,
    }
    if seconds is None:
        return found
    found[f"{subject}|held_seconds+"] = seconds if held else 0.0
    if now.energy_joules is not None and before and before.energy_joules is not None:
        used = now.energy_joules - before.energy_joules
        found[f"{subject}|joules+"] = used if used >= 0 else None  # its driver was loaded anew
    elif now.power_watts is not None:
        found[f"{subject}|joules+"] = now.power_watts * seconds
    for link in ("pcie", "nvlink"):
        found[f"{subject}|{link}_bytes+"] = _moved(now, before, link)
    return found


def _moved(now: GpuReading, before: GpuReading | None, link: str) -> float | None:
    """Bytes both ways."""
    ways = [
        (getattr(now, name), getattr(before, name, None)) for name in (f"{link}_sent_bytes", f"{link}_received_bytes")
    ]
    grown = [new - old for new, old in ways if new is not None and old is not None and new >= old]
    return float(sum(grown)) if grown else None


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
_OF_ENGINE = {
    "tokens": "generation_tokens",
    "preemptions": "preemptions",
    "mm_queries": "mm_queries",
    "mm_hits": "mm_hits",
    "prefix_queries": "prefix_queries",
    "prefix_hits": "prefix_hits",
}


def _replica(
    subject: str, now: ReplicaSample, before: ReplicaSample | None, *, comparable: bool
) -> dict[str, float | None]:
    found: dict[str, float | None] = {f"{subject}|in_flight": float(now.in_flight)}
    found[f"{subject}|trust"] = now.traffic.mm_trust
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
    if now.engine and before and before.engine:
        for name, field in _OF_ENGINE.items():
            new, old = getattr(now.engine, field), getattr(before.engine, field)
            if new is not None:
                found[f"{subject}|{name}+"] = max(0.0, new - (old or 0.0))
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
    alike: dict[tuple[str, ...], list[Mapping[str, float]]] = {}
    for each in points:
        alike.setdefault(tuple(each), []).append(each)
    sums: Point = {}
    numbers: dict[str, int] = {}
    most: Point = {}
    for names, group in alike.items():  # most have the same names: whole columns are added up at once
        for name, column in zip(names, zip(*(each.values() for each in group), strict=True), strict=True):
            if name.endswith("^"):
                most[name] = max(*column, most.get(name, column[0]))
                continue
            sums[name] = sums.get(name, 0.0) + sum(column)
            numbers[name] = numbers.get(name, 0) + len(column)
            if not name.endswith("+") and f"{name}^" not in group[0]:
                most[f"{name}^"] = max(*column, most.get(f"{name}^", column[0]))
    averaged = {name: value if name.endswith("+") else value / numbers[name] for name, value in sums.items()}
    return averaged | most


def histograms(each: Mapping[str, float]) -> dict[str, Histogram]:
    """The histograms of a point, by their names (`fleet|first_token`), for percentiles."""
    counts: dict[str, dict[float, float]] = {}
    for key, value in each.items():
        if found := _bucket(key):
            counts.setdefault(found[0], {})[found[1]] = value
    made = {}
    for name, of in counts.items():
        ends = sorted({*of, math.inf})
        total = each.get(f"{name}_sum+", 0.0)
        made[name] = Histogram(tuple(ends[:-1]), tuple(of.get(end, 0.0) for end in ends), total)
    return made


@lru_cache(maxsize=4096)
def _bucket(key: str) -> tuple[str, float] | None:
    """Name and upper end, where this is a bucket."""
    name, found, end = key.rpartition("_le_")
    try:
        return (name, float(end[:-1])) if found else None
    except ValueError:
        return None
