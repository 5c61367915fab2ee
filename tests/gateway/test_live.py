"""/glance and /live: one computation for all who look, and nothing that piles up for one who does not read."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.gateway.rig import until
from vlfleet.gateway.admin import build_admin
from vlfleet.gateway.connection import LIMITS, ConnectionLimits
from vlfleet.gateway.live import Live
from vlfleet.gateway.serve import serve

TOKEN = "t" * 43
GOOD = {"Authorization": f"Bearer {TOKEN}"}


class Looks:
    """Glances that count themselves, of so many bytes."""

    def __init__(self, padding: int = 0) -> None:
        self.number, self.padding = 0, "x" * padding

    def __call__(self) -> dict[str, Any]:
        self.number += 1
        return {"number": self.number, "padding": self.padding}


@asynccontextmanager
async def looked_at(
    look: Callable[[], Any], limits: ConnectionLimits = LIMITS, **options: Any
) -> AsyncIterator[tuple[aiohttp.ClientSession, Live, int]]:
    live = Live(look, **{"tick_seconds": 0.05, **options})
    app = build_admin(TOKEN, live.routes())
    app.on_shutdown.append(live.close)
    runner = await serve(app, "127.0.0.1", 0, limits)
    port = runner.addresses[0][1]
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", headers=GOOD) as session:
        try:
            yield session, live, port
        finally:
            await session.close()
            await runner.cleanup()


async def glances(answer: aiohttp.ClientResponse, count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while len(found) < count:
        line = await answer.content.readline()
        assert line
        if line.startswith(b"data: "):
            found.append(json.loads(line[6:]))
        else:
            assert line == b"\n"
    return found


async def test_one_glance_serves_all_who_ask_within_a_tick() -> None:
    look = Looks()
    async with looked_at(look, tick_seconds=5.0) as (session, _, _):
        for _ in range(3):
            async with session.get("/glance") as answer:
                assert (await answer.json())["number"] == 1
                assert answer.headers["Content-Type"] == "application/json"
                assert answer.headers["Cache-Control"] == "no-store"
    assert look.number == 1


async def test_listeners_share_what_is_computed_and_nothing_is_when_they_have_left() -> None:
    look = Looks()
    async with looked_at(look) as (session, live, _):
        async with session.get("/live") as one, session.get("/live") as other:
            assert one.headers["Content-Type"] == "text/event-stream"
            first, second = await asyncio.gather(glances(one, 1), glances(other, 1))
            assert live.listeners == 2
            assert first[0]["number"] <= second[0]["number"] <= 2
            made = look.number
            await asyncio.sleep(0.5)
            assert 5 <= look.number - made <= 11
        await until(lambda: live.listeners == 0)
        await asyncio.sleep(0.1)
        left = look.number
        await asyncio.sleep(0.2)
        assert look.number == left


async def test_the_first_comes_at_once_and_the_others_in_their_time() -> None:
    async with looked_at(Looks(), tick_seconds=0.5) as (session, _, _), session.get("/live?seconds=1") as answer:
        async with asyncio.timeout(0.4):
            await glances(answer, 1)
        began = asyncio.get_running_loop().time()
        found = await glances(answer, 2)
        assert 1.2 < asyncio.get_running_loop().time() - began < 3.5
        assert found[1]["number"] - found[0]["number"] >= 2


@pytest.mark.parametrize("seconds", ["0", "0.5", "61", "a", "nan", "inf", "-1", ""])
async def test_what_is_no_number_of_seconds(seconds: str) -> None:
    async with looked_at(Looks()) as (session, live, _), session.get(f"/live?seconds={seconds}") as answer:
        assert answer.status == 400
        assert (await answer.json())["error"]["param"] == "seconds"
        assert live.listeners == 0


@pytest.mark.parametrize("path", ["/glance", "/live"])
async def test_nothing_without_the_token(path: str) -> None:
    async with looked_at(Looks()) as (session, _, port):
        async with session.get(path, headers={"Authorization": "Bearer no"}) as answer:
            assert answer.status == 401
        async with session.get(path, headers={"Origin": "http://evil.example"}) as answer:
            assert answer.status == 403
        async with session.get(path, headers={"Host": f"evil.example:{port}"}) as answer:
            assert answer.status == 403


@pytest.mark.parametrize("kib", [60, 300])
async def test_one_who_does_not_read_has_one_glance_waiting_and_is_ended(kib: int) -> None:
    """A glance of 60 KiB is less than what a connection may have waiting, so only our own look at it ends that one."""
    look = Looks(padding=kib << 10)
    limits = ConnectionLimits(write_stall_seconds=1.0)
    async with looked_at(look, limits, tick_seconds=0.02, stall_seconds=1.0) as (session, live, port):
        silent = socket.socket()
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        silent.connect(("127.0.0.1", port))
        head = f"GET /live HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
        silent.sendall(head.encode())
        await until(lambda: live.listeners == 1)
        (task,) = live._listeners
        transport = transport_of(task)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        most = 0
        async with session.get("/live?seconds=60") as beside:
            await glances(beside, 1)
            async with asyncio.timeout(20):
                while not task.done():
                    most = max(most, transport.get_write_buffer_size())
                    await asyncio.sleep(0.005)
            assert live.listeners == 1
        assert look.number > 10
        assert 0 < most < 2 * len(look.padding)
        silent.close()


def transport_of(task: asyncio.Task[Any]) -> asyncio.Transport:
    """Of the connection on which this task answers."""
    frame: Any = task.get_coro()
    while frame is not None:
        if isinstance(request := frame.cr_frame.f_locals.get("request"), web.Request) and request.transport:
            return request.transport
        frame = frame.cr_await
    raise AssertionError("it answers nothing")


async def test_a_look_that_fails_ends_the_stream_and_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    look = Looks()

    def fails() -> dict[str, Any]:
        if look.number == 2:
            raise ValueError("canary-9")
        return look()

    async with looked_at(fails) as (session, _, _), session.get("/live") as answer:
        async with asyncio.timeout(5):
            text = await answer.text()
        assert text.startswith('data: {"number":1')
    assert "canary-9" not in text + caplog.text
    assert "ValueError" in caplog.text


async def test_the_end_of_the_fleet_waits_for_no_listener() -> None:
    live = Live(Looks(), 0.05)
    app = build_admin(TOKEN, live.routes())
    app.on_shutdown.append(live.close)
    runner = await serve(app, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/live"
    async with aiohttp.ClientSession(headers=GOOD) as session, session.get(url) as answer:
        await glances(answer, 1)
        began = asyncio.get_running_loop().time()
        await runner.cleanup()
        assert asyncio.get_running_loop().time() - began < 0.9
    assert live.listeners == 0
