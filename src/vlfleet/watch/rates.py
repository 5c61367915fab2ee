"""How fast something grew between two samples: what a glance and the dashboards show. Pure; None is what is not known.

Rates are over the last `RATE_SECONDS`, percentiles and shares over the last `LONG_SECONDS`, or over what was seen of
them. A counter that fell belongs to a new process and has counted from zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from vlfleet.hardware.reading import GpuReading
from vlfleet.watch.histogram import EMPTY, Histogram
from vlfleet.watch.model import EngineSample, ReplicaSample, Sample, Traffic
from vlfleet.watch.window import Window

RATE_SECONDS, LONG_SECONDS = 10.0, 60.0
_STARTS, _ADOPTED = "starting", "adopted"
"""A phase, and what is said of one whose engine has run all the time under another supervisor."""
Rates = dict[str, float | None]


@dataclass(frozen=True)
class Span:
    """Two samples of one fleet, and the replicas of the first by their names."""

    before: Sample
    now: Sample
    then: Mapping[str, ReplicaSample]

    @property
    def seconds(self) -> float:
        """More than 0."""
        return self.now.monotonic - self.before.monotonic


def span(window: Window | None, seconds: float) -> Span | None:
    """From the oldest sample of the last `seconds` to the last one; None where there is only one."""
    if window is None:
        return None
    before, now = window.last(seconds)[0], window.now
    if now.monotonic <= before.monotonic:
        return None
    return Span(before, now, {each.name: each for each in before.replicas})


def grown(now: float | None, before: float | None) -> float | None:
    """By how much a counter grew."""
    if now is None or before is None:
        return None
    return now - before if now >= before else now


def counted(span: Span, replica: ReplicaSample, field: str) -> float:
    """By how much a counter of the gateway grew; a replica that was not there before had none."""
    then = span.then.get(replica.name)
    now, before = getattr(replica.traffic, field), getattr(then.traffic, field) if then else 0.0
    return float(now - before if now >= before else now)


def engine_counted(span: Span, replica: ReplicaSample, field: str) -> float | None:
    """By how much a counter of its engine grew; None where the engine was not seen at both ends, unless it was only
    starting at the first."""
    then = span.then.get(replica.name)
    now = getattr(replica.engine, field) if replica.engine else None
    if then and then.phase == _STARTS and then.detail != _ADOPTED and then.engine is None:
        return now
    return grown(now, getattr(then.engine, field) if then and then.engine else None)


def observed(span: Span, replica: ReplicaSample, histogram: Callable[[Traffic], Histogram]) -> Histogram:
    """What the gateway measured of this replica in the meantime."""
    then = span.then.get(replica.name)
    return histogram(replica.traffic).since(histogram(then.traffic) if then else EMPTY)


def share(part: float | None, whole: float | None) -> float | None:
    """0 to 1; None of nothing."""
    return min(1.0, max(0.0, part / whole)) if part is not None and whole else None


def of_replica(replica: ReplicaSample, short: Span | None, long: Span | None) -> Rates:
    """One replica's rates, percentiles and shares, by the names that a glance has for them."""
    found: Rates = dict.fromkeys(_OF_REPLICA)
    if short:
        seconds = short.seconds
        tokens = engine_counted(short, replica, "generation_tokens")
        answered, failed = (counted(short, replica, name) for name in ("answered", "failed"))
        found["requests_per_second"] = (answered + failed) / seconds
        found["images_per_second"] = counted(short, replica, "images") / seconds
        found["visual_tokens_per_second"] = counted(short, replica, "visual_tokens") / seconds
        found["generation_tokens_per_second"] = None if tokens is None else tokens / seconds
    if long:
        streams = observed(long, replica, lambda traffic: traffic.first_token)
        predicted = counted(long, replica, "predicted_first_token_seconds")
        found["first_token_p50_seconds"] = streams.quantile(0.5)
        found["first_token_p95_seconds"] = streams.quantile(0.95)
        found["predicted_times_real"] = predicted / streams.sum if streams.count and streams.sum > 0 else None
        for name, hits, queries in _HITS:
            asked = (engine_counted(long, replica, each) for each in (hits, queries))
            found[name] = share(*asked)
    return found


