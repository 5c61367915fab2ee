"""/glance once, and /live again and again: one computation a second, however many look, and none when nobody does."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import orjson
from aiohttp import web

from vlfleet.gateway.admission import LIMITS
from vlfleet.gateway.connection import where
from vlfleet.gateway.errors import bad_request

TICK_SECONDS = 1.0
MOST_SECONDS = 60.0
"""Between two glances of one listener."""

log = logging.getLogger("vlfleet.admin")


class Live:
    """Glances of one fleet. `look` makes one; it runs in the event loop."""

    def __init__(
        self,
        look: Callable[[], dict[str, Any]],
        tick_seconds: float = TICK_SECONDS,
        stall_seconds: float = LIMITS.write_stall_seconds,
    ) -> None:
        self.looks = 0
        """Glances that were made so far."""
        self._listeners: set[asyncio.Task[Any]] = set()
        self._look, self._tick_seconds, self._stall_seconds = look, tick_seconds, stall_seconds
        self._latest, self._at = b"", float("-inf")
        self._next: asyncio.Future[bytes] | None = None
        """Settled when the next glance is there; None while nobody waits for one."""

    @property
    def listeners(self) -> int:
        """Of /live, now."""
        return len(self._listeners)

    async def close(self, app: web.Application) -> None:
        """Lets nobody listen any longer: the port is about to be closed."""
        for task in tuple(self._listeners):
            task.cancel()

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/glance", self.glance, allow_head=False), web.get("/live", self.live, allow_head=False)]

    async def glance(self, request: web.Request) -> web.Response:
        """The fleet now, or less than a tick ago."""
        return web.Response(body=self._recent(), headers={"Content-Type": "application/json"})

    async def live(self, request: web.Request) -> web.StreamResponse:
        """Events until the client leaves. One that does not read misses glances: none is made ready for it before it
        has taken the one before, and after `stall_seconds` without reading its connection is ended."""
        seconds = _seconds(request.query.get("seconds", "1"))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
        await response.prepare(request)
        task = asyncio.current_task()
        assert task
        self._listeners.add(task)
        try:
            await self._tell(request, response, seconds)
        except ConnectionError:
            pass  # it left
        except Exception as error:
            log.error("no glance: %s", where(error))
        finally:
            self._listeners.discard(task)
        return response

    async def _tell(self, request: web.Request, response: web.StreamResponse, seconds: float) -> None:
        await response.write(_event(self._recent()))
        due, read_at = time.monotonic() + seconds, time.monotonic()
        while (transport := request.transport) is not None:
            glance = await self._following()
            now = time.monotonic()
            if not transport.get_write_buffer_size():
                read_at = now
            elif now - read_at > self._stall_seconds:
                transport.abort()
                return
            if read_at == now and now >= due - self._tick_seconds / 2:
                due = max(due + seconds, now + seconds / 2)
                await response.write(_event(glance))

    def _recent(self) -> bytes:
        if time.monotonic() - self._at >= self._tick_seconds / 2:
            self._make()
        return self._latest

    def _make(self) -> None:
        self._latest, self._at = orjson.dumps(self._look()), time.monotonic()
        self.looks += 1

    async def _following(self) -> bytes:
        """The next glance; whoever asks first has it made for all."""
        if self._next is None:
            loop = asyncio.get_running_loop()
            self._next = loop.create_future()
            loop.call_at(max(loop.time(), self._at + self._tick_seconds), self._tick, self._next)
        return await asyncio.shield(self._next)

    def _tick(self, waited_for: asyncio.Future[bytes]) -> None:
        self._next = None
        try:
            self._make()
        except Exception as error:
            waited_for.set_exception(error)
            waited_for.exception()  # nobody may be there any more to take it
        else:
            waited_for.set_result(self._latest)


def _seconds(text: str) -> float:
    """
    Raises:
        ApiError: 400, it is no number of 1 to 60.
    """
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 1.0 <= seconds <= MOST_SECONDS:
        raise bad_request("seconds", "seconds is not between 1 and 60", "leave it out, or say 5")
    return seconds


def _event(glance: bytes) -> bytes:
    """JSON of orjson has no line ends."""
    return b"data: %b\n\n" % glance
