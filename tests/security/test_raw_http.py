"""S9: what two programs could read differently is refused, the connection closed, and nothing of it is forwarded."""

from __future__ import annotations

import asyncio
import json
import re

import pytest

from tests.gateway.rig import rig
from tests.security.raw_requests import CORPUS, GOOD, SMUGGLED

PATIENCE_SECONDS = 5.0
STATUS = {
    "a header of 33 KiB": 431,
    "three headers of 12 KiB": 431,
    "a path of 33 KiB": 431,
    "a compressed body": 415,
}
"""All others: 400."""


async def exchange(port: int, request: bytes) -> bytes:
    """What comes back until the server closes. TimeoutError: it did not."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await reader.read()
    except ConnectionError:  # closed with something of the request unread
        return b""
    finally:
        writer.transport.abort()


def port_of(url: str) -> int:
    return int(url.rsplit(":", 1)[1])


def test_the_corpus_is_large_enough() -> None:
    assert len(CORPUS) >= 60
    assert len(set(CORPUS.values())) == len(CORPUS)


@pytest.mark.parametrize("name", CORPUS)
async def test_refused_closed_and_not_forwarded(name: str) -> None:
    async with rig(1) as fleet:
        answer = await exchange(port_of(fleet.url), CORPUS[name])
        head, _, body = answer.partition(b"\r\n\r\n")
        assert re.match(rb"HTTP/\d\.\d %d " % STATUS.get(name, 400), head), answer[:200]
        assert len(re.findall(rb"HTTP/\d\.\d \d", answer)) == 1
        assert b"aiohttp" not in head
        error = json.loads(body)["error"]
        assert error["type"] == "invalid_request_error"
        assert b"Traceback" not in answer
        assert fleet.engines[0].seen.requests == 0


@pytest.mark.parametrize("name", GOOD)
async def test_what_is_right_is_answered(name: str) -> None:
    async with rig(1) as fleet:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(fleet.url))
        writer.write(GOOD[name])
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert re.match(rb"HTTP/1\.[01] 200 ", await reader.readline())
        writer.transport.abort()
        assert fleet.engines[0].seen.requests == 1


async def test_requests_behind_one_another_are_two() -> None:
    async with rig(1) as fleet:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(fleet.url))
        writer.write(SMUGGLED + SMUGGLED.replace(b"Host: a", b"Host: a\r\nConnection: close"))
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert (await reader.read()).count(b"HTTP/1.1 200 ") == 2
        writer.transport.abort()
        assert fleet.engines[0].seen.requests == 2
