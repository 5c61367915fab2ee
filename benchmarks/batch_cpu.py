"""`vlfleet batch` with 10,000 small images through a fleet of two fake replicas: how busy it keeps them, what memory it
takes, and what twenty kills cost.

    python -m benchmarks.batch_cpu [--images 10000] [--kills 20]

The replicas answer one request after the other, in `--seconds` each. What they can do is measured first, by requests
that are sent to them directly, many at once; the busy share is the batch's answers a second over that, between its
first request and its last answer. Batch, gateway and replicas are processes of their own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from PIL import Image

from vlfleet.client import data_url
from vlfleet.fleet.folder import FleetFolder
from vlfleet.fleet.replica import Replica
from vlfleet.fleet.state import load

ENGINE = "tests.fakes:FakeEngine"
DIRECT_REQUESTS, DIRECT_SECONDS = 16, 10.0
MODEL = Path(__file__).resolve().parents[1] / "src/vlfleet/demo/model"


@dataclass(frozen=True)
class Run:
    """One `vlfleet batch`, to its end or to its kill."""

    seconds: float
    peak_rss_mib: float
    code: int
    report: dict[str, Any]


def make_pictures(folder: Path, count: int) -> None:
    """`count` PNGs of 64 x 64, no two alike."""
    for number in range(count):
        Image.new("RGB", (64, 64), (number % 256, number // 256 % 256, 77)).save(folder / f"{number:06d}.png")


@asynccontextmanager
async def fleet(home: Path, seconds: float) -> AsyncIterator[tuple[str, list[Replica]]]:
    """A real `vlfleet up` of two fake engines; the gateway's URL, and the engines."""
    argv = ("up", str(MODEL), "--engine", ENGINE, "--replicas", "2", "--port", "0", "--json")
    engine = ("--tokens", "1", "--prefill-seconds", str(seconds))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "vlfleet", *argv, "--", *engine),
        env={**os.environ, "VLFLEET_HOME": str(home), "PYTHONPATH": str(Path.cwd())},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout
    try:
        url = json.loads(await process.stdout.readline())["url"].removesuffix("/v1")
        state = load(FleetFolder(home / "default"))
        assert state
        yield url, state.replicas
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()


def peak_rss_mib(pid: int) -> float:
    """The most memory that a process had; 0 when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


async def batch(source: Path, out: Path, url: str, kill_at: float | None = None) -> Run:
    """Runs it; `kill_at` is in bytes that it has added to its output."""
    argv = ("batch", str(source), "--prompt", "What is this?", "-o", str(out), "--base-url", url, "--json")
    started, peak = time.perf_counter(), 0.0
    before = out.stat().st_size if out.exists() else 0
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "vlfleet", *argv), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert process.stdout
    reading = asyncio.create_task(process.stdout.read())
    while process.returncode is None and not reading.done():
        peak = max(peak, peak_rss_mib(process.pid))
        written = (out.stat().st_size if out.exists() else 0) - before
        if kill_at is not None and written >= kill_at:
            process.kill()
        await asyncio.sleep(0.01 if kill_at is not None else 0.1)
    said = await reading
    code = await process.wait()
    return Run(time.perf_counter() - started, peak, code, json.loads(said) if said else {})


async def capacity(engines: list[Replica], source: Path) -> float:
    """Answers a second of all engines together, each asked by `DIRECT_REQUESTS` at once, without a gateway."""
    url = data_url(next(source.iterdir()))
    body = {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]}
    count = 0

    async def ask(http: aiohttp.ClientSession, engine: Replica) -> None:
        nonlocal count
        headers = {"Authorization": f"Bearer {engine.api_key}"}
        while True:
            async with http.post(f"{engine.base_url}/v1/chat/completions", json=body, headers=headers) as answer:
                assert answer.status == 200, await answer.text()
                await answer.read()
            count += 1

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        tasks = [asyncio.create_task(ask(http, engine)) for engine in engines for _ in range(DIRECT_REQUESTS)]
        await asyncio.sleep(1.0)
        began, before = time.perf_counter(), count
        await asyncio.sleep(DIRECT_SECONDS)
        rate = (count - before) / (time.perf_counter() - began)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return rate


async def answers_a_second(url: str, engines: list[Replica], source: Path, out: Path) -> tuple[float, Run]:
    """Of a batch, between its first request and its last answer."""
    began = ended = 0.0
    last = first = 0

    async def watch() -> None:
        nonlocal began, ended, last, first
        async with aiohttp.ClientSession() as http:
            while True:
                finished = running = 0
                for engine in engines:
                    async with http.get(f"{engine.base_url}/fake/seen") as answer:
                        seen = await answer.json()
                    finished, running = finished + seen["finished"], running + seen["running"]
                now = time.perf_counter()
                if running and not began:
                    began, first = now, finished
                if finished > last:
                    last, ended = finished, now
                await asyncio.sleep(0.1)

    watching = asyncio.create_task(watch())
    run = await batch(source, out, url)
    await asyncio.sleep(0.3)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    return (last - first) / (ended - began), run


async def killed(url: str, source: Path, out: Path, kills: int, images: int) -> tuple[int, int, Run]:
    """Kills at random points, then one run to the end: kills that hit, and rows that stand there once."""
    chance, hits = random.Random(1), 0
    for _ in range(kills):
        run = await batch(source, out, url, kill_at=chance.random() * 250 * images / kills)
        hits += run.code == -signal.SIGKILL
    last = await batch(source, out, url)
    rows = [json.loads(line)["id"] for line in out.read_text().splitlines()]
    assert len(rows) == len(set(rows)), "a row stands there twice"
    return hits, len(set(rows)), last


async def main(images: int, kills: int, seconds: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        source = root / "pictures"
        source.mkdir()
        make_pictures(source, images)
        async with fleet(root / "home", seconds) as (url, engines):
            most = await capacity(engines, source)
            rate, run = await answers_a_second(url, engines, source, root / "out.jsonl")
            print(f"{images:,} images in {run.seconds:.1f} s ({images / run.seconds:.1f}/s), exit code {run.code}")
            print(f"replicas: {most:.1f}/s asked directly, {rate:.1f}/s by the batch: {100 * rate / most:.1f} % busy")
            print(f"peak RSS of the batch: {run.peak_rss_mib:.0f} MiB (to stay under: 500)")
            print(f"refusals: {run.report['refusals']}, retries: {run.report['retries']}")
            again = await batch(source, root / "out.jsonl", url)
            print(f"the same command again: {again.seconds:.1f} s, {again.report['answered']} asked")
            if kills:
                hits, rows, last = await killed(url, source, root / "killed.jsonl", kills, images)
                print(f"{hits} of {kills} kills -9 hit; then {rows:,} of {images:,} rows, each once, code {last.code}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=0.02, help="of one request at a replica")
    given = parser.parse_args()
    asyncio.run(main(given.images, given.kills, given.seconds))
