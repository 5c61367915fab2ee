"""The embedded engine on this machine: start-up, one answer, and what a second replica adds.

    python -m benchmarks.embedded [--rounds 3] [--requests 48]

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
IN_FLIGHT = 8


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
    requests_per_second: float


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
def fleet(setting: Setting) -> Iterator[tuple[str, float]]:
    """A running fleet: its base URL, and the seconds until all replicas were ready."""
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "VLFLEET_HOME": home}
        command = [sys.executable, "-m", "vlfleet"]
        options = ["--replicas", str(setting.replicas), "--threads", str(setting.threads), "--port", "0"]
        began = time.monotonic()
        subprocess.run([*command, "up", *options, "--detach"], env=environment, check=True, capture_output=True)
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


async def load(url: str, requests: int, rng: random.Random) -> tuple[float, float]:
    """Median seconds of an answer alone, and requests/s with IN_FLIGHT at a time (closed loop)."""
    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(ask(session, url, body(rng)) for _ in range(IN_FLIGHT)))
        alone = [await ask(session, url, body(rng)) for _ in range(5)]
        waiting = [body(rng) for _ in range(requests)]

        async def one_client() -> None:
            while waiting:
                await ask(session, url, waiting.pop())

        began = time.monotonic()
        await asyncio.gather(*(one_client() for _ in range(IN_FLIGHT)))
        return statistics.median(alone), requests / (time.monotonic() - began)


def measure(setting: Setting, requests: int, rng: random.Random) -> Result:
    with fleet(setting) as (url, up_seconds):
        answer_seconds, rate = asyncio.run(load(url, requests, rng))
    return Result(up_seconds, answer_seconds, rate)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=48)
    args = parser.parse_args()
    rng = random.Random(0)
    results: dict[Setting, list[Result]] = {setting: [] for setting in SETTINGS}
    for number in range(args.rounds):
        for setting in SETTINGS:
            results[setting].append(measure(setting, args.requests, rng))
            print(f"round {number + 1}: {setting} {results[setting][-1]}", file=sys.stderr, flush=True)

    print(
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}, "
    )
    print(f"transformers {transformers.__version__}; {TOKENS} tokens an answer, {IN_FLIGHT} requests in flight\n")
    print("| replicas x threads | `vlfleet up` s | one answer s | requests/s |")
    print("|---|---|---|---|")
    for setting, runs in results.items():
        up, answer, rate = (
            statistics.median(getattr(run, name) for run in runs)
            for name in ("up_seconds", "answer_seconds", "requests_per_second")
        )
        print(f"| {setting.replicas} x {setting.threads} | {up:.1f} | {answer:.2f} | {rate:.2f} |")
    pairs = zip(results[SETTINGS[1]], results[SETTINGS[0]], strict=True)
    ratios = [two.requests_per_second / one.requests_per_second for two, one in pairs]
    listed = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    print(f"\nTwo replicas over one, one thread each: {statistics.median(ratios):.2f} times the requests/s ({listed})")


if __name__ == "__main__":
    main()
