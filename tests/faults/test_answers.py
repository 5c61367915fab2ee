"""Engines that answer badly, byte by byte: no client waits for ever, and no broken answer looks whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.gateway.rig import Rig, gateway, hello, replica, rig, until
from vlfleet.gateway import Limits

STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'
DONE = b"data: [DONE]\n\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def whole(body: bytes, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (size, body)


@asynccontextmanager
async def engine(answer: bytes, *, then: str = "close", again: bool = False) -> AsyncIterator[int]:
    """A port on which every request gets these bytes. `then`: `close`, `reset` or `hold` the connection; `again`: the
    bytes are repeated for ever."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
            await reader.readexactly(int(length.split(b":")[1]))
            start, repeated = (answer[: answer.index(b"\r\n\r\n") + 4], answer) if again else (answer, b"")
            writer.write(start)
            while again:
                writer.write(repeated[len(start) :])
                await writer.drain()
            await writer.drain()
            if then == "hold":
                await reader.read()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            if then == "reset":
                writer.transport.abort()
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def heard(fleet: Rig, *, stream: bool, **fields: object) -> tuple[int, str]:
    async with asyncio.timeout(10), fleet.chat(stream=stream, **fields) as answer:
        return answer.status, await answer.text()


BROKEN_STREAMS = {
    "closed": (STREAM + chunk(EVENT), "close"),
    "reset": (STREAM + chunk(EVENT), "reset"),
    "ended without DONE": (STREAM + chunk(EVENT) + b"0\r\n\r\n", "close"),
    "half an event": (STREAM + chunk(EVENT + EVENT[:20]) + b"0\r\n\r\n", "close"),
    "a chunk cut in two": (STREAM + chunk(EVENT) + b"ff\r\ndata: {", "close"),
}


@pytest.mark.parametrize(("answer", "then"), BROKEN_STREAMS.values(), ids=BROKEN_STREAMS)
async def test_a_broken_stream_ends_with_an_error_event(answer: bytes, then: str) -> None:
    async with engine(answer, then=then) as port, gateway([replica("r0", port)]) as fleet:
        status, text = await heard(fleet, stream=True)
        events = text.split("\n\n")
        assert status == 200
        assert events[0] == EVENT.decode().strip()
        assert '"code":"stream_broken"' in events[-2]
        assert events[-1] == ""
        assert "[DONE]" not in text


BAD_ANSWERS = {
    "nothing": (b"", "close"),
    "reset": (b"", "reset"),
    "half a status line": (b"HTTP/1.", "close"),
    "not HTTP": (b"SSH-2.0-OpenSSH_9.6\r\n", "close"),
    "headers cut": (b"HTTP/1.1 200 OK\r\nContent-Type: app", "close"),
    "headers too long": (b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 70_000 + b"\r\n\r\n", "close"),
    "shorter than it said": (whole(b'{"choices":', 500), "close"),
    "two lengths": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 9\r\n\r\n{}", "close"),
    "no JSON": (whole(b"\x00\xff\xfe"), "close"),
    "nothing at all in it": (whole(b""), "close"),
    "a chunk that is none": (STREAM + b"zz\r\n", "close"),
    "a redirect": (b"HTTP/1.1 302 Found\r\nLocation: http://10.0.0.1/\r\nContent-Length: 0\r\n\r\n", "close"),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("answer", "then"), BAD_ANSWERS.values(), ids=BAD_ANSWERS)
async def test_a_bad_answer_is_another_engines_turn_and_else_one_error(answer: bytes, then: str, stream: bool) -> None:
    async with rig(1) as good, engine(answer, then=then) as port, engine(answer, then=then) as other:
        async with gateway([replica("bad", port), replica("worse", other)]) as fleet:
            status, text = await heard(fleet, stream=stream)
            assert status in (502, 503)
            assert text.startswith('{"error":{"message":"')
            assert "Traceback" not in text
            assert fleet.idle()
        async with gateway([replica("bad", port), replica("good", good.engines[0].port)]) as fleet:
            answers = [await heard(fleet, stream=stream) for _ in range(3)]
            assert [status for status, _ in answers] == [200] * 3


async def test_a_stream_without_end_is_ended() -> None:
    """Twice the tokens that were asked for and 64 events more; another engine is not troubled with it."""
    async with engine(STREAM + chunk(EVENT), again=True) as port, gateway([replica("r0", port)]) as fleet:
        status, text = await heard(fleet, stream=True, max_tokens=100)
        assert status == 200
        assert "did not stop after 264 events" in text.split("\n\n")[-2]
        assert 264 <= text.count('"content":"x"') < 5000  # what came in one piece with the last one is passed on
        await until(fleet.idle)


async def test_comments_without_end_are_no_answer() -> None:
    beats = STREAM + chunk(b": ping\n\n" * 16)
    async with engine(beats, again=True) as port, gateway([replica("r0", port)]) as fleet:
        status, text = await heard(fleet, stream=True, max_tokens=4)
        assert (status, "did not stop" in text) == (200, True)


@pytest.mark.parametrize("choices", [1, 4])
async def test_whatever_vllm_may_send_is_no_endless_stream(choices: int) -> None:
    """The role, every token of every choice, the ends and the usage: nothing of it is cut."""
    events = EVENT * (choices * 22 + 1)
    answer = STREAM + chunk(events) + chunk(DONE) + b"0\r\n\r\n"
    async with engine(answer) as port, gateway([replica("r0", port)]) as fleet:
        _, text = await heard(fleet, stream=True, max_tokens=20, n=choices)
        assert text.endswith("data: [DONE]\n\n")
        assert text.count('"content":"x"') == choices * 22 + 1


async def test_an_answer_in_one_piece_without_end_is_ended() -> None:
    endless = STREAM.replace(b"text/event-stream", b"application/json") + chunk(b" " * 65_536)
    small = Limits(answer_bytes=1 << 20)
    async with engine(endless, again=True) as port, gateway([replica("r0", port)], small) as fleet:
        status, text = await heard(fleet, stream=False)
        assert (status, '"code":"endless_answer"' in text) == (502, True)
        assert "set max_tokens" in text
        await until(fleet.idle)


async def test_a_client_that_half_closes_is_taken_to_have_left() -> None:
    """It may still read, but nobody can tell that from one whose machine has gone; curl and every SDK keep it open."""
    async with rig(1) as fleet:
        fleet.engines[0].faults.fault = "hang"
        address = fleet.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(address[0], int(address[1]))
        body = str(hello()).replace("'", '"').encode()
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await until(lambda: fleet.engines[0].seen.running)
        writer.write_eof()
        await until(lambda: fleet.engines[0].seen.cancelled, 1.0)
        assert await reader.read() == b""
        writer.close()


async def test_a_client_that_vanishes_in_its_body_costs_nothing() -> None:
    async with rig(1, limits=Limits(body_stall_seconds=0.2)) as fleet:
        address = fleet.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(address[0], int(address[1]))
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{")
        async with asyncio.timeout(5):
            assert b" 408 " in await reader.readline()
        writer.close()
        assert fleet.engines[0].seen.requests == 0
        assert fleet.idle()
