"""The whole of /metrics: what the gateway counts, what the watch sees, and what every engine says of itself."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from prometheus_client import generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from vlfleet.gateway.federation import BrokenPage, Federation
from vlfleet.gateway.state import Gateway
from vlfleet.watch.pages import RUNS

FRESH_SECONDS, STALE_SECONDS = 1.0, 5.0
"""A page is not read anew before it is so old, and not told when it is older than that."""
PATIENCE_SECONDS = 1.0
"""So long an engine that is slow to answer delays everybody's metrics."""

log = logging.getLogger("vlfleet.gateway")


@dataclass
class Scrapes(Collector):
    """What became of the engines' pages."""

    ok: dict[str, bool] = field(default_factory=dict)
    """Of each replica, whether its page is told."""
    ages: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=lambda: {"stale": 0, "broken": 0, "too_large": 0})

    def collect(self) -> Iterator[Metric]:
        ok = GaugeMetricFamily("vlfleet:scrape_ok", "1 when its engine's metrics are in here.", labels=["replica"])
        age = GaugeMetricFamily("vlfleet:scrape_age_seconds", "Since its engine gave them.", labels=["replica"])
        why = GaugeMetricFamily("vlfleet:scrape_left_out", "Engines that run, and are not in here.", labels=["why"])
        for name, good in self.ok.items():
            ok.add_metric([name], good)
        for name, seconds in self.ages.items():
            age.add_metric([name], seconds)
        for reason, number in self.left_out.items():
            why.add_metric([reason], number)
        yield from (ok, age, why)


async def all_metrics(gateway: Gateway) -> bytes:
    """As text for Prometheus. It works for a millisecond at a time, and lets requests go between."""
    await gateway.pages.look(FRESH_SECONDS, PATIENCE_SECONDS)
    federation, scrapes = Federation(), Scrapes()
    for replica in gateway.replicas:
        scrapes.ok[replica.name] = False
        if replica.phase not in RUNS:
            continue
        page = gateway.pages.of(replica)
        age = time.monotonic() - page.at if page else None
        if age is not None:
            scrapes.ages[replica.name] = age
        if page is None or age is None or age > STALE_SECONDS:
            scrapes.left_out["stale"] += 1
            continue
        try:
            for _ in federation.add(replica.name, page.text):
                await asyncio.sleep(0)
            scrapes.ok[replica.name] = True
        except BrokenPage:
            scrapes.left_out["broken"] += 1
        except OverflowError:
            scrapes.left_out["too_large"] += 1
        await asyncio.sleep(0)
    return b"".join((gateway.metrics.text(), seen(gateway.also), generate_latest(scrapes), federation.text()))


def seen(also: Callable[[], bytes] | None) -> bytes:
    """What the watch sees, if it can say so."""
    try:
        return also() if also else b""
    except Exception as error:  # whatever it is: it is not the gateway's
        log.warning("the watch has no metrics: %s: %s", type(error).__name__, error)
        return b""
