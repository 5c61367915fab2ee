"""The part of `plan_grid` that needs engines: starts them, and sends the load of every point."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from PIL import Image

from benchmarks.plan_grid import FLAGS, Figures, Point, answer_tokens
from vlfleet.plan.speed import Percentiles

QUESTION = "Describe the picture."
START_SECONDS, POINT_SECONDS = 240.0, 40.0
GPUS = {"q25vl-3b-tp1": "0", "q25vl-7b-tp1": "1", "q25vl-3b-tp2": "0,1", "q25vl-7b-tp2": "0,1"}
FIRST_PORT = 8401


@contextmanager
def serve(models: Path | None, out: Path, running: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """URLs by engine: those that run already, or all four, started side by side and ended afterwards."""
    if running:
        yield dict(running)
        return
    if models is None:
        sys.exit("give --models FOLDER, or --url of engines that run")
    out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        urls = {}
        for number, (engine, gpus) in enumerate(GPUS.items()):
            model, _, tp = engine.rpartition("-tp")
            port = FIRST_PORT + 10 * number
            command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(models / model)]
            command += ["--served-model-name", "m", "--host", "127.0.0.1", "--port", str(port)]
            command += ["--tensor-parallel-size", tp, *FLAGS]
            log = stack.enter_context((out / f"{engine}.log").open("w"))
            environment = {**os.environ, "CUDA_VISIBLE_DEVICES": gpus}
            process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )
            stack.callback(_end, process)
            urls[engine] = f"http://127.0.0.1:{port}"
        yield urls


def _end(process: subprocess.Popen[bytes]) -> None:
    """The engine and all its processes, which share its session."""
    try:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


@dataclass(frozen=True)
class _Answer:
    sent: float
    first: float
    ended: float
    tokens: int


async def measure(
    urls: Mapping[str, str], grid: Sequence[Point], requests: Mapping[str, int], say: Callable[[str], None]
) -> dict[str, Figures]:
    """What every engine does at its points: TP 1 engines at the same time, then the others one after the other."""
    began = time.monotonic()
    mine = {engine: [point for point in grid if point.engine == engine] for engine in urls}
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        photos = _photos(pool, [point for points in mine.values() for point in points], requests)
        say(f"pictures after {time.monotonic() - began:.0f} s")
        ready = dict(zip(urls, await asyncio.gather(*(_ready(url) for url in urls.values())), strict=True))
        say(f"{sum(ready.values())} of {len(ready)} engines ready after {time.monotonic() - began:.0f} s")
        found: dict[str, Figures] = {}

        async def work(engine: str) -> None:
            async with aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=300)
            ) as session:
                for side in dict.fromkeys(point.side for point in mine[engine]):
                    warm = [_photo(side, seed) for seed in range(-8, 0)]
                    await _load(session, urls[engine], warm, 4)
                for point in mine[engine]:
                    answers = await _load(session, urls[engine], photos[point.name], point.load)
                    if len(answers) > 1:
                        found[point.name] = _figures(answers)
                        say(f"{time.monotonic() - began:5.0f} s {point.name}: {found[point.name]}")
                    else:
                        say(f"{point.name}: no answers; see {engine}.log")

        alone = [engine for engine, up in ready.items() if up and engine.endswith("tp1")]
        await asyncio.gather(*(work(engine) for engine in alone))
        for engine, up in ready.items():
            if up and engine not in alone:
                await work(engine)
    return {point.name: found[point.name] for point in grid if point.name in found}


async def _ready(url: str) -> bool:
    """Whether it answers within `START_SECONDS`."""
    end = time.monotonic() + START_SECONDS
    async with aiohttp.ClientSession() as session:
        while time.monotonic() < end:
            try:
                async with session.get(f"{url}/health", timeout=aiohttp.ClientTimeout(total=2)) as answer:
                    if answer.status == 200:
                        return True
            except (aiohttp.ClientError, TimeoutError):
                pass
            await asyncio.sleep(0.5)
    return False


async def _load(session: aiohttp.ClientSession, url: str, pictures: Sequence[str], load: int) -> list[_Answer]:
    """All pictures, `load` at once; nothing new is sent after `POINT_SECONDS`."""
    answers: list[_Answer] = []
    left = iter(enumerate(pictures))
    end = time.perf_counter() + POINT_SECONDS

    async def worker() -> None:
        for number, picture in left:
            if time.perf_counter() > end:
                return
            answers.append(await _ask(session, url, picture, answer_tokens(number)))

    results = await asyncio.gather(*(worker() for _ in range(load)), return_exceptions=True)
    for error in {str(result) for result in results if isinstance(result, BaseException)}:
        print(f"{url}: {error[:300]}", file=sys.stderr, flush=True)
    return answers


async def _ask(session: aiohttp.ClientSession, url: str, picture: str, tokens: int) -> _Answer:
    content: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": picture}}]
    content.append({"type": "text", "text": QUESTION})
    body = {"messages": [{"role": "user", "content": content}], "model": "m", "max_tokens": tokens}
    data = json.dumps(body | {"temperature": 0, "ignore_eos": True, "stream": True}).encode()
    sent, first, last = time.perf_counter(), 0.0, b""
    headers = {"Content-Type": "application/json"}
    async with session.post(f"{url}/v1/chat/completions", data=data, headers=headers) as answer:
        if answer.status != 200:
            raise RuntimeError(f"{answer.status} {(await answer.text())[:200]}")
        async for chunk in answer.content.iter_any():
            first = first or time.perf_counter()
            last = (last + chunk)[-64:]
    if b"[DONE]" not in last:
        raise RuntimeError("a stream ended too early")
    return _Answer(sent, first, time.perf_counter(), tokens)


def _figures(answers: Sequence[_Answer]) -> Figures:
    seconds = max(answer.ended for answer in answers) - min(answer.sent for answer in answers)
    ttft = Percentiles.of([answer.first - answer.sent for answer in answers])
    tpot = statistics.median((answer.ended - answer.first) / (answer.tokens - 1) for answer in answers)
    return Figures.of(len(answers), len(answers) / seconds, ttft, tpot)


def _photos(pool: ThreadPoolExecutor, grid: Sequence[Point], requests: Mapping[str, int]) -> dict[str, list[str]]:
    """For every point pictures of its own: none is ever sent twice to an engine."""
    wanted = [(point, number) for point in grid for number in range(requests[point.name])]
    made = pool.map(lambda each: _photo(each[0].side, hash((each[0].name, each[1]))), wanted, chunksize=16)
    photos: dict[str, list[str]] = {point.name: [] for point in grid}
    for (point, _), photo in zip(wanted, made, strict=True):
        photos[point.name].append(photo)
    return photos


def _photo(side: int, seed: int) -> str:
    """A JPEG like a photo, about 0.27 bytes a pixel: smooth shapes with noise."""
    draw = random.Random(seed)
    small = Image.frombytes("RGB", (16, 16), draw.randbytes(768))
    noise = Image.effect_noise((side, side), 20).convert("RGB")
    image = Image.blend(small.resize((side, side), Image.Resampling.BICUBIC), noise, 0.2)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=92)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
