"""The engines' own counters, looked at now and then: they correct what the route believes of their caches."""

from __future__ import annotations

import asyncio
import logging

from vlfleet.fleet.replica import Phase, Replica
from vlfleet.gateway.engine_pages import TIMEOUT_SECONDS
from vlfleet.gateway.state import Gateway
from vlfleet.watch.pages import Page

SCRAPE_SECONDS = 10.0
"""vLLM's own log of its counters comes as often."""

log = logging.getLogger("vlfleet.gateway")


async def scrape(gateway: Gateway) -> None:
    """Compares every replica that has answered something with its page, again and again. One without is left out."""
    compared: dict[str, Page] = {}
    while True:
        await asyncio.sleep(SCRAPE_SECONDS)
        await gateway.pages.look(0.0, TIMEOUT_SECONDS)  # what it counts must be as new as what is expected
        for replica in gateway.replicas:
            page = gateway.pages.of(replica)
            if page is not None and page is not compared.get(replica.name):
                compared[replica.name] = page
                compare(gateway, replica, page)


def compare(gateway: Gateway, replica: Replica, page: Page) -> None:
    """What one replica says of itself, beside what the route knows of the same process."""
    known = replica.phase is Phase.READY and replica.name in gateway.router.trackers
    if not known or gateway.lives.get(replica.name) != page.started_at:
        return
    seen = gateway.router.scraped(replica.name, page.text.decode("utf-8", "replace"))
    if seen.restarted or seen.foreign:
        why = "has a new engine process" if seen.restarted else "is asked by somebody else, too"
        log.warning("%s %s: what is known of its caches is corrected", replica.name, why)