_HITS = (("mm_hit_share", "mm_hits", "mm_queries"), ("prefix_hit_share", "prefix_hits", "prefix_queries"))
_OF_REPLICA = (
    "requests_per_second",
    "images_per_second",
    "visual_tokens_per_second",
    "generation_tokens_per_second",
    "first_token_p50_seconds",
    "first_token_p95_seconds",
    "mm_hit_share",
    "prefix_hit_share",
    "predicted_times_real",
)
_OF_FLEET = (
    "seconds",
    "requests_per_second",
    "failed_per_second",
    "images_per_second",
    "visual_tokens_per_second",
    "generation_tokens_per_second",
    "first_token_p50_seconds",
    "first_token_p95_seconds",
    "duration_p50_seconds",
    "duration_p95_seconds",
    "bytes_not_sent_per_second",
    "looks_avoided_share",
    "looks_repeated_share",
)


def of_fleet(short: Span | None, long: Span | None) -> Rates:
    """The whole fleet's, from sums and merged buckets of its replicas."""
    found: Rates = dict.fromkeys(_OF_FLEET)
    if short:
        now, seconds = short.now, short.seconds
        refused = grown(now.gateway.refused_before, short.before.gateway.refused_before) or 0.0
        total = {name: sum(counted(short, each, name) for each in now.replicas) for name in _COUNTED}
        failed = total["failed"] + refused
        tokens = [engine_counted(short, each, "generation_tokens") for each in now.replicas]
        known = [each for each in tokens if each is not None]
        found["seconds"] = seconds
        found["requests_per_second"] = (total["answered"] + failed) / seconds
        found["failed_per_second"] = failed / seconds
        found["images_per_second"] = total["images"] / seconds
        found["visual_tokens_per_second"] = total["visual_tokens"] / seconds
        found["generation_tokens_per_second"] = sum(known) / seconds if known else None
        found["bytes_not_sent_per_second"] = total["saved_bytes"] / seconds
    if long:
        replicas = long.now.replicas
        streams = merged(observed(long, each, lambda traffic: traffic.first_token) for each in replicas)
        answers = merged(observed(long, each, lambda traffic: traffic.duration) for each in replicas)
        looks = {name: sum(counted(long, each, name) for each in replicas) for name in _LOOKS}
        found["first_token_p50_seconds"], found["first_token_p95_seconds"] = _percentiles(streams)
        found["duration_p50_seconds"], found["duration_p95_seconds"] = _percentiles(answers)
        found["looks_avoided_share"] = share(looks["looks_avoided"], sum(looks.values()))
        found["looks_repeated_share"] = share(looks["looks_repeated"], sum(looks.values()))
    return found


_COUNTED = ("answered", "failed", "images", "visual_tokens", "saved_bytes")
_LOOKS = ("looks_needed", "looks_repeated", "looks_avoided")


def merged(histograms: Iterable[Histogram]) -> Histogram:
    """All of them as one."""
    whole = EMPTY
    for each in histograms:
        if each.counts:
            whole = whole.plus(each)
    return whole


def _percentiles(histogram: Histogram) -> tuple[float | None, float | None]:
    return histogram.quantile(0.5), histogram.quantile(0.95)


def of_gpu(gpu: GpuReading, before: GpuReading | None, seconds: float) -> Rates:
    """Bytes over its links, both ways, in a second of the last `seconds`. NVLink's counters move each ten seconds only
    (hardware/readings_nvidia.py), so these should be many."""
    found: Rates = {}
    for link in ("pcie", "nvlink"):
        ways = [
            grown(getattr(gpu, f"{link}_{way}_bytes"), getattr(before, f"{link}_{way}_bytes") if before else None)
            for way in ("sent", "received")
        ]
        known = [each for each in ways if each is not None]
        found[f"{link}_bytes_per_second"] = sum(known) / seconds if known and seconds > 0 else None
    return found


def engine_now(engine: EngineSample | None) -> Rates:
    """What an engine said last of this moment."""
    names = ("running", "waiting", "kv_usage", "preemptions")
    return {name: getattr(engine, name) if engine else None for name in names}
