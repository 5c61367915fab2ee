"""An admin port that tells what a test wants, and keeps the orders that it gets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
from aiohttp import web

from tests.watch.top.glances import BUSY, Glance
from vlfleet.errors import VlfleetError
from vlfleet.watch.top.link import Address

TOKEN = "sesame"


class FakeAdmin:
    """One fleet, whose glance is told when it is another one.

    `events` are told to whoever gives an order; a `refusal` is answered instead.
    """

    def __init__(self, glance: Glance = BUSY) -> None:
        self.glance: Any = glance
        self.orders: list[tuple[str, dict[str, Any]]] = []
        self.events: list[dict[str, Any]] = []
        self.refusal: tuple[int, dict[str, Any]] | None = None
        self.log = "engine starts\nall is well\n"
        self.asked: list[dict[str, str]] = []
        self.looks = 0
        self.silent = False
        """Whether it takes connections and says nothing."""
        self.url = ""
        self._runner: web.AppRunner | None = None
        self._streams: set[asyncio.Task[Any]] = set()

    def address(self) -> Address:
        """
        Raises:
            VlfleetError: it does not run.
        """
        if not self.url:
            raise VlfleetError("no fleet 'default' is running", "start one with `vlfleet up`")
        return Address(self.url, TOKEN)

    async def start(self) -> None:
        """Listens on a free port, another one each time."""
        app = web.Application(middlewares=[self._guard])
        app.router.add_get("/glance", self._glance)
        app.router.add_get("/live", self._live)
        app.router.add_get("/logs", self._logs)
        for path in ("restart", "drain", "cordon", "uncordon", "alerts/acknowledge", "alerts/silence"):
            app.router.add_post(f"/{path}", self._order)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Ends as a killed one does: nobody hears a goodbye."""
        self.url = ""
        for stream in self._streams:
            stream.cancel()
        if self._runner:
            await self._runner.cleanup()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return web.json_response({"error": {"message": "the token is wrong"}}, status=401)
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _glance(self, request: web.Request) -> web.Response:
        return web.Response(body=orjson.dumps(self.glance))

    async def _live(self, request: web.Request) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task
        self._streams.add(task)
        self.looks += 1
        self.asked.append(dict(request.query))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            await response.write(b": hello\n\n")
            told: Any = self
            while True:
                if told is not self.glance and not self.silent:
                    told = self.glance
                    await response.write(b"data: " + orjson.dumps(told) + b"\n\n")
                await asyncio.sleep(0.02)
        finally:
            self._streams.discard(task)

    async def _logs(self, request: web.Request) -> web.Response:
        self.asked.append(dict(request.query))
        if request.query["replica"] == "r7":
            return web.json_response({"error": {"message": "there is no such replica"}}, status=404)
        after = int(request.query.get("after", "m0")[1:])
        told = {"text": self.log[after:], "offset": f"m{len(self.log)}", "truncated": False}
        return web.json_response({"replica": request.query["replica"], **told})

    async def _order(self, request: web.Request) -> web.StreamResponse:
        self.orders.append((request.path, await request.json()))
        if self.refusal:
            return web.json_response(self.refusal[1], status=self.refusal[0])
        if request.path.startswith("/alerts"):
            return web.Response(status=204)
        if request.path in ("/cordon", "/uncordon"):
            return web.json_response({"cordoned": ["r0"]})
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        for event in self.events:
            await response.write(orjson.dumps(event) + b"\n")
        return response


@asynccontextmanager
async def running(glance: Glance = BUSY) -> AsyncIterator[FakeAdmin]:
    """A fake that listens."""
    fake = FakeAdmin(glance)
    await fake.start()
    try:
        yield fake
    finally:
        await fake.stop()
