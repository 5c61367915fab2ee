"""One reader of the engines' /metrics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from tests.gateway.rig import KEY, replica
from tests.watch.rig import engine_pages
from vlfleet.fleet.replica import Phase
from vlfleet.gateway import engine_pages as module

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
TEXT = b"vllm:num_requests_running 7\n"


@asynccontextmanager
async def page(answer: Answer, path: str = "/metrics", method: str = "GET") -> AsyncIterator[int]:
    """A server whose /metrics is `answer`; its port."""
    app = web.Application()
    app.router.add_route(method, path, answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


class Engine:
    """Counts who asks; hangs while `go` is not set."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.go = asyncio.Event()
        self.go.set()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.keys.append(request.headers.get("Authorization", ""))
        await self.go.wait()
        return web.Response(body=TEXT)


async def test_a_page_is_read_once_for_everybody() -> None:
    engine = Engine()
    async with page(engine.answer) as port:
        one = replica("r0", port)
        async with engine_pages([one]) as pages:
            assert pages.of(one) is None
            began = time.monotonic()
            await asyncio.gather(*(pages.look(0.0, 5) for _ in range(9)))
            read = pages.of(one)
            assert read is not None
            assert (read.text, read.started_at) == (TEXT, one.started_at)
            assert began <= read.at <= time.monotonic()
            await pages.look(60.0, 5)
            assert engine.keys == [f"Bearer {KEY}"]
            assert pages.of(one) is read
            await pages.look(0.0, 5)
            assert len(engine.keys) == 2
            assert pages.of(one) is not read


async def test_one_that_hangs_is_not_waited_for_nor_asked_again_and_keeps_what_it_said() -> None:
    engine = Engine()
    async with page(engine.answer) as port:
        one = replica("r0", port)
        async with engine_pages([one]) as pages:
            await pages.look(0.0, 5)
            read = pages.of(one)
            engine.go.clear()
            began = time.monotonic()
            for _ in range(3):
                await pages.look(0.0, 0.05)
            assert 0.1 < time.monotonic() - began < 1.5
            assert (len(engine.keys), pages.of(one)) == (2, read)
            engine.go.set()
            await pages.look(0.0, 5)
            assert pages.of(one) is not read


async def test_one_that_hangs_for_long_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT_SECONDS", 0.1)
    engine = Engine()
    engine.go.clear()
    async with page(engine.answer) as port:
        one = replica("r0", port)
        async with engine_pages([one]) as pages:
            await pages.look(0.0, 5)
            await pages.look(0.0, 5)
            assert (len(engine.keys), pages.of(one)) == (2, None)
        engine.go.set()


async def test_only_what_runs_is_asked_and_a_new_process_has_said_nothing() -> None:
    engine = Engine()
    async with page(engine.answer) as port:
        replicas = [replica(f"r{n}", port, phase) for n, phase in enumerate(Phase)]
        async with engine_pages(replicas) as pages:
            await pages.look(0.0, 5)
            said = {each.phase for each in replicas if pages.of(each)}
            assert said == {Phase.READY, Phase.UNHEALTHY, Phase.DRAINING}
            assert len(engine.keys) == 3
            one = next(each for each in replicas if each.phase is Phase.READY)
            one.started_at, one.port = 2.0, 1
            assert pages.of(one) is None
            await pages.look(0.0, 5)
            assert pages.of(one) is None


async def test_a_page_that_began_in_an_earlier_process_is_not_the_next_ones() -> None:
    engine = Engine()
    engine.go.clear()
    async with page(engine.answer) as port:
        one = replica("r0", port)
        async with engine_pages([one]) as pages:
            await pages.look(0.0, 0.1)
            one.started_at = 2.0
            engine.go.set()
            await pages.look(0.0, 5)
            assert pages.of(one) is None
            await pages.look(0.0, 5)
            assert pages.of(one) is not None


@pytest.mark.parametrize("status", [401, 404, 500])
async def test_a_page_that_is_none(status: int) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=TEXT)

    async with page(answer) as port:
        one = replica("r0", port)
        async with engine_pages([one]) as pages:
            await pages.look(0.0, 5)
            assert pages.of(one) is None


async def test_an_endless_page_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 100_000)
    sent = 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while sent < 1 << 30:
            await response.write(TEXT * 1000)
            sent += 28_000
        return response

    async with page(answer) as port:
        one = replica("r0", port)
        async with engine_pages([one]) as pages:
            await pages.look(0.0, 5)
            assert pages.of(one) is None
    assert sent < 64 << 20


async def test_a_thousand_that_are_gone_delay_nobody() -> None:
    replicas = [replica(f"r{number}", 1) for number in range(1000)]
    async with engine_pages(replicas) as pages:
        began = time.monotonic()
        await pages.look(0.0, 0.1)
        assert time.monotonic() - began < 2
        assert not any(pages.of(each) for each in replicas)
