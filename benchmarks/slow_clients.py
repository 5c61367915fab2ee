"""What clients that are slow on purpose cost a gateway's memory and everybody else's time:

python -m benchmarks.slow_clients [--clients 500] [--requests 2000] [--port PORT --pid PID]

Without --port it measures vlfleet's gateway, in a process of its own before a fake engine. With it, any server on
127.0.0.1 that answers POST /v1/chat/completions.
"""

from __future__ import annotations

import argparse
import asyncio
import enum
import json
import statistics
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import psutil

from tests.fakes import engine as fake
from tests.gateway.rig import KEY, MODEL

DRIP_SECONDS = 1.0
PACE_SECONDS = 0.004
"""Between two requests of those who do nothing wrong: 250 a second at most, which leaves the CPU idle."""
BODY = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}).encode()
LONG = BODY.replace(b"hello", b"a long answer").replace(b'"max_tokens": 1', b'"n": 1')
ANSWER = fake.Behaviour(key=KEY, tokens=1, answers={"a long answer": "x" * (128 << 10)})


class Kind(enum.StrEnum):
    """How a client is slow."""

    IDLE = "idle"
    SLOW_HEAD = "slow head"
    SLOW_BODY = "slow body"
    SLOW_READER = "slow reader"


HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
BEGINNING = {
    Kind.IDLE: b"",
    Kind.SLOW_HEAD: HEAD + b"X-A: ",
    Kind.SLOW_BODY: HEAD + b"Content-Length: 100000\r\n\r\n{",
    Kind.SLOW_READER: HEAD + b"Content-Length: %d\r\n\r\n" % len(LONG) + LONG,
}


class Crowd:
    """Slow clients of one kind, for as long as the context lasts. One that is cut off comes again."""

    def __init__(self, port: int, clients: int, kind: Kind) -> None:
        self._port, self._clients, self._kind = port, clients, kind
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Crowd:
        for start in range(0, self._clients, 100):
            count = min(100, self._clients - start)
            self._writers += await asyncio.gather(*(self._connect() for _ in range(count)))
        self._drip = asyncio.create_task(self._keep_slow())
        await asyncio.sleep(0.2)
        return self

    async def __aexit__(self, *error: object) -> None:
        self._drip.cancel()
        await asyncio.gather(self._drip, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0.1)

    async def _connect(self) -> asyncio.StreamWriter:
        _reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1)
        writer.write(BEGINNING[self._kind])
        return writer

    async def _keep_slow(self) -> None:
        while True:
            await asyncio.sleep(DRIP_SECONDS)
            for at, writer in enumerate(self._writers):
                if writer.transport.is_closing():
                    with suppress(OSError):
                        self._writers[at] = await self._connect()
                elif self._kind in (Kind.SLOW_HEAD, Kind.SLOW_BODY):
                    writer.write(b" ")


@asynccontextmanager
async def run_gateway(engine_ports: Sequence[int]) -> AsyncIterator[tuple[Process, int]]:
    """vlfleet's gateway as a process, and its port."""
    words = map(str, engine_ports)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.security.gateway_process", *words, stdout=PIPE
    )
    try:
        assert process.stdout
        yield process, int(await process.stdout.readline())
    finally:
        process.terminate()
        await process.wait()


async def good_traffic(port: int, requests: int) -> tuple[list[float], int]:
    """Seconds of each request of somebody who does nothing wrong, and how many failed."""
    seconds, failed = [], 0
    async with aiohttp.ClientSession() as session:
        for _ in range(requests):
            begun = time.perf_counter()
            async with session.post(
                f"http://127.0.0.1:{port}/v1/chat/completions", data=BODY, headers=HEADERS
            ) as answer:
                await answer.read()
            seconds.append(time.perf_counter() - begun)
            failed += answer.status != 200
            await asyncio.sleep(PACE_SECONDS)
    return seconds, failed


HEADERS = {"Content-Type": "application/json"}


def figures(seconds: Sequence[float]) -> dict[str, float]:
    cuts = statistics.quantiles(seconds, n=100)
    return {"p50_ms": round(cuts[49] * 1e3, 2), "p99_ms": round(cuts[98] * 1e3, 2)}


async def measure(clients: int, requests: int, port: int = 0, pid: int = 0) -> dict[str, Any]:
    """Times of good traffic alone and beside each kind of slow clients, and memory for each of these."""
    if port:
        return await _measure(clients, requests, port, pid)
    reports = []
    async with fake.serve(ANSWER) as engine:
        for kind in Kind:  # memory that one kind has left would hide what the next one takes
            async with run_gateway([engine.port]) as (process, own):
                reports.append(await _measure(clients, requests, own, process.pid, (kind,)))
    alone = min((each["alone"] for each in reports), key=lambda each: float(each["p99_ms"]))
    beside = {name: facts for each in reports for name, facts in each["beside"].items()}
    return {"clients": clients, "failed": sum(each["failed"] for each in reports), "alone": alone, "beside": beside}


async def _measure(
    clients: int, requests: int, port: int, pid: int, kinds: Sequence[Kind] = tuple(Kind)
) -> dict[str, Any]:
    await good_traffic(port, 50)
    alone, failed = await good_traffic(port, requests)
    beside = {}
    for kind in kinds:
        before = memory(pid)
        async with Crowd(port, clients, kind):
            kib = (memory(pid) - before) / clients / 1024
            seconds, more = await good_traffic(port, requests)
        failed += more
        beside[kind.value] = {**figures(seconds), "kib_a_connection": round(kib, 1)}
    return {"clients": clients, "failed": failed, "alone": figures(alone), "beside": beside}


def memory(pid: int) -> int:
    """Resident bytes of a process and its children."""
    if not pid:
        return 0
    process = psutil.Process(pid)
    return sum(each.memory_info().rss for each in (process, *process.children(recursive=True)))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.slow_clients", description=__doc__)
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--port", type=int, default=0, help="of another server on 127.0.0.1")
    parser.add_argument("--pid", type=int, default=0, help="of that server")
    options = parser.parse_args()
    print(json.dumps(asyncio.run(measure(options.clients, options.requests, options.port, options.pid)), indent=2))


if __name__ == "__main__":
    main()
