"""When a request is tried again: the arithmetic, and what a client does to a server that fails."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any

import orjson
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from vlfleet.client import AsyncClient, ServerError, Timeouts, TooSlowError
from vlfleet.client.retries import LONGEST_SECONDS, backoff_seconds, retry_after, wait_seconds
from vlfleet.errors import VlfleetError

CHANCE = st.floats(0, 1)


@given(st.integers(1, 10_000), CHANCE)
def test_waits_double_up_to_a_bound(tries: int, chance: float) -> None:
    longest = min(LONGEST_SECONDS, 0.5 * 2.0 ** min(tries - 1, 10))
    assert longest / 2 <= backoff_seconds(tries, chance) <= longest


@given(st.integers(1, 10), st.floats(0, 1e6), CHANCE)
def test_never_sooner_than_the_server_says(tries: int, after: float, chance: float) -> None:
    assert after <= wait_seconds(tries, after, chance) <= after + 1


def test_retry_after_is_a_number_or_a_date() -> None:
    now = 1_800_000_000.0
    assert retry_after("7") == 7
    assert retry_after("0.5") == 0.5
    assert retry_after("-3") == 0
    assert retry_after(formatdate(now + 9, usegmt=True), now) == 9
    assert retry_after(formatdate(now - 9, usegmt=True), now) == 0
    assert retry_after("Sat, 21 Nov 2026 00:00:30 -0000", 1_795_219_200.0) == 30  # no zone is UTC, wherever we are
    for nonsense in (None, "", "soon", "\u00b2", "nan", "inf", "1e999", "Fri, 99 Foo 2026", "9" * 400):
        assert retry_after(nonsense, now) in (None, 0)


@given(st.text())
def test_any_retry_after_is_seconds_or_nothing(value: str) -> None:
    seconds = retry_after(value)
    assert seconds is None or 0 <= seconds < float("inf")


def event(text: str, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return b"data: " + orjson.dumps({"model": "m", "choices": [choice]}) + b"\n\n"


Turn = Callable[[web.Request], Any]


@dataclass
class Server:
    """Any OpenAI-compatible server: its n-th request gets the n-th of `turns`, the last one over and over."""

    turns: list[Turn]
    url: str = ""
    at: list[float] = field(default_factory=list)
    """When each request came."""

    async def chat(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        self.at.append(time.monotonic())
        turn = self.turns[min(len(self.at), len(self.turns)) - 1]
        answer: web.StreamResponse = await turn(request)
        return answer


@asynccontextmanager
async def serving(*turns: Turn) -> AsyncIterator[Server]:
    server = Server(list(turns))
    app = web.Application(client_max_size=1 << 30)
    app.router.add_post("/v1/chat/completions", server.chat)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()


def refuse(status: int, message: str = "busy", **headers: str) -> Turn:
    async def turn(request: web.Request) -> web.Response:
        return web.json_response({"error": {"message": message, "code": "c"}}, status=status, headers=headers)

    return turn


def stream(*pieces: bytes, cut: bool = False, pause: float = 0.0, kind: str = "text/event-stream") -> Turn:
    async def turn(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": kind})
        await response.prepare(request)
        for piece in pieces:
            await asyncio.sleep(pause)
            await response.write(piece)
        if cut and request.transport is not None:
            request.transport.abort()
        return response

    return turn


async def hang(request: web.Request) -> web.Response:
    await asyncio.sleep(60)
    return web.Response()


GOOD = stream(event("yes"), event("", "stop"), b"data: [DONE]\n\n")
ASK: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_what_may_pass_is_tried_again(status: int) -> None:
    async with serving(refuse(status), refuse(status), GOOD) as server, AsyncClient(server.url) as client:
        answer = await client.ask("hi")
        assert (answer.text, answer.tries, answer.cached) == ("yes", 3, False)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
async def test_what_cannot_pass_is_not(status: int) -> None:
    async with serving(refuse(status, "no; do this")) as server, AsyncClient(server.url) as client:
        with pytest.raises(ServerError) as caught:
            await client.ask("hi")
        assert (caught.value.cause, caught.value.remedy) == ("no", "do this")
        assert (caught.value.status, caught.value.code, caught.value.transient) == (status, "c", False)
        assert len(server.at) == 1


async def test_tries_are_bounded_and_the_last_error_is_told() -> None:
    async with serving(refuse(503)) as server, AsyncClient(server.url, retries=1) as client:
        with pytest.raises(ServerError) as caught:
            await client.ask("hi")
        assert (caught.value.status, len(server.at)) == (503, 2)
    async with serving(refuse(503)) as server, AsyncClient(server.url, retries=0) as client:
        with pytest.raises(ServerError):
            await client.ask("hi")
        assert len(server.at) == 1


async def test_the_server_says_when() -> None:
    async with serving(refuse(429, **{"Retry-After": "1.2"}), GOOD) as server, AsyncClient(server.url) as client:
        assert (await client.ask("hi")).text == "yes"
        assert 1.2 <= server.at[1] - server.at[0] < 3


async def test_a_wait_beyond_the_deadline_is_not_begun() -> None:
    timeouts = Timeouts(total=5)
    async with (
        serving(refuse(503, "later", **{"Retry-After": "3600"})) as server,
        AsyncClient(server.url, timeouts=timeouts) as client,
    ):
        began = time.monotonic()
        with pytest.raises(ServerError) as caught:
            await client.ask("hi")
        assert time.monotonic() - began < 2
        assert (caught.value.cause, caught.value.retry_after_seconds) == ("later", 3600)


async def test_a_connection_that_is_cut_before_the_first_text() -> None:
    role = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
    async with serving(stream(cut=True), stream(role, cut=True), GOOD) as server, AsyncClient(server.url) as client:
        answer = await client.ask("hi")
        assert (answer.text, answer.tries) == ("yes", 3)


async def test_never_after_text_was_handed_out() -> None:
    async with serving(stream(event("half"), cut=True), GOOD) as server, AsyncClient(server.url) as client:
        told = client.stream("hi")
        with pytest.raises(ServerError, match="ended before the answer did"):
            await told.complete()
        assert (told.answer.text, len(server.at)) == ("half", 1)
    late = b'data: {"error":{"message":"out of memory","code":500}}\n\n'
    async with serving(stream(event("half"), late), GOOD) as server, AsyncClient(server.url) as client:
        with pytest.raises(ServerError, match="out of memory"):
            await client.ask("hi")
        assert len(server.at) == 1


async def test_nobody_there() -> None:
    async with serving(GOOD) as server:
        url = server.url
    async with AsyncClient(url) as client:
        began = time.monotonic()
        with pytest.raises(ServerError, match="nothing answers at") as caught:
            await client.ask("hi")
        assert 0.75 <= time.monotonic() - began < 5  # two waits of at least 0.25 and 0.5 s
        assert caught.value.transient


@pytest.mark.parametrize(
    ("timeouts", "turn", "words"),
    [
        (Timeouts(first_token=0.2), hang, "no token within 0.2 s"),
        (Timeouts(total=0.2), hang, "no complete answer within 0.2 s"),
        (Timeouts(total=0.4), stream(event("a"), event("b"), event("c"), pause=0.15), "no complete answer within 0.4"),
        (Timeouts(first_token=0.2), stream(b": keep-alive\n\n" * 2, b"", event("x"), pause=0.15), "no token within"),
    ],
)
async def test_each_timeout_has_words_of_its_own(timeouts: Timeouts, turn: Turn, words: str) -> None:
    async with serving(turn) as server, AsyncClient(server.url, timeouts=timeouts) as client:
        with pytest.raises(TooSlowError) as caught:
            await client.ask("hi")
        assert words in caught.value.cause
        assert "Timeouts(" in caught.value.remedy
        assert len(server.at) == 1


async def test_no_connection_in_time() -> None:
    """A listener whose queue is full answers no SYN."""
    with socket.socket() as full, ExitStack() as stack:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            with suppress(BlockingIOError):
                waiting.connect(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        async with AsyncClient(url, timeouts=Timeouts(connect=0.2), retries=0) as client:
            with pytest.raises(ServerError, match=r"no connection within 0\.2 s"):
                await client.ask("hi")


async def test_the_total_covers_all_tries() -> None:
    timeouts = Timeouts(total=1.0)
    async with serving(refuse(503)) as server, AsyncClient(server.url, timeouts=timeouts, retries=50) as client:
        began = time.monotonic()
        with pytest.raises(VlfleetError):
            await client.ask("hi")
        assert time.monotonic() - began < 1.5
        assert 2 <= len(server.at) <= 4


async def test_a_slow_reader_is_no_slow_server() -> None:
    """The time that the caller spends between two pieces does not fire a timeout in the caller's own code."""
    timeouts = Timeouts(first_token=0.3)
    async with (
        serving(stream(event("a"), event("b", "stop"), b"data: [DONE]\n\n")) as server,
        AsyncClient(server.url, timeouts=timeouts) as client,
    ):
        pieces = []
        async for piece in client.stream("hi"):
            pieces.append(piece)
            await asyncio.sleep(0.4)
        assert pieces == ["a", "b"]
