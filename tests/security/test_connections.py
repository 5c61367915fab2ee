"""S10: what one connection may take of time, bytes and places, and what many of them take of memory and of others."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psutil
import pytest

from benchmarks.slow_clients import Crowd, Kind, measure, run_gateway
from tests.fakes import engine as fake
from tests.gateway.rig import KEY, Rig, rig, until
from tests.security.raw_requests import BODY, GOOD, LENGTH
from vlfleet.gateway.connection import LIMITS, ConnectionLimits, client_of, most_connections

FAST = ConnectionLimits(header_seconds=0.3, idle_seconds=0.6, write_stall_seconds=0.5)
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: " + LENGTH


def port_of(fleet: Rig) -> int:
    return int(fleet.url.rsplit(":", 1)[1])


@asynccontextmanager
async def connect(fleet: Rig) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(fleet))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def closed_after(reader: asyncio.StreamReader, seconds: float = 5.0) -> tuple[float, bytes]:
    """Seconds until the gateway closes, and what it said before."""
    begun = time.monotonic()
    async with asyncio.timeout(seconds):
        try:
            said = await reader.read()
        except ConnectionResetError:
            said = b""
    return time.monotonic() - begun, said


def test_the_limits_are_those_that_were_promised() -> None:
    assert (
        ConnectionLimits(
            header_seconds=10.0,
            header_bytes=32768,
            headers=100,
            idle_seconds=75.0,
            write_stall_seconds=30.0,
            most=16_384,
            most_a_client=4096,
        )
        == LIMITS
    )


@pytest.mark.parametrize("begins", [b"POST /v1/", HEAD + b"\r\nX", HEAD + b"\r\nX-A: "])
async def test_a_head_that_does_not_end_is_cut_off(begins: bytes) -> None:
    """However often a byte of it comes: the time is of the whole head."""
    async with rig(1, connections=FAST) as fleet, connect(fleet) as (reader, writer):
        begun = time.monotonic()
        ending = asyncio.create_task(closed_after(reader))
        while not ending.done():
            writer.write(begins)
            begins = b"a"
            await asyncio.sleep(0.02)
        _, said = await ending
        assert 0.25 < time.monotonic() - begun < 2.0
        assert said.startswith(b"HTTP/1.1 408 ")
        assert b'"code":"request_timeout"' in said
        assert fleet.engines[0].seen.requests == 0


async def test_the_head_of_a_second_request_is_timed_too() -> None:
    async with rig(1, connections=FAST) as fleet, connect(fleet) as (reader, writer):
        writer.write(GOOD["a request"])
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        writer.write(b"GET /")
        seconds, said = await closed_after(reader)
        assert 0.25 < seconds < 2.0
        assert b"HTTP/1.1 408 " in said


async def test_an_idle_connection_ends() -> None:
    async with rig(1, connections=FAST) as fleet, connect(fleet) as (reader, _):
        seconds, said = await closed_after(reader)
        assert 0.5 < seconds < 3.0
        assert said == b""


async def test_a_head_without_end_is_refused_by_its_size() -> None:
    async with rig(1) as fleet, connect(fleet) as (reader, writer):
        writer.write(HEAD + b"\r\n" + b"".join(b"X-%d: %s\r\n" % (n, b"a" * 4000) for n in range(9)))
        _, said = await closed_after(reader)
        assert said.startswith(b"HTTP/1.1 431 ")


async def test_a_body_that_stops_is_cut_off() -> None:
    from vlfleet.gateway import Limits

    async with rig(1, limits=Limits(body_stall_seconds=0.3)) as fleet, connect(fleet) as (reader, writer):
        writer.write(HEAD + b"\r\n\r\n" + BODY[:10])
        assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
        assert fleet.engines[0].seen.requests == 0


async def test_an_answer_in_one_piece_to_a_client_that_does_not_read() -> None:
    async with rig(1, connections=FAST) as fleet:
        fleet.engines[0].behaviour.answers = {"hello": "x" * (24 << 20)}
        with socket.create_connection(("127.0.0.1", port_of(fleet))) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.sendall(GOOD["a request"])
            await until(lambda: fleet.replicas[0].served == 1, 10.0)
            runner = fleet.connections
            await until(lambda: not runner.by_client, 5.0)


async def test_one_client_leaves_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlfleet.gateway.connection.client_of", lambda peer: "192.0.2.7")
    async with rig(1, connections=ConnectionLimits(most_a_client=3)) as fleet:
        held = [await asyncio.open_connection("127.0.0.1", port_of(fleet)) for _ in range(3)]
        await until(lambda: fleet.connections.by_client["192.0.2.7"] == 3)
        async with connect(fleet) as (reader, _):
            _, said = await closed_after(reader)
            assert said.startswith(b"HTTP/1.1 503 ")
            assert b"too_many_connections" in said
        held[0][1].transport.abort()
        await until(lambda: fleet.connections.by_client["192.0.2.7"] == 2)
        async with connect(fleet) as (reader, writer):
            writer.write(GOOD["a request"])
            assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        for _, writer in held[1:]:
            writer.transport.abort()
        await until(lambda: not fleet.connections.by_client)


async def test_the_longest_idle_connection_makes_room() -> None:
    async with rig(1, fake.Behaviour(tokens=100, token_seconds=0.03)) as fleet:
        fleet.connections.most = 3
        async with connect(fleet) as (busy, writer), connect(fleet) as (oldest, _), connect(fleet) as (younger, idle):
            writer.write(GOOD["a request"])
            await until(lambda: fleet.engines[0].seen.running == 1)
            async with connect(fleet) as (reader, asks):
                asks.write(GOOD["a request"].replace(b"hello", b"again"))
                await closed_after(oldest)
                await until(lambda: fleet.engines[0].seen.running == 2)
                idle.write(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
                assert (await younger.readline()).startswith(b"HTTP/1.1 200 ")
                assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
            assert (await busy.readline()).startswith(b"HTTP/1.1 200 ")
            assert fleet.connections.evicted == 1


async def test_when_all_are_busy_a_new_one_is_refused() -> None:
    async with rig(1, fake.Behaviour(tokens=100, token_seconds=0.03)) as fleet:
        fleet.connections.most = 1
        async with connect(fleet) as (_, writer):
            writer.write(GOOD["a request"])
            await until(lambda: fleet.engines[0].seen.running == 1)
            async with connect(fleet) as (reader, _):
                assert (await closed_after(reader))[1].startswith(b"HTTP/1.1 503 ")
            assert fleet.engines[0].seen.running == 1


@pytest.mark.parametrize(
    ("peer", "client"),
    [
        (("192.0.2.1", 5), "192.0.2.1"),
        (("::ffff:192.0.2.1", 5, 0, 0), "192.0.2.1"),
        (("2001:db8:1:2:3::4", 5, 0, 0), "2001:db8:1:2::/64"),
        (("2001:db8:1:2:ffff::1", 5, 0, 0), "2001:db8:1:2::/64"),
        (("127.0.0.1", 5), "local"),
        (("::1", 5, 0, 0), "local"),
        (("fe80::1%eth0", 5, 0, 2), "fe80::/64"),
        (None, "local"),
        ("/run/x.sock", "local"),
    ],
)
def test_what_counts_as_one_client(peer: Any, client: str) -> None:
    assert client_of(peer) == client


def test_descriptors_are_enough_for_both_sides() -> None:
    import resource

    most = most_connections()
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft == resource.RLIM_INFINITY or 2 * most <= soft
    assert most >= 16


async def test_memory_of_a_connection() -> None:
    """Below 64 KiB, idle or with half a head."""
    async with fake.serve(fake.Behaviour(key=KEY)) as engine, run_gateway([engine.port]) as (process, port):
        async with Crowd(port, 50, Kind.SLOW_HEAD):
            pass  # what is allocated once
        for kind in (Kind.IDLE, Kind.SLOW_HEAD, Kind.SLOW_BODY):
            before = psutil.Process(process.pid).memory_info().rss
            async with Crowd(port, 500, kind):
                grown = psutil.Process(process.pid).memory_info().rss - before
            assert grown / 500 < 64 << 10, kind


async def test_slow_clients_cost_others_little() -> None:
    """`benchmarks/slow_clients.py` has 500 of them, and the figure of 2x for p99; here other tests make that noise."""
    report = await measure(clients=100, requests=100)
    assert report["failed"] == 0
    assert all(each["p50_ms"] < 3 * report["alone"]["p50_ms"] + 5 for each in report["beside"].values())
