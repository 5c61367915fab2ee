"""S4 and S5 against a gateway in a process of its own: what bodies and bombs cost it in time and memory."""

from __future__ import annotations

import asyncio
import io
import json
import statistics
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import psutil
import pytest

from benchmarks.slow_clients import run_gateway
from tests.fakes import engine as fake
from tests.fuzz.targets import data_url
from tests.gateway.rig import KEY, MODEL
from tests.media.pictures import bomb_png, empty_png
from tests.media.videos import mp4, track
from vlfleet.gateway.admission import LIMITS

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n"


class Gateway:
    """Its port, and what it takes of memory."""

    def __init__(self, port: int, pid: int, engine: fake.Engine, http: aiohttp.ClientSession) -> None:
        self.port, self.engine, self.http = port, engine, http
        self._process = psutil.Process(pid)

    @property
    def rss(self) -> int:
        return int(self._process.memory_info().rss)

    async def post(self, body: bytes) -> tuple[int, Any]:
        url = f"http://127.0.0.1:{self.port}/v1/chat/completions"
        async with self.http.post(url, data=io.BytesIO(body)) as answer:
            return answer.status, await answer.json()


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with (
        fake.serve(fake.Behaviour(key=KEY, tokens=1)) as engine,
        run_gateway([engine.port]) as (process, port),
        aiohttp.ClientSession() as http,
    ):
        made = Gateway(port, process.pid, engine, http)
        await made.post(chat(data_url(empty_png(64, 64))))
        yield made


def chat(url: str, kind: str = "image_url") -> bytes:
    content = [{"type": "text", "text": "what"}, {"type": kind, kind: {"url": url}}]
    return json.dumps({"model": MODEL, "messages": [{"role": "user", "content": content}]}).encode()


async def test_a_body_beyond_the_cap_ends_at_the_cap(gateway: Gateway) -> None:
    """In chunks, so that no length announces it: the answer comes within a chunk of the cap, and memory stays flat."""
    before, sent, most = gateway.rss, 0, 0
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    answering = asyncio.create_task(reader.readline())
    piece = b"%x\r\n%s\r\n" % (1 << 20, b" " * (1 << 20))
    while not answering.done() and sent < 3 * LIMITS.body_bytes:
        writer.write(piece)
        sent += 1 << 20
        most = max(most, gateway.rss)
        await asyncio.sleep(0.005)
    writer.transport.abort()
    assert (await answering).split()[1] == b"413"
    assert LIMITS.body_bytes <= sent <= LIMITS.body_bytes + (24 << 20), "what the sockets between hold"
    assert most - before < 2 * LIMITS.body_bytes
    assert gateway.engine.seen.requests == 1


async def test_a_length_beyond_the_cap_is_refused_unread(gateway: Gateway) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % (LIMITS.body_bytes + 1))
    async with asyncio.timeout(2):
        assert (await reader.readline()).split()[1] == b"413"
    writer.transport.abort()


def lying(size: int) -> bytes:
    """An MP4 whose index says that it is `size` bytes long."""
    whole = mp4(track(640, 480, [(30, 33)]))
    at = whole.index(b"moov") - 4
    return whole[:at] + size.to_bytes(4, "big") + whole[at + 4 :]


BOMBS: dict[str, tuple[str, str]] = {
    "a PNG of 30,000 x 30,000": (data_url(bomb_png(30_000)), "image_url"),
    "a PNG of 2 million x 2 million": (data_url(empty_png(2_000_000, 2_000_000)), "image_url"),
    "a line": (data_url(empty_png(16_000, 1)), "image_url"),
    "no picture": (data_url(bytes(4 << 20)), "image_url"),
    "a video of 65,535 x 65,535": (data_url(mp4(track(65_535, 65_535, [(9, 1)])), "video/mp4"), "video_url"),
    "a video whose index lies": (data_url(lying(0x7FFFFFFF), "video/mp4"), "video_url"),
    "a video of 10,000 tiny frames": ("data:video/jpeg;base64," + "," * 10_000, "video_url"),
    "an SVG": (data_url(b"<svg>" * 1000, "image/svg+xml"), "image_url"),
}


@pytest.mark.parametrize("name", BOMBS)
async def test_a_bomb(gateway: Gateway, name: str) -> None:
    """Below 5 ms and 5 MiB each (beyond the body itself, which is read first)."""
    body = chat(*BOMBS[name])
    plain = chat("data:image/png;base64," + "A" * len(body)).replace(b'"image_url"', b'"text"')
    await gateway.post(body)
    refused = [await timed(gateway, body, 400) for _ in range(9)]
    before = gateway.rss
    for _ in range(20):
        await gateway.post(body)
    assert gateway.rss - before < 5 << 20
    read = [await timed(gateway, plain, None) for _ in range(9)]
    assert statistics.median(refused) - statistics.median(read) < 0.005
    assert gateway.engine.seen.requests <= 1 + len(read)


async def timed(gateway: Gateway, body: bytes, status: int | None) -> float:
    begun = time.perf_counter()
    got, answer = await gateway.post(body)
    if status:
        assert got == status, answer
        assert answer["error"]["param"] == "messages[0].content[1]"
    return time.perf_counter() - begun
