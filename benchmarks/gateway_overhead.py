"""What the gateway adds to the time to first token.

One fake engine (64 chunks a stream, no model) is asked directly and through the gateway, in turns, at 50 requests/s in
an open loop; engine and gateway are processes of their own. R15 asks for p50 <= 2 ms and p99 <= 10 ms.

    python -m benchmarks.gateway_overhead [--rate 50] [--seconds 5] [--rounds 4]
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import os
import platform
import random
import socket
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import psutil
from PIL import Image

MODEL = "fake-vl"
KEY = "bench"
CHUNKS = 64
CHUNK_SECONDS = 0.005
"""Between chunks, about as fast as a small model on one GPU; the first comes at once."""


@dataclass(frozen=True)
class Sample:
    """Seconds of one request. `lag` is how late the client sent it: above a few ms its figures are the client's."""

    ttft: float
    total: float
    lag: float


def body(size_bytes: int) -> bytes:
    """A chat of about this size; the large one carries a real JPEG, whose noise does not compress."""
    parts: list[dict[str, object]] = [{"type": "text", "text": "x" * 1800}]
    if size_bytes > 1 << 20:
        side = round((size_bytes * 1.05) ** 0.5)
        noise = Image.frombytes("L", (side, side), random.Random(1).randbytes(side * side))
        file = io.BytesIO()
        noise.save(file, "JPEG", quality=85)
        link = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
        parts.insert(0, {"type": "image_url", "image_url": {"url": link}})
    return json.dumps({"model": MODEL, "stream": True, "messages": [{"role": "user", "content": parts}]}).encode()


async def request(session: aiohttp.ClientSession, url: str, data: bytes, due: float) -> Sample:
    sent = time.perf_counter()
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    async with session.post(url, data=io.BytesIO(data), headers=headers) as answer:
        first = 0.0
        tail = b""
        async for chunk in answer.content.iter_any():
            first = first or time.perf_counter()
            tail = (tail + chunk)[-32:]
        assert answer.status == 200
        assert tail.endswith(b"[DONE]\n\n")
    return Sample(first - sent, time.perf_counter() - sent, sent - due)


async def load(base_url: str, data: bytes, rate: float, seconds: float) -> list[Sample]:
    """An open loop: requests leave on schedule, whether or not earlier ones have come back."""
    url = f"{base_url}/v1/chat/completions"
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=60)) as session:
        start, tasks = time.perf_counter() + 0.1, []
        for n in range(int(rate * seconds)):
            due = start + n / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.append(asyncio.create_task(request(session, url, data, due)))
        return await asyncio.gather(*tasks)


@asynccontextmanager
async def process(*argv: str) -> AsyncIterator[tuple[str, psutil.Process]]:
    """A server started with `--port N`; yields its URL once /health answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    env = {**os.environ, "VLFLEET_ENGINE_KEY": KEY}
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *argv, "--port", str(port), env=env, stdout=asyncio.subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    try:
        async with aiohttp.ClientSession() as session:
            while True:
                try:
                    async with session.get(f"{url}/health"):
                        break
                except aiohttp.ClientConnectorError:
                    await asyncio.sleep(0.05)
        yield url, psutil.Process(child.pid)
    finally:
        child.terminate()
        await child.wait()


async def run_gateway(port: int, engine_port: int) -> None:
    from vlfleet.fleet.replica import Phase, Replica
    from vlfleet.gateway import build_app, serve

    replica = Replica("r0", engine_port, KEY, "fake", phase=Phase.READY)
    app = build_app([replica], served_model_name=MODEL, on_unreachable=lambda replica: None, draining=asyncio.Event())
    await serve(app, "127.0.0.1", port)
    await asyncio.Event().wait()


LATE_MS = 10.0
"""When the client itself is later than this, its machine is too busy for the row to mean anything."""


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def measure(args: argparse.Namespace) -> None:
    machine = f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
    print(f"{machine}, load {os.getloadavg()[0]:.1f} at the start")
    print(f"{args.rate:.0f} requests/s, {CHUNKS} chunks each, {args.rounds} rounds of {args.seconds:.0f} s, in turns\n")
    print(
        "| body | TTFT direct p50 / p99 ms | through p50 / p99 ms | added p50 / p99 ms | CPU ms | client lag p99 ms |"
    )
    print("|---|---|---|---|---|---|")
    async with (
        process("tests.fakes.engine", "--tokens", str(CHUNKS), "--token-seconds", str(CHUNK_SECONDS)) as (
            engine_url,
            _,
        ),
        process("benchmarks.gateway_overhead", "--engine-port", engine_url.rsplit(":", 1)[1]) as (url, gateway),
    ):
        for name, size in (("2 KB", 2 << 10), ("2 MB", 2 << 20)):
            data = body(size)
            samples: dict[str, list[Sample]] = {engine_url: [], url: []}
            cpu = 0.0
            for each in (engine_url, url):
                await load(each, data, args.rate, 0.5)
            for _ in range(args.rounds):
                for each in (engine_url, url):
                    before = cpu_seconds(gateway)
                    samples[each] += await load(each, data, args.rate, args.seconds)
                    cpu += cpu_seconds(gateway) - before if each == url else 0.0
            row(name, len(data), samples[engine_url], samples[url], cpu)


def row(name: str, size: int, direct: list[Sample], through: list[Sample], cpu: float) -> None:
    a, b = ([1000 * sample.ttft for sample in each] for each in (direct, through))
    lag = percentile([1000 * sample.lag for sample in direct + through], 0.99)
    p50 = statistics.median(b) - statistics.median(a)
    p99 = percentile(b, 0.99) - percentile(a, 0.99)
    figures = (
        f"{name} ({size} bytes)",
        f"{statistics.median(a):.2f} / {percentile(a, 0.99):.2f}",
        f"{statistics.median(b):.2f} / {percentile(b, 0.99):.2f}",
        f"**{p50:+.2f} / {p99:+.2f}**",
        f"{1000 * cpu / len(through):.2f}",
        f"{lag:.1f}" + (" (too busy, run again)" if lag > LATE_MS else ""),
    )
    print("| " + " | ".join(figures) + " |", flush=True)


def main() -> None:
    import uvloop

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=50.0)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--engine-port", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    uvloop.run(run_gateway(args.port, args.engine_port) if args.engine_port else measure(args))


if __name__ == "__main__":
    main()
