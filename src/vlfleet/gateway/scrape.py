"""The engines' own counters, looked at now and then: they correct what the route believes of their caches."""

from __future__ import annotations

import asyncio
import logging

from vlfleet.fleet.replica import Phase, Replica
from vlfleet.gateway.pool import get
from vlfleet.gateway.state import Gateway
from vlfleet.gateway.wire import WireError

SCRAPE_SECONDS = 10.0
"""vLLM's own log of its counters comes as often; a look costs it about 5 ms."""
TIMEOUT_SECONDS = 2.0
MOST_BYTES = 4 << 20
"""vLLM 0.32 with one model has 60 KB of metrics."""

log = logging.getLogger("vlfleet.gateway")


async def scrape(gateway: Gateway) -> None:
    """Looks at every replica that has answered something, again and again. One that cannot be looked at is left out."""
    while True:
        await asyncio.sleep(SCRAPE_SECONDS)
        known = [
            each for each in gateway.replicas if each.phase is Phase.READY and each.name in gateway.router.trackers
        ]
        await asyncio.gather(*(look(gateway, replica) for replica in known))


async def look(gateway: Gateway, replica: Replica) -> None:
    """Reads one replica's /metrics, and compares."""
    started_at = replica.started_at
    try:
        status, page = await get(gateway.pool, replica.port, "/metrics", replica.api_key, TIMEOUT_SECONDS, MOST_BYTES)
    except (TimeoutError, WireError):
        return
    if status != 200:
        return
    if gateway.lives.get(replica.name) != started_at or replica.started_at != started_at:
        return  # it was started anew in the meantime
    seen = gateway.router.scraped(replica.name, page.decode("utf-8", "replace"))
    if seen.restarted or seen.foreign:
        why = "has a new engine process" if seen.restarted else "is asked by somebody else, too"
        log.warning("%s %s: what is known of its caches is corrected", replica.name, why)
