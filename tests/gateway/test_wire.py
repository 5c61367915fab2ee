"""Connections to engines, against servers that say anything, byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.gateway.rig import until
from vlfleet.gateway.pool import Pool, get
from vlfleet.gateway.wire import SLICE_BYTES, UNREAD_BYTES, Broken, Unreachable, Wire

POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Server:
    """A server, and how many connections it had and has."""

    port: int = 0
    connections: int = 0
    writers: set[asyncio.StreamWriter] = field(default_factory=set)


@asynccontextmanager
async def server(serve: Serve) -> AsyncIterator[Server]:
    """`serve` is called for each connection, which is closed after it."""
    made, tasks = Server(), set[asyncio.Task[None] | None]()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made.connections += 1
        made.writers.add(writer)
        tasks.add(asyncio.current_task())
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await serve(reader, writer)
        finally:
            made.writers.discard(writer)
            writer.close()

    listening = await asyncio.start_server(one, "127.0.0.1", 0)
    made.port = listening.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        listening.close()
        for task in tasks:
            if task:
                task.cancel()
        await asyncio.gather(*(task for task in tasks if task), return_exceptions=True)
        await asyncio.sleep(0.01)  # transports close in the next turn of the loop


async def request(reader: asyncio.StreamReader) -> bytes:
    """The body of a request that has come whole."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next((line for line in head.split(b"\r\n") if line.startswith(b"Content-Length:")), b":0")
    return await reader.readexactly(int(length.split(b":")[1]))


