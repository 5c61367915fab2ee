"""Rows read and made into requests ahead of their turn, in the order of the source."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from itertools import islice

from vlfleet.batch.request import Flaw, Parts, Request, Settings, prepare
from vlfleet.batch.row import Flawed, Row
from vlfleet.batch.source import Source

BLOCK_ROWS = 32
AHEAD_ROWS = 16
AHEAD_BYTES = 32 << 20
"""Of requests that are ready; those that are still read come on top."""


async def feed(source: Source, settings: Settings, parts: Parts) -> AsyncGenerator[Request | Flaw, None]:
    """The requests of a source. Leaving the loop ends the reading."""
    rows = iter(source)
    block: deque[Row | Flawed] = deque()
    ready: deque[asyncio.Task[Request | Flaw]] = deque()
    ended = False
    try:
        while True:
            if not block and not ended:
                block.extend(await asyncio.to_thread(lambda: list(islice(rows, BLOCK_ROWS))))
                ended = not block
            while block and len(ready) < AHEAD_ROWS and ready_bytes(ready) < AHEAD_BYTES:
                ready.append(asyncio.create_task(prepare(block.popleft(), settings, parts)))
            if not ready:
                return
            yield await ready.popleft()
    finally:
        for task in ready:
            task.cancel()
        await asyncio.gather(*ready, return_exceptions=True)


def ready_bytes(ready: deque[asyncio.Task[Request | Flaw]]) -> int:
    """Of those that are done."""
    done = (task.result() for task in ready if task.done() and not task.exception())
    return sum(each.size_bytes for each in done if isinstance(each, Request))
