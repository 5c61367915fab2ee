"""The embedded engine on this machine: start-up, one answer, and what a second replica adds.

    python -m benchmarks.embedded [--rounds 3] [--requests 64] [-- --dtype bfloat16]

Every row comes from a fleet started for it with `vlfleet up`, asked over HTTP through its gateway. Rows take turns, so
that a neighbour's load meets all of them; the median of the rounds is printed. Each request has a picture of its own.
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
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import aiohttp
import torch
import transformers
from PIL import Image, ImageDraw

TOKENS = 20
IN_FLIGHT = (4, 8, 16, 32)
"""Requests that clients keep in flight, all replicas together; one replica decodes at most 16 at once."""


@dataclass(frozen=True)
class Setting:
    """One row: replicas, and the threads that each computes with."""

    replicas: int
    threads: int


@dataclass(frozen=True)
class Result:
    """Seconds and rates of one fleet in one round."""

    up_seconds: float
    answer_seconds: float
    requests_per_second: dict[int, float]
    """By requests in flight."""


SETTINGS = (Setting(1, 1), Setting(2, 1), Setting(1, 2))


def body(rng: random.Random) -> bytes:
    """A request about a picture that nobody has seen, answered with exactly TOKENS tokens."""
    picture = Image.new("RGB", (224, 224), tuple(rng.randrange(160, 256) for _ in range(3)))
    draw = ImageDraw.Draw(picture)
    for _ in range(4):
        x, y = rng.randrange(160), rng.randrange(160)
        draw.ellipse((x, y, x + 48, y + 48), fill=tuple(rng.randrange(200) for _ in range(3)))
    encoded = io.BytesIO()
    picture.save(encoded, "PNG")
    url = "data:image/png;base64," + base64.b64encode(encoded.getvalue()).decode()
    content = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": "How many circles are there?"},
    ]
    request = {"messages": [{"role": "user", "content": content}], "max_tokens": TOKENS, "ignore_eos": True}
    return json.dumps({**request, "temperature": 0}).encode()


@contextmanager
def fleet(setting: Setting, engine_args: list[str]) -> Iterator[tuple[str, float]]:
    """A running fleet: its base URL, and the seconds until all replicas were ready."""
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "VLFLEET_HOME": home}
        command = [sys.executable, "-m", "vlfleet"]
        options = ["--replicas", str(setting.replicas), "--threads", str(setting.threads), "--port", "0", "--detach"]
        began = time.monotonic()
        subprocess.run([*command, "up", *options, "--", *engine_args], env=environment, check=True, capture_output=True)
        seconds = time.monotonic() - began
        try:
            status = subprocess.run([*command, "status", "--json"], env=environment, check=True, capture_output=True)
            yield json.loads(status.stdout)["url"], seconds
        finally:
            subprocess.run([*command, "down"], env=environment, check=True, capture_output=True)


async def ask(session: aiohttp.ClientSession, url: str, data: bytes) -> float:
    began = time.monotonic()
    headers = {"Content-Type": "application/json"}
    async with session.post(f"{url}/chat/completions", data=data, headers=headers) as response:
        answer = await response.json()
        if response.status != 200 or answer["usage"]["completion_tokens"] != TOKENS:
            raise RuntimeError(f"not an answer of {TOKENS} tokens: {answer}")
    return time.monotonic() - began


async def load(url: str, requests: int, rng: random.Random) -> tuple[float, dict[int, float]]:
    """Median seconds of an answer alone, and requests/s by requests in flight (closed loop)."""
    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(ask(session, url, body(rng)) for _ in range(8)))
        alone = [await ask(session, url, body(rng)) for _ in range(5)]
        rates = {}
        for in_flight in IN_FLIGHT:
            rates[in_flight] = await rate(session, url, [body(rng) for _ in range(requests)], in_flight)
    return statistics.median(alone), rates


async def rate(session: aiohttp.ClientSession, url: str, waiting: list[bytes], in_flight: int) -> float:
    requests = len(waiting)

    async def one_client() -> None:
        while waiting:
            await ask(session, url, waiting.pop())

    began = time.monotonic()
    await asyncio.gather(*(one_client() for _ in range(in_flight)))
    return requests / (time.monotonic() - began)


def measure(setting: Setting, requests: int, engine_args: list[str], rng: random.Random) -> Result:
    with fleet(setting, engine_args) as (url, up_seconds):
        answer_seconds, rates = asyncio.run(load(url, requests, rng))
    return Result(up_seconds, answer_seconds, rates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("engine_args", nargs="*", help="after --, for the engine")
    args = parser.parse_args()
    rng = random.Random(0)
    results: dict[Setting, list[Result]] = {setting: [] for setting in SETTINGS}
    for number in range(args.rounds):
        for setting in SETTINGS:
            results[setting].append(measure(setting, args.requests, args.engine_args, rng))
            print(f"round {number + 1}: {setting} {results[setting][-1]}", file=sys.stderr, flush=True)

    print(
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, torch {torch.__version__},"
    )
    print(
        f"transformers {transformers.__version__}; pictures of 224 x 224, {TOKENS} tokens an answer;", *args.engine_args
    )
    print(f"medians of {args.rounds} rounds. Client, gateway and replicas share the cores.\n")
    heads = " | ".join(f"requests/s, {number} in flight" for number in IN_FLIGHT)
    print(f"| replicas x threads | `vlfleet up` s | one answer s | {heads} |")
    print("|---" * (3 + len(IN_FLIGHT)) + "|")
    for setting, runs in results.items():
        rates = [statistics.median(run.requests_per_second[number] for run in runs) for number in IN_FLIGHT]
        up = statistics.median(run.up_seconds for run in runs)
        answer = statistics.median(run.answer_seconds for run in runs)
        cells = " | ".join(f"{each:.1f}" for each in rates)
        print(f"| {setting.replicas} x {setting.threads} | {up:.1f} | {answer:.2f} | {cells} |")
    pairs = list(zip(results[SETTINGS[1]], results[SETTINGS[0]], strict=True))
    gains = [
        statistics.median(two.requests_per_second[number] / one.requests_per_second[number] for two, one in pairs)
        for number in IN_FLIGHT
    ]
    print("| two over one, one thread each | | | " + " | ".join(f"{gain:.2f} x" for gain in gains) + " |")


if __name__ == "__main__":
    main()