def answers(*pieces: bytes, then: str = "hold", pause: float = 0.0) -> Serve:
    """To every request these pieces, a pause after each."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await request(reader)
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(pause)
            if then == "close":
                return
            if then == "reset":
                writer.transport.abort()
                return

    return serve


@asynccontextmanager
async def pool(connect_seconds: float = 1.0, keep_seconds: float = 2.0) -> AsyncIterator[Pool]:
    made = Pool(connect_seconds, keep_seconds)
    try:
        yield made
    finally:
        made.close()


async def body_of(wire: Wire) -> bytes:
    return b"".join([data async for data in pieces(wire)])


async def pieces(wire: Wire) -> AsyncIterator[bytes]:
    while data := await wire.read():
        yield data


async def ask(made: Pool, port: int, *body: bytes) -> tuple[int, bytes]:
    wire = await made.connect(port)
    try:
        async with asyncio.timeout(5):
            await wire.ask(POST % sum(map(len, body)), body)
            return wire.status, await body_of(wire)
    finally:
        wire.release()


WHOLE = {
    "with a length": (OK, "hold"),
    "in chunks": (CHUNKED + b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", "hold"),
    "in chunks with extensions and trailers": (CHUNKED + b"5;a=b\r\nhello\r\n0\r\nX-A: b\r\n\r\n", "hold"),
    "until the end": (b"HTTP/1.1 200 OK\r\n\r\nhello", "close"),
    "of HTTP/1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", "close"),
    "after interim answers": (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n" + OK, "hold"),
}


@pytest.mark.parametrize(("answer", "then"), WHOLE.values(), ids=WHOLE)
@pytest.mark.parametrize("cut", ["whole", "byte by byte"])
async def test_an_answer_in_every_framing(answer: bytes, then: str, cut: str) -> None:
    parts = [answer] if cut == "whole" else [answer[n : n + 1] for n in range(len(answer))]
    async with server(answers(*parts, then=then)) as far, pool() as made:
        for _ in range(2):
            assert await ask(made, far.port, b"question") == (200, b"hello")


BROKEN = {
    "nothing": (b"", "close"),
    "nothing, reset": (b"", "reset"),
    "half a head": (b"HTTP/1.1 200 OK\r\nContent-", "close"),
    "a short body": (OK[:-1], "close"),
    "a short body, reset": (OK[:-1], "reset"),
    "no last chunk": (CHUNKED + b"5\r\nhello\r\n", "close"),
    "half a chunk": (CHUNKED + b"ff\r\nhello", "close"),
    "a chunk of no length": (CHUNKED + b"zz\r\nhello\r\n0\r\n\r\n", "hold"),
    "garbage": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "hold"),
    "another protocol": (b"SSH-2.0-OpenSSH_9.2\r\n", "hold"),
    "two lengths": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", "hold"),
    "a length and chunks": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n" + CHUNKED[17:] + b"0\r\n\r\n", "hold"),
    "a negative length": (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", "hold"),
    "bare line feeds": (b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", "hold"),
    "another protocol from now on": (b"HTTP/1.1 101 S\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "hold"),
    "a head of 300 KB": (b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 40_000, "hold"),
    "one header of 300 KB": (b"HTTP/1.1 200 OK\r\nX-A: " + b"b" * 300_000, "hold"),
    "interim answers without end": (b"HTTP/1.1 100 Continue\r\n\r\n" * 20_000, "hold"),
    "trailers without end": (CHUNKED + b"5\r\nhello\r\n0\r\n" + b"X-A: b\r\n" * 40_000, "hold"),
}


@pytest.mark.parametrize(("answer", "then"), BROKEN.values(), ids=BROKEN)
async def test_what_is_no_answer_is_broken_and_its_connection_closed(answer: bytes, then: str) -> None:
    async with server(answers(answer, then=then)) as far, pool() as made:
        for number in (1, 2):
            with pytest.raises(Broken):
                await ask(made, far.port)
            assert far.connections == number
        await until(lambda: not far.writers)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.booleans())
async def test_any_bytes_are_an_answer_or_broken(junk: bytes, behind_a_head: bool) -> None:
    async with server(answers((CHUNKED if behind_a_head else b"") + junk, then="close")) as far, pool() as made:
        with contextlib.suppress(Broken):
            status, _ = await ask(made, far.port)
            assert status >= 200


async def test_a_connection_is_used_again_and_given_up_when_it_rests() -> None:
    async with server(answers(OK)) as far, pool(keep_seconds=0.2) as made:
        for _ in range(3):
            await ask(made, far.port)
        assert far.connections == 1
        await until(lambda: not far.writers)
        await ask(made, far.port)
        assert far.connections == 2


CLOSES = {
    "says so": b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "more than was asked for": OK + OK,
    "junk behind it": OK + b"junk",
}


@pytest.mark.parametrize("answer", CLOSES.values(), ids=CLOSES)
async def test_a_connection_is_not_used_again(answer: bytes) -> None:
    async with server(answers(answer)) as far, pool() as made:
        for number in (1, 2, 3):
            assert await ask(made, far.port) == (200, b"hello")
            assert far.connections == number


@pytest.mark.parametrize("late", [b"", OK])
async def test_what_comes_unasked_reaches_nobody(late: bytes) -> None:
    """An engine that closes a connection, or goes on talking, while nobody uses it: the next request gets another."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(OK)
        said.set()
        await go.wait()
        writer.write(late)

    said, go = asyncio.Event(), asyncio.Event()
    async with server(serve) as far, pool() as made:
        await ask(made, far.port)
        go.set()
        await asyncio.sleep(0.05)
        go.clear()
        assert await ask(made, far.port) == (200, b"hello")
        assert far.connections == 2


async def test_a_connection_that_was_closed_this_very_moment_is_not_asked() -> None:
    """Its end lies in the socket, and the loop has not looked yet."""
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    loop = asyncio.get_running_loop()
    listening.setblocking(False)
    async with pool() as made:
        wire = await made.connect(port)
        far, _ = await loop.sock_accept(listening)
        asked = asyncio.create_task(wire.ask(POST % 0))
        await loop.sock_recv(far, 1000)
        await loop.sock_sendall(far, OK)
        await asked
        await body_of(wire)
        wire.release()
        far.close()
        assert not wire.usable(0.0)
    listening.close()


async def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with pool() as made:
        with pytest.raises(Unreachable):
            await made.connect(port)


async def test_nobody_accepts() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        async with pool(connect_seconds=0.2) as made:
            waiting = [asyncio.create_task(made.connect(port)) for _ in range(8)]
            done = await asyncio.gather(*waiting, return_exceptions=True)
            assert any(isinstance(each, Unreachable) for each in done)
            for each in done:
                if isinstance(each, Wire):
                    each.release()


