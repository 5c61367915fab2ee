"""Where alerts go: the terminal or log of `vlfleet up`, and a webhook. Nothing here makes anybody wait, or fails."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

import aiohttp

from vlfleet.watch.alert import Change, Severity

QUEUE = 100
"""Changes that wait for a webhook; the oldest is dropped for a new one."""
TIMEOUT_SECONDS = 5.0
TRIES = 3
PAUSE_SECONDS = 2.0
"""Before the second try; twice as long before each further one."""

_COLOURS = {Severity.INFO: 36, Severity.WARNING: 33, Severity.CRITICAL: 31}
_GREEN = 32
"""Of ECMA-48, as terminals have them."""

log = logging.getLogger("vlfleet.watch")


class Sink(Protocol):
    """Gets every change that is not silenced. Returns at once."""

    def tell(self, change: Change) -> None: ...

    async def close(self) -> None: ...


def facts(change: Change) -> dict[str, Any]:
    """A change as JSON has it: `status` is firing or resolved, as Prometheus' Alertmanager calls it."""
    alert = change.alert
    return {
        "status": "firing" if change.began else "resolved",
        "code": alert.code,
        "subject": alert.subject,
        "severity": alert.severity.name.lower(),
        "text": alert.text,
        "advice": alert.advice,
        "value": alert.value,
        "threshold": alert.threshold,
        "since": alert.since,
        "at": change.at,
    }


class LogSink:
    """Two lines when an alert begins, what is wrong and what to do, and one when it ends: on the terminal of
    `vlfleet up`, or in the log of a fleet that runs behind it."""

    def __init__(self, write: Callable[[str], None] | None = None, *, colour: bool | None = None) -> None:
        self._write = write or _to_stderr
        self._colour = sys.stderr.isatty() and "NO_COLOR" not in os.environ if colour is None else colour

    def tell(self, change: Change) -> None:
        alert = change.alert
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(change.at))
        if change.began:
            word = alert.severity.name.lower()
            self._write(f"{at} {self._painted(word, _COLOURS[alert.severity])} {alert.code}: {alert.text}")
            self._write(f"{'':19} {'':8} {alert.advice}")
        else:
            lasted = max(0.0, change.at - alert.since)
            self._write(f"{at} {self._painted('over', _GREEN)} {alert.code}: {alert.subject}, after {_time(lasted)}")

    def _painted(self, word: str, colour: int) -> str:
        return f"\x1b[{colour}m{word:8}\x1b[0m" if self._colour else f"{word:8}"

    async def close(self) -> None:
        """Nothing waits."""


def _to_stderr(line: str) -> None:
    with suppress(OSError, ValueError):  # a terminal that was closed stops nothing
        print(line, file=sys.stderr, flush=True)


def _time(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


class WebhookSink:
    """POSTs each change as JSON. What cannot be delivered in `TRIES` is dropped, and counted."""

    def __init__(self, url: str, pause_seconds: float = PAUSE_SECONDS) -> None:
        self._url, self._pause_seconds = url, pause_seconds
        self._queue: asyncio.Queue[Change] = asyncio.Queue(QUEUE)
        self._task = asyncio.create_task(self._run())
        self.dropped = 0

    def tell(self, change: Change) -> None:
        while True:
            try:
                self._queue.put_nowait(change)
            except asyncio.QueueFull:
                self._queue.get_nowait()
                self.dropped += 1
            else:
                return

    async def close(self, patience_seconds: float = 1.0) -> None:
        """What waits has a moment to be delivered."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience_seconds):
                await self._queue.join()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)) as session:
            while True:
                change = await self._queue.get()
                if not await self._deliver(session, change):
                    self.dropped += 1
                    log.warning("an alert could not be delivered to the webhook: %s", change.alert.code)
                self._queue.task_done()

    async def _deliver(self, session: aiohttp.ClientSession, change: Change) -> bool:
        body = json.dumps(facts(change)).encode()
        for attempt in range(TRIES):
            try:
                headers = {"Content-Type": "application/json"}
                async with session.post(self._url, data=body, headers=headers, allow_redirects=False) as answer:
                    if answer.status < 300:
                        return True
                    if answer.status < 500 and answer.status != 429:
                        return False
            except (TimeoutError, aiohttp.ClientError, OSError, ValueError):
                pass
            if attempt < TRIES - 1:
                await asyncio.sleep(self._pause_seconds * 2**attempt)
        return False
