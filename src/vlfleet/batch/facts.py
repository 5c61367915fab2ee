"""What is there: the server's model, whether it is vlfleet's gateway, and how many replicas are ready."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import aiohttp

from vlfleet.client.http import Http

ASK_SECONDS = 10.0
WATCH_SECONDS = 5.0
READY = b"vlfleet:replica_ready{"


async def ready_replicas(http: Http) -> int | None:
    """Ready replicas by the gateway's /metrics; None where it tells none."""
    timeout = aiohttp.ClientTimeout(total=ASK_SECONDS)
    try:
        async with http.session().get(f"{http.base_url}/metrics", timeout=timeout) as response:
            text = await response.read() if response.status == 200 else b""
    except (TimeoutError, aiohttp.ClientError, ConnectionError):
        return None
    states = [line.rsplit(b" ", 1)[-1] for line in text.splitlines() if line.startswith(READY)]
    return sum(state == b"1.0" for state in states) if states else None


async def watch(http: Http, replicas: int, changed: Callable[[float], None]) -> None:
    """Calls `changed(factor)` whenever another number of replicas is ready. Ends by being cancelled; a fleet with none
    ready changes nothing, it says so itself."""
    while True:
        await asyncio.sleep(WATCH_SECONDS)
        now = await ready_replicas(http)
        if now and now != replicas:
            changed(now / replicas)
            replicas = now
