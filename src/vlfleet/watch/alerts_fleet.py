"""Rules about the fleet as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from vlfleet.watch.alert import Rule, Severity
from vlfleet.watch.model import Sample
from vlfleet.watch.window import Window

LEAST = 20
"""Requests or media below which a share says nothing."""
FAST_BURN = 14.4
"""At this rate a month's error budget is gone in two days (Google's SRE workbook, chapter 5)."""


@dataclass(frozen=True)
class Slo:
    """What was promised."""

    first_token_seconds: float = 5.0
    """Best an end of a bucket of vlfleet:time_to_first_token_seconds; else the next larger one counts."""
    share: float = 0.99
    """Of requests, that are answered, and of streams, that begin in time."""


def repeated(window: Window) -> dict[str, float]:
    """Share of media in the last 5 minutes that a vision tower looked at although another replica held the result."""
    total = again = 0.0
    for replica in window.now.replicas:
        needed = window.grown(300, replica, lambda traffic: traffic.looks_needed)
        twice = window.grown(300, replica, lambda traffic: traffic.looks_repeated)
        total += needed + twice + window.grown(300, replica, lambda traffic: traffic.looks_avoided)
        again += twice
    return {"fleet": again / total if total >= LEAST else 0.0}


def queue_growth(window: Window) -> dict[str, float]:
    """Requests by which the gateway's queue grew in a minute, while it never was empty."""
    before = window.before(60)
    if before is None or not all(each.gateway.queue_requests for each in window.last(45)):
        return {"fleet": 0.0}
    return {"fleet": window.now.gateway.queue_requests - before.gateway.queue_requests}


def refused(window: Window) -> dict[str, float]:
    """Requests refused in the last minute since nobody could take them."""
    before = window.before(60)
    if before is None:
        return {}
    old, new = before.gateway, window.now.gateway
    return {"fleet": max(0.0, new.refused - old.refused)}


def burn(slo: Slo, window: Window) -> dict[str, float]:
    """How many times faster than allowed the error budget is spent: over 5 minutes and over the last one, the less.

    The short look makes the alert end soon after the trouble does.
    """
    rates = [_bad_share(slo, before, window.now) for seconds in (300, 60) if (before := window.before(seconds))]
    return {"fleet": min(rates) / (1 - slo.share)} if len(rates) == 2 else {}


def _bad_share(slo: Slo, before: Sample, now: Sample) -> float:
    """The worse of failed requests and late streams, as a share; 0 where there are too few to say."""
    answered, failed = (_sum(now, name) - _sum(before, name) for name in ("answered", "failed"))
    failed += now.gateway.refused_before - before.gateway.refused_before
    streams = now.first_token.since(before.first_token)
    late = streams.above(slo.first_token_seconds) / streams.count if streams.count >= LEAST else 0.0
    requests = answered + failed
    return max(late, failed / requests if requests >= LEAST else 0.0)


def _sum(sample: Sample, name: str) -> float:
    return float(sum(getattr(replica.traffic, name) for replica in sample.replicas))


def nobody_ready(window: Window) -> dict[str, float]:
    """1 when some replica was ready and none is that may serve, unless all are cordoned or the fleet is stopped."""
    phases = {replica.phase for replica in window.now.replicas if not replica.cordoned}
    was_ready = any(replica.phase == "ready" for each in window.samples for replica in each.replicas)
    return {"fleet": float(was_ready and bool(phases) and not phases & {"ready", "draining", "stopped"})}


def rules(slo: Slo | None = None) -> tuple[Rule, ...]:
    """For a fleet that promised `slo`."""
    promised = slo or Slo()
    return (
        Rule(
            "media_twice",
            Severity.INFO,
            repeated,
            0.25,
            0.15,
            "{value:.0%} of the media were looked at twice, by different replicas",
            "policy predicted keeps a picture on one replica, but spreads very hot ones; other policies spread all",
            for_seconds=60,
        ),
        Rule(
            "queue_growth",
            Severity.WARNING,
            queue_growth,
            8,
            1,
            "{value:.0f} more requests wait than a minute ago",
            "more comes than the fleet can do: add a replica, or lower --max-pixels",
            for_seconds=15,
        ),
        Rule(
            "requests_refused",
            Severity.CRITICAL,
            refused,
            1,
            1,
            "{value:.0f} requests were refused in a minute since the queue was full",
            "clients get 503 with Retry-After: add a replica, or let them wait longer",
            clear_seconds=60,
        ),
        Rule(
            "slo_burn",
            Severity.CRITICAL,
            partial(burn, promised),
            FAST_BURN,
            1,
            f"{{value:.0f}} times more requests fail or begin after {promised.first_token_seconds:g} s "
            f"than {promised.share:.1%} allow",
            "see which replica fails or is slow in `vlfleet status`, and the other alerts",
        ),
        Rule(
            "nobody_ready",
            Severity.CRITICAL,
            nobody_ready,
            1,
            1,
            "no replica is ready any more",
            "`vlfleet status` says what they do; requests wait or get 503",
            clear_seconds=0,
        ),
    )
