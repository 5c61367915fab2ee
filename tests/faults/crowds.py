"""Drills: more than a fleet can do, and clients that want nothing or do not read."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import socket
import time

import aiohttp
import psutil

from tests.faults.load import REFUSED, Load, ask, body, percentile
from tests.faults.outcome import Outcome
from tests.faults.stand import Stand, stand

SLOW = ("--prefill-seconds", "0.04", "--tokens", "4")
"""An engine of 25 requests/s: while it reads one prompt, nobody else gets a token."""
REJECT_SECONDS = 0.02


async def peak(url: str, clients: int, seconds: float) -> float:
    """Answers a second with so many clients that ask one after another."""
    end = time.monotonic() + seconds

    async def client(session: aiohttp.ClientSession, first: int) -> int:
        answered = 0
        while time.monotonic() < end:
            said = body(first * 100_000 + answered, stream=bool(first % 2))
            answered += (await ask(session, url, said)).good
        return answered

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        began = time.monotonic()
        counts = await asyncio.gather(*(client(session, at) for at in range(clients)))
        return sum(counts) / (time.monotonic() - began)


async def overload(*, times: float = 4.0, seconds: float = 10.0, patience: float = 5.0) -> Outcome:
    """Four times what two engines can do, from clients that give an answer `patience` seconds (R7)."""
    async with stand(2, SLOW) as fleet:
        await peak(fleet.url, 8, 2.0)  # the route learns what the engines cost
        best = await peak(fleet.url, 16, 4.0)
        said = {"X-Request-Timeout": str(patience)}
        async with Load(fleet.url, times * best, headers=said, patience_seconds=patience + 1.0) as load:
            began = time.monotonic()
            await asyncio.sleep(seconds)
        ended = max(each.at + each.seconds for each in load.asked if each.good)
        kept = sum(each.good for each in load.asked) / (ended - began)
        in_time = sum(each.good and each.first_seconds <= patience for each in load.asked) / (ended - began)
    rejects = [each for each in load.asked if each.end == REFUSED]
    at_once = [each.seconds for each in rejects if each.seconds < 1.0]
    p50, p99 = percentile(at_once, 0.5), percentile(at_once, 0.99)
    honest = all(each.detail.startswith(("503", "429")) and each.detail[4] != "-" for each in rejects)
    return Outcome(
        f"{times:g} times what it can do",
        "R7",
        "90 % of the peak's answers, begun in their time; rejects within 20 ms, with Retry-After",
        in_time >= 0.9 * best and p99 < REJECT_SECONDS and honest,
        {
            "peak_per_s": round(best, 1),
            "offered_per_s": round(len(load.asked) / seconds, 1),
            "answers_per_s": round(kept, 1),
            "in_time_per_s": round(in_time, 1),
            "kept_in_time": round(in_time / best, 3),
            "rejects": len(rejects),
            "at_once": len(at_once),
            "reject_p50_ms": round(p50 * 1e3, 1),
            "reject_p99_ms": round(p99 * 1e3, 1),
            "answer_p99_s": round(load.percentile(0.99), 2),
        },
        sees="an answer in its time, or 503 with Retry-After at once",
        trouble="" if honest else next(each.detail for each in rejects if each.detail[:3] not in ("503", "429")),
    )


def raise_descriptors(wanted: int) -> int:
    """Lets this process and its children have so many descriptors, where that is allowed; how many they can have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
    elif soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


async def idle(*, connections: int = 10_000) -> Outcome:
    """So many connections that ask once and then nothing (R10)."""
    connections = min(connections, (raise_descriptors(2 * connections + 4096) - 1024) // 2)
    async with stand(1, ("--tokens", "4")) as fleet:
        calm = await _percentile(fleet)
        gateway = psutil.Process(fleet.pid)
        before = gateway.memory_info().rss
        host, port = fleet.url.removeprefix("http://").split(":")
        held: list[asyncio.StreamWriter] = []
        for _ in range(0, connections, 100):
            opened = await asyncio.gather(*(_one_that_stays(host, int(port)) for _ in range(100)))
            held += opened
        each_bytes = (gateway.memory_info().rss - before) / len(held)
        descriptors = gateway.num_fds()
        crowded = await _percentile(fleet)
        alive = sum(not writer.transport.is_closing() for writer in held)
        for writer in held:
            writer.close()
        await fleet.until(lambda: gateway.num_fds() < descriptors - len(held) + 100, 10.0)
    return Outcome(
        "idle connections",
        "R10",
        "all are held, less than 64 KiB each, p99 of others under 2 x, or 40 ms",
        alive == len(held) and each_bytes < 65_536 and crowded < 2 * max(calm, 0.02),
        {
            "connections": len(held),
            "held": alive,
            "KiB_each": round(each_bytes / 1024, 1),
            "p99_before_ms": round(calm * 1e3, 1),
            "p99_with_ms": round(crowded * 1e3, 1),
        },
        sees="nothing",
    )


async def _one_that_stays(host: str, port: int) -> asyncio.StreamWriter:
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b"GET /health HTTP/1.1\r\nHost: vlfleet\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    return writer


async def _percentile(fleet: Stand, seconds: float = 4.0, tokens: int = 4) -> float:
    async with Load(fleet.url, 50.0, max_tokens=tokens) as load:
        await asyncio.sleep(seconds)
    assert not load.failed(), load.failed()[0]
    return load.percentile(0.99)


async def slow_readers(*, readers: int = 20) -> Outcome:
    """Clients that ask for long streams and do not read them (R10, S10)."""
    async with stand(1, ("--tokens", "100000", "--token-seconds", "0")) as fleet:
        calm = await _percentile(fleet, tokens=8)
        gateway = psutil.Process(fleet.pid)
        before = gateway.memory_info().rss
        host, port = fleet.url.removeprefix("http://").split(":")
        held = [_one_that_does_not_read(host, int(port), at) for at in range(readers)]
        await fleet.engine_has("r0", readers)
        await _standstill(fleet)
        crowded = await _percentile(fleet, tokens=8)
        each_bytes = (gateway.memory_info().rss - before) / readers
        running = (await fleet.seen("r0"))["running"]
        for each in held:
            each.close()
        await fleet.engine_has("r0", 0)
    return Outcome(
        "clients that do not read",
        "R10",
        "p99 of others under 2 x, or 20 ms",
        crowded < 2 * max(calm, 0.01) and running == readers,
        {
            "readers": readers,
            "KiB_each": round(each_bytes / 1024, 1),
            "p99_before_ms": round(calm * 1e3, 1),
            "p99_with_ms": round(crowded * 1e3, 1),
        },
        sees="whoever does not read for 30 s is cut",
    )


def _one_that_does_not_read(host: str, port: int, at: int) -> socket.socket:
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    held.connect((host, port))
    said = json.dumps(body(at, stream=True)).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: vlfleet\r\nContent-Length: %d\r\n\r\n"
    held.sendall(head % len(said) + said)
    return held


async def _standstill(fleet: Stand) -> None:
    """Returns when the engine makes no token any more, as nobody takes them."""
    made = -1
    while (now := (await fleet.seen("r0"))["generated_tokens"]) != made:
        made = now
        await asyncio.sleep(0.5)
