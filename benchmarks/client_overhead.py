"""What the client costs: CPU time of this process for one request, beside aiohttp used by hand and the openai SDK.

One fake engine (a process of its own, no model) streams 64 tokens. By hand means what a person would write: read the
file, encode it, post the JSON, read the events line by line. Each way asks in turns, so that whatever else the machine
does hits all of them; the figure is the median over the turns. The reach: at most 2 ms more than by hand.

    python -m benchmarks.client_overhead [--requests 20] [--turns 9] [--tokens 64]
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import gc
import io
import os
import platform
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import openai
import orjson
from PIL import Image

from vlfleet.client import AsyncClient, Client

MODEL = "fake-vl"
QUESTION = "What is the total?"
PICTURES = {"text only": 0, "60 KB JPEG": 60_000, "2 MB JPEG": 2_000_000}
REACH_SECONDS = 0.002

Ask = Callable[[], Awaitable[str]]


def picture(size_bytes: int, folder: Path) -> Path:
    """A grey JPEG of about this size; its noise does not compress."""
    side = round((size_bytes * 1.05) ** 0.5)
    noise = Image.frombytes("L", (side, side), random.Random(1).randbytes(side * side))
    file = io.BytesIO()
    noise.save(file, "JPEG", quality=85)
    path = folder / f"{size_bytes}.jpg"
    path.write_bytes(file.getvalue())
    return path


def content(path: Path | None) -> Any:
    if path is None:
        return QUESTION
    url = "data:image/jpeg;base64," + base64.b64encode(path.read_bytes()).decode()
    return [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": QUESTION}]


async def by_hand(session: aiohttp.ClientSession, url: str, path: Path | None) -> str:
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": content(path)}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    text = ""
    data = io.BytesIO(orjson.dumps(body))
    async with session.post(f"{url}/v1/chat/completions", data=data) as response:
        async for line in response.content:
            if not line.startswith(b"data:") or line.startswith(b"data: [DONE]"):
                continue
            for choice in orjson.loads(line[5:])["choices"]:
                text += choice["delta"].get("content") or ""
    return text


async def by_openai(client: openai.AsyncOpenAI, path: Path | None) -> str:
    text = ""
    messages: Any = [{"role": "user", "content": content(path)}]
    async for chunk in await client.chat.completions.create(model=MODEL, messages=messages, stream=True):
        for choice in chunk.choices:
            text += choice.delta.content or ""
    return text


async def cpu_seconds(ask: Ask, requests: int) -> float:
    """Of one request, threads of this process included."""
    began = time.process_time()
    for _ in range(requests):
        assert await ask()
    return (time.process_time() - began) / requests


async def measure(url: str, path: Path | None, args: argparse.Namespace) -> dict[str, list[float]]:
    images = [path] if path else []
    found: dict[str, list[float]] = {}
    async with (
        aiohttp.ClientSession() as session,
        AsyncClient(url, model=MODEL) as client,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as sdk,
    ):
        blocking = Client(url, model=MODEL)

        async def asynchronous() -> str:
            return (await client.ask(QUESTION, images)).text

        async def synchronous() -> str:
            return (await asyncio.to_thread(blocking.ask, QUESTION, images)).text

        ways: dict[str, Ask] = {
            "by hand": lambda: by_hand(session, url, path),
            "AsyncClient": asynchronous,
            "Client": synchronous,
            "openai SDK": lambda: by_openai(sdk, path),
        }
        for ask in ways.values():
            await cpu_seconds(ask, 3)
        gc.collect()
        for _ in range(args.turns):
            for name, ask in ways.items():
                found.setdefault(name, []).append(await cpu_seconds(ask, args.requests))
        blocking.close()
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def engine(port: int, tokens: int) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "tests.fakes.engine", "--port", str(port), "--tokens", str(tokens)]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 30
    while time.monotonic() < end:
        with socket.socket() as probe:
            if not probe.connect_ex(("127.0.0.1", port)):
                return process
        time.sleep(0.05)
    raise RuntimeError("the fake engine does not listen")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=20, help="a turn")
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--tokens", type=int, default=64)
    args = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"CPU ms a request, {args.tokens} tokens streamed; median of {args.turns} turns of {args.requests}")
    port = free_port()
    process = engine(port, args.tokens)
    worst = 0.0
    try:
        with tempfile.TemporaryDirectory() as folder:
            for name, size in PICTURES.items():
                path = picture(size, Path(folder)) if size else None
                found = asyncio.run(measure(f"http://127.0.0.1:{port}", path, args))
                medians = {way: statistics.median(each) for way, each in found.items()}
                more = [mine - hand for mine, hand in zip(found["AsyncClient"], found["by hand"], strict=True)]
                worst = max(worst, statistics.median(more))
                shown = "  ".join(f"{way} {seconds * 1e3:.2f}" for way, seconds in medians.items())
                print(f"{name:>11}: {shown}   AsyncClient - by hand {statistics.median(more) * 1e3:+.2f}")
    finally:
        process.terminate()
        process.wait()
    reached = worst <= REACH_SECONDS
    print(f"reach (at most {REACH_SECONDS * 1e3:.0f} ms more than by hand): {'yes' if reached else 'NO'}")
    raise SystemExit(0 if reached else 4)


if __name__ == "__main__":
    main()
