"""What the engines say on /metrics: one reader for everybody who wants to know."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from vlfleet.fleet.replica import Replica
from vlfleet.gateway.pool import Pool, get
from vlfleet.gateway.wire import WireError
from vlfleet.watch.pages import RUNS, Page

TIMEOUT_SECONDS = 2.0
"""For one page; a busy engine answers later than a second at times."""
MOST_BYTES = 4 << 20
"""vLLM 0.32 with one model has 60 KB of metrics; what is longer is not read."""
AT_ONCE = 32
"""Engines that are asked at the same time."""


class EnginePages:
    """The last page of each replica's present process. Nobody is asked while nobody wants to know, and no engine anew
    before it has answered."""

    def __init__(self, replicas: Sequence[Replica], pool: Pool) -> None:
        self._replicas, self._pool = replicas, pool
        self._pages: dict[str, Page] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._room = asyncio.Semaphore(AT_ONCE)

    def of(self, replica: Replica) -> Page | None:
        """What it said last; None where its present process has said nothing yet, or none runs."""
        page = self._pages.get(replica.name)
        return page if page and page.started_at == replica.started_at and replica.phase in RUNS else None

    async def look(self, most_seconds: float, patience_seconds: float) -> None:
        """Asks every engine whose page is older than `most_seconds`, and waits at most `patience_seconds`: what comes
        later is there the next time. One that does not answer keeps what it said."""
        oldest = time.monotonic() - most_seconds
        asked = []
        for replica in self._replicas:
            page = self.of(replica)
            if replica.phase in RUNS and (page is None or page.at < oldest):
                task = self._asking.get(replica.name)
                if task is None:
                    task = self._asking[replica.name] = asyncio.create_task(self._ask(replica))
                asked.append(task)
        if asked:
            await asyncio.wait(asked, timeout=patience_seconds)

    async def close(self) -> None:
        """Nobody waits for answers any more."""
        asked = list(self._asking.values())
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)

    async def _ask(self, replica: Replica) -> None:
        began_at = replica.started_at
        try:
            async with self._room:
                status, text = await get(
                    self._pool, replica.port, "/metrics", replica.api_key, TIMEOUT_SECONDS, MOST_BYTES
                )
            if status == 200:
                self._pages[replica.name] = Page(began_at, time.monotonic(), text)
        except (TimeoutError, WireError):
            pass
        finally:
            del self._asking[replica.name]
