"""`vlfleet batch` with 10,000 small images through a fleet of two fake replicas: how busy it keeps them, what memory it
takes, and what twenty kills cost.

    python -m benchmarks.batch_cpu [--images 10000] [--kills 20]

Each replica has eight slots, as an engine with continuous batching has: a request holds one for `--seconds`, half of it
more or less; the others wait. The busy share is the time for which slots were held over all there was, between the
batch's first request and its last answer. Batch, gateway and replicas are processes of their own.
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

from benchmarks.batch_engine import SLOTS
from vlfleet.fleet.folder import FleetFolder
from vlfleet.fleet.replica import Replica
from vlfleet.fleet.state import load

ENGINE = "benchmarks.batch_engine:SlotsFake"
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
    engine = ("--seconds", str(seconds))
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


async def busy_share(url: str, engines: list[Replica], source: Path, out: Path) -> tuple[float, Run]:
    """The share of the slots' time that was used, between the first request of a batch and its last answer."""
    samples: list[tuple[float, int, int, float]] = []

    async def watch() -> None:
        async with aiohttp.ClientSession() as http:
            while True:
                total = [0.0, 0.0, 0.0]
                for engine in engines:
                    async with http.get(f"{engine.base_url}/fake/seen") as answer:
                        seen = await answer.json()
                    now = (seen["requests"], seen["finished"], seen["held_seconds"])
                    total = [before + more for before, more in zip(total, now, strict=True)]
                samples.append((time.perf_counter(), int(total[0]), int(total[1]), total[2]))
                await asyncio.sleep(0.1)

    watching = asyncio.create_task(watch())
    run = await batch(source, out, url)
    await asyncio.sleep(0.3)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    began = next(sample for sample in samples if sample[1] > samples[0][1])
    ended = next(sample for sample in samples if sample[2] == samples[-1][2])
    return (ended[3] - began[3]) / (SLOTS * len(engines) * (ended[0] - began[0])), run


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
            share, run = await busy_share(url, engines, source, root / "out.jsonl")
            print(f"{images:,} images in {run.seconds:.1f} s ({images / run.seconds:.1f}/s), exit code {run.code}")
            print(f"capacity kept busy: {100 * share:.1f} % (to reach: 95)")
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
    parser.add_argument("--seconds", type=float, default=0.2, help="of one request in its slot")
    given = parser.parse_args()
    asyncio.run(main(given.images, given.kills, given.seconds))
