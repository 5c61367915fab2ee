"""A fleet at a glance: one answer that a page, a terminal or a script needs to show what it does now. Pure.

It holds no text of a prompt, no name of a file and no key: names, states, times and counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from vlfleet.hardware.reading import GpuReading
from vlfleet.watch.alert import Book
from vlfleet.watch.model import GatewaySample, HostSample, ReplicaSample, Sample
from vlfleet.watch.rates import (
    LONG_SECONDS,
    RATE_SECONDS,
    Rates,
    Span,
    engine_now,
    grown,
    of_fleet,
    of_gpu,
    of_replica,
    span,
)
from vlfleet.watch.window import Window

MOST_REQUESTS = 100
"""That a glance names; the oldest."""


@dataclass(frozen=True)
class Flight:
    """One request that has no answer yet, or not all of it."""

    id: str
    replica: str
    """Empty while it waits for one."""
    state: str
    """queued, sent or streaming."""
    seconds: float
    """Since the last byte of its body."""
    images: int
    visual_tokens: int
    held: int
    """Of its media, those that the replica holds and that were not sent."""
    predicted_seconds: float | None
    """Until its last token, as predicted when it was sent."""
    tokens: int
    """Of its answer so far."""
    route: str
    """Why it is there, in a few words."""


@dataclass(frozen=True)
class InHand:
    """What the gateway has to do at this moment."""

    total: int = 0
    """Requests that wait, or are at a replica."""
    oldest: Sequence[Flight] = ()
    """At most `MOST_REQUESTS`, the oldest first."""
    visual_tokens: Mapping[str, int] = field(default_factory=dict)
    """Of requests at a replica, by its name."""
    media_resident: Mapping[str, int] = field(default_factory=dict)
    """Media that a replica is taken to hold, by its name."""


def glance(facts: Mapping[str, Any], window: Window | None, book: Book, hand: InHand, at: float) -> dict[str, Any]:
    """What the admin port answers to /glance, at the time `at`; `facts` are those of `vlfleet status --json`.

    Without a `window`, before the first look, all that is measured is None.
    """
    now = window.now if window else None
    short, long = span(window, RATE_SECONDS), span(window, LONG_SECONDS)
    replicas = facts["replicas"]
    return {
        "at": at,
        "fleet": {name: facts[of] for name, of in _FLEET.items()} | {"size": len(replicas)},
        "rates": of_fleet(short, long),
        "queue": _queue(now.gateway if now else None),
        "host": _host(now.host if now else None, short),
        "gpus": _gpus(now, long, replicas),
        "replicas": _replicas(replicas, now, short, long, hand),
        "requests": [asdict(each) for each in hand.oldest[:MOST_REQUESTS]],
        "requests_total": hand.total,
        "alerts": _alerts(book, at),
        "silences": [asdict(each) for each in book.silences if each.until > at],
    }


_FLEET = {
    "name": "fleet",
    **{
        name: name
        for name in (
            "status",
            "model",
            "served_model_name",
            "engine",
            "url",
            "admin_url",
            "version",
            "policy",
            "started_at",
            "ready",
        )
    },
}


def _queue(gateway: GatewaySample | None) -> Rates:
    return {
        "requests": gateway.queue_requests if gateway else None,
        "work_seconds": gateway.queue_work_seconds if gateway else None,
        "refused": gateway.refused if gateway else None,
    }


def _host(host: HostSample | None, short: Span | None) -> dict[str, Any]:
    """What the kernel did not say is 0 in a sample, and None here."""
    found: dict[str, Any] = {"cpu": host.cpu if host else None}
    for name in ("memory_bytes", "used_bytes", "disk_bytes", "disk_free_bytes"):
        whole = "disk_bytes" if name.startswith("disk") else "memory_bytes"
        found[name] = getattr(host, name) if host and getattr(host, whole) else None
    for name in ("sent_bytes", "received_bytes"):
        more = grown(getattr(host, name), getattr(short.before.host, name)) if short else None
        found[f"{name}_per_second"] = more / short.seconds if short and more is not None else None
    return found


def _gpus(now: Sample | None, long: Span | None, replicas: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    users: dict[int, list[str]] = {}
    for replica in replicas:
        for index in replica["gpus"]:
            users.setdefault(index, []).append(replica["name"])
    before = {gpu.index: gpu for gpu in long.before.gpus} if long else {}
    seconds = long.seconds if long else 0.0
    gpus = now.gpus if now else ()
    return [_gpu(each, users.get(each.index, []), of_gpu(each, before.get(each.index), seconds)) for each in gpus]


_GPU = (
    "utilization",
    "memory_bytes",
    "used_bytes",
    "temperature_celsius",
    "power_watts",
    "power_limit_watts",
    "sm_clock_mhz",
    "ecc_uncorrected",
    "rows_failed",
    "mig",
    "fault",
)


def _gpu(gpu: GpuReading, replicas: list[str], links: Rates) -> dict[str, Any]:
    return {
        "index": gpu.index,
        "name": gpu.name,
        "replicas": replicas,
        **{name: getattr(gpu, name) for name in _GPU},
        "throttle": None if gpu.throttle is None else sorted(gpu.throttle),
        "xid": getattr(gpu, "xid", None),
        **links,
    }


_REPLICA = (
    "name",
    "phase",
    "cordoned",
    "detail",
    "error",
    "adjusted",
    "engine",
    "gpus",
    "pid",
    "port",
    "up_seconds",
    "start_seconds",
    "phases",
    "decisions",
    "restarts",
    "in_flight",
    "served",
)


def _replicas(
    told: Sequence[Mapping[str, Any]], now: Sample | None, short: Span | None, long: Span | None, hand: InHand
) -> list[dict[str, Any]]:
    seen = {each.name: each for each in now.replicas} if now else {}
    return [
        {
            **{field: replica[field] for field in _REPLICA},
            "visual_tokens_in_flight": hand.visual_tokens.get(replica["name"], 0),
            **_measured(seen.get(replica["name"], _UNSEEN), short, long),
            "media_resident": hand.media_resident.get(replica["name"]),
        }
        for replica in told
    ]


_UNSEEN = ReplicaSample("", "")


def _measured(replica: ReplicaSample, short: Span | None, long: Span | None) -> Rates:
    unseen = replica is _UNSEEN
    return engine_now(replica.engine) | of_replica(replica, None if unseen else short, None if unseen else long)


def _alerts(book: Book, at: float) -> list[dict[str, Any]]:
    return [
        {
            **asdict(alert),
            "severity": alert.severity.name.lower(),
            "silenced": book.silent(alert, at),
        }
        for alert in book.alerts
    ]