async def test_a_large_body_waits_for_a_server_that_reads_slowly() -> None:
    """What lies in this process is a slice or two, not the body."""
    go, got = asyncio.Event(), bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await go.wait()
        while len(got) < len(body):
            got.extend(await reader.read(1 << 20))
        writer.write(OK)

    body = random.Random(1).randbytes(24 << 20)
    async with server(serve) as far, pool() as made:
        wire = await made.connect(far.port)
        asked = asyncio.create_task(wire.ask(POST % len(body), (body[: 9 << 20], memoryview(body)[9 << 20 :])))
        await asyncio.sleep(0.3)
        assert not asked.done()
        assert wire._transport.get_write_buffer_size() <= 2 * SLICE_BYTES
        go.set()
        await asked
        assert await body_of(wire) == b"hello"
        assert bytes(got) == body
        wire.release()


async def test_an_answer_before_the_end_of_the_body_is_the_answer() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await asyncio.sleep(0.3)

    async with server(serve) as far, pool() as made:
        for number in (1, 2):  # and there is half a request in the connection
            assert await ask(made, far.port, bytes(24 << 20)) == (200, b"hello")
            assert far.connections == number


async def test_an_answer_that_nobody_reads_waits_at_the_server() -> None:
    written = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (64 << 20))
        for _ in range(64):
            writer.write(bytes(1 << 20))
            await writer.drain()
            written += 1
        await reader.read()

    async with server(serve) as far, pool() as made:
        wire = await made.connect(far.port)
        await wire.ask(POST % 0)
        await asyncio.sleep(0.3)
        assert written < 32
        first = await wire.read()
        assert len(first) <= 2 * UNREAD_BYTES
        assert len(first) + len(await body_of(wire)) == 64 << 20
        wire.release()


@pytest.mark.parametrize("how", ["cancelled", "released", "stopped"])
async def test_a_request_that_is_given_up_ends_at_the_server(how: str) -> None:
    async with server(answers(CHUNKED + b"5\r\nhello\r\n")) as far, pool() as made:
        wire = await made.connect(far.port)
        await wire.ask(POST % 0)
        assert await wire.read() == b"hello"
        if how == "cancelled":
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await wire.read()
        elif how == "stopped":
            asyncio.get_running_loop().call_later(0.05, wire.stop, KeyError("enough"))
            with pytest.raises(KeyError):
                await wire.read()
        wire.release()
        await until(lambda: not far.writers)


async def test_a_page_is_read_within_its_time_and_size() -> None:
    async with server(answers(OK)) as far, pool() as made:
        assert await get(made, far.port, "/health", "key", 1.0, 5) == (200, b"hello")
        with pytest.raises(Broken):
            await get(made, far.port, "/health", "key", 1.0, 4)
    async with server(answers(b"HTTP/1.1 200 OK\r\n")) as far, pool() as made:
        with pytest.raises(TimeoutError):
            await get(made, far.port, "/health", "key", 0.1, 5)
        await until(lambda: not far.writers)


ON_UVLOOP: list[tuple[Callable[..., Coroutine[Any, Any, None]], tuple[Any, ...]]] = [
    *((test_an_answer_in_every_framing, (*each, "byte by byte")) for each in WHOLE.values()),
    *((test_what_is_no_answer_is_broken_and_its_connection_closed, each) for each in BROKEN.values()),
    *((test_a_connection_is_not_used_again, (each,)) for each in CLOSES.values()),
    *((test_what_comes_unasked_reaches_nobody, (each,)) for each in (b"", OK)),
    *((test_a_request_that_is_given_up_ends_at_the_server, (each,)) for each in ("cancelled", "released", "stopped")),
    (test_a_connection_that_was_closed_this_very_moment_is_not_asked, ()),
    (test_a_large_body_waits_for_a_server_that_reads_slowly, ()),
    (test_an_answer_before_the_end_of_the_body_is_the_answer, ()),
    (test_an_answer_that_nobody_reads_waits_at_the_server, ()),
]


@pytest.mark.parametrize(("test", "arguments"), ON_UVLOOP)
def test_the_same_on_the_loop_that_a_fleet_runs_on(
    test: Callable[..., Coroutine[Any, Any, None]], arguments: tuple[Any, ...]
) -> None:
    """It differs in how a connection ends, and in when what is written leaves."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(test(*arguments))
