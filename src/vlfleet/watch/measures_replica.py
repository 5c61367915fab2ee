"""What rules ask of single replicas. Pure."""

from __future__ import annotations

from vlfleet.watch.histogram import Histogram
from vlfleet.watch.model import EngineSample, ReplicaSample, Sample
from vlfleet.watch.window import Window

LEAST = 20
"""Requests, streams or media below which a share says nothing."""


def _ready(window: Window) -> list[ReplicaSample]:
    return [replica for replica in window.now.replicas if replica.in_rotation]


def _missed(window: Window) -> list[ReplicaSample]:
    """Those that somebody misses when they fall: not one that is out by hand while others serve."""
    served = bool(_ready(window))
    return [replica for replica in window.now.replicas if not (replica.cordoned and served)]


def _engine(sample: Sample, name: str) -> EngineSample | None:
    replica = sample.replica(name)
    return replica.engine if replica else None


def crowded(window: Window) -> dict[str, float]:
    """Requests in flight over the last minute, as a multiple of the median of all ready replicas (1 at least)."""
    ready = _ready(window)
    means = {}
    for replica in ready:
        mean = window.mean(60, lambda s, name=replica.name: _in_flight(s, name))  # type: ignore[misc]
        if mean is not None:
            means[replica.name] = mean
    if len(means) < 2:
        return {}
    others = _medians_of_others(means)
    return {name: mean / max(1.0, others[name]) for name, mean in means.items()}


def _in_flight(sample: Sample, name: str) -> float | None:
    replica = sample.replica(name)
    return float(replica.in_flight) if replica else None


def slow(window: Window) -> dict[str, float]:
    """The median time to first token over 5 minutes, as a multiple of the median of the other replicas."""
    times = {}
    for replica in _ready(window):
        recent = _first_tokens(window, replica)
        middle = recent.quantile(0.5)
        if recent.count >= LEAST and middle:
            times[replica.name] = middle
    if len(times) < 2:
        return {}
    others = _medians_of_others(times)
    return {name: time / others[name] for name, time in times.items()}


def _medians_of_others(values: dict[str, float]) -> dict[str, float]:
    """For each name the median of all the other values; there are two at least. In one pass, for a thousand names."""
    names = sorted(values, key=lambda name: values[name])
    ordered = [values[name] for name in names]
    left = len(ordered) - 1
    found = {}
    for place, name in enumerate(names):
        middle, half = (ordered[at + (at >= place)] for at in (left // 2, (left - 1) // 2))
        found[name] = (middle + half) / 2
    return found


def _first_tokens(window: Window, replica: ReplicaSample) -> Histogram:
    before = window.before(300)
    old = before.replica(replica.name) if before else None
    now = replica.traffic.first_token
    return now.since(old.traffic.first_token) if old else Histogram()


def kv_full(window: Window) -> dict[str, float]:
    """Share of the KV cache in use over the last minute."""
    return _engine_means(window, "kv_usage")


def _engine_means(window: Window, field: str) -> dict[str, float]:
    found = {}
    for replica in _ready(window):

        def value(sample: Sample, name: str = replica.name) -> float | None:
            engine = _engine(sample, name)
            return getattr(engine, field) if engine else None

        if (mean := window.mean(60, value)) is not None:
            found[replica.name] = mean
    return found


def preempted(window: Window) -> dict[str, float]:
    """Preemptions in the last minute: sequences thrown out of the KV cache, to be computed again."""
    return _engine_grown(window, 60, "preemptions")


def _engine_grown(window: Window, seconds: float, field: str) -> dict[str, float]:
    """By how much an engine's counter grew; nothing across a restart."""
    before = window.before(seconds)
    found = {}
    for replica in window.now.replicas:
        old = before.replica(replica.name) if before else None
        if not old or old.started_at != replica.started_at or not old.engine or not replica.engine:
            continue
        now, then = getattr(replica.engine, field), getattr(old.engine, field)
        if now is not None and then is not None:
            found[replica.name] = now - then
    return found


def thrashed(window: Window) -> dict[str, float]:
    """Share of its media cache that the engine no longer holds although it should, while it is asked for media."""
    asked = _engine_grown(window, 300, "mm_queries")
    return {
        replica.name: 1 - replica.traffic.mm_trust if asked.get(replica.name, 0) >= LEAST else 0.0
        for replica in _ready(window)
        if replica.traffic.mm_trust is not None
    }


def drifted(window: Window) -> dict[str, float]:
    """By which factor predicted and real times to first token differ over 5 minutes, either way."""
    found = {}
    for replica in _ready(window):
        real = _first_tokens(window, replica)
        said = window.grown(300, replica, lambda traffic: traffic.predicted_first_token_seconds)
        if real.count >= LEAST and real.sum > 0 and said > 0:
            found[replica.name] = max(real.sum / said, said / real.sum)
    return found


def restarted(window: Window) -> dict[str, float]:
    """Starts after a death in the last quarter of an hour."""
    first = window.samples[0]
    return {
        replica.name: float(replica.restarts - (old.restarts if (old := first.replica(replica.name)) else 0))
        for replica in _missed(window)
    }


def given_up(window: Window) -> dict[str, float]:
    return {replica.name: float(replica.phase == "failed") for replica in _missed(window)}


def unhealthy(window: Window) -> dict[str, float]:
    return {replica.name: float(replica.phase == "unhealthy") for replica in _missed(window)}


def stale(window: Window) -> dict[str, float]:
    """Seconds since an engine's /metrics came."""
    return {each.name: each.engine_age_seconds for each in _ready(window) if each.engine_age_seconds is not None}


def lying(window: Window) -> dict[str, float]:
    """Values of /metrics that cannot be: no number, a share above 1, a counter that went back in the same process, or
    none that moves for a minute while the gateway gets answers."""
    shrunk = [_engine_grown(window, 60, field) for field in ("generation_tokens", "prompt_tokens", "finished")]
    found = {}
    for replica in _ready(window):
        wrong = len(replica.engine.broken) if replica.engine else 0
        wrong += sum(grown.get(replica.name, 0) < 0 for grown in shrunk)
        answers = window.grown(60, replica, lambda traffic: traffic.answered)
        known = [grown[replica.name] for grown in shrunk if replica.name in grown]
        wrong += answers >= LEAST and bool(known) and not any(known)
        found[replica.name] = float(wrong)
    return found
