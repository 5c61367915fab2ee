"""The part of `plan_grid` that needs engines: starts them, and sends the load of every point."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks import plan_grid_rows as rows
from benchmarks.plan_grid_points import (
    KNOWN,
    TPOT_SECONDS,
    TTFT_SECONDS,
    Figures,
    Grid,
    Point,
    answer_tokens,
    known_picture,
)
from vlfleet.calibrate.photos import photo

QUESTION = "Describe the picture."
WORDS = "hello " * 30
START_SECONDS, POINT_SECONDS = 260.0, 45.0
SECOND = "q25vl-7b-tp1-second"
"""The other of two replicas."""
SECOND_KV_GIB = 6
"""112,000 tokens, of which its points need 44,000: its GPU holds four engines."""
GPUS = {"q25vl-3b-tp1": "0", "q25vl-7b-tp1": "1", SECOND: "0", "q25vl-3b-tp2": "0,1", "q25vl-7b-tp2": "0,1"}
FIRST_PORT = 8401
Content = list[dict[str, Any]]


@dataclass(frozen=True)
class Engine:
    """One vLLM."""

    url: str
    process: subprocess.Popen[bytes] | None = None
    """If it was started here."""

    async def ready(self) -> bool:
        """Whether it answers within `START_SECONDS`; one that has ended does not."""
        end = time.monotonic() + START_SECONDS
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
            while time.monotonic() < end and (self.process is None or self.process.poll() is None):
                try:
                    async with session.get(f"{self.url}/health") as answer:
                        if answer.status == 200:
                            return True
                except (aiohttp.ClientError, TimeoutError):
                    pass
                await asyncio.sleep(0.5)
        return False


@contextmanager
def serve(grid: Grid, models: Path | None, out: Path, running: Mapping[str, str]) -> Iterator[dict[str, Engine]]:
    """Engines by name: those that run already, or all, started side by side and ended afterwards."""
    out.mkdir(parents=True, exist_ok=True)
    if running:
        yield {name: Engine(url) for name, url in running.items()}
        return
    if models is None:
        sys.exit("give --models FOLDER, or --url of engines that run")
    wanted = {point.engine for point in grid.points}
    with ExitStack() as stack:
        engines = {}
        for number, (engine, gpus) in enumerate(GPUS.items()):
            if engine not in wanted and not (engine == SECOND and "q25vl-7b-2xtp1" in wanted):
                continue
            model, tp = engine.removesuffix("-second").rsplit("-tp", 1)
            port = FIRST_PORT + 10 * number
            command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(models / model)]
            command += ["--served-model-name", "m", "--host", "127.0.0.1", "--port", str(port)]
            command += ["--tensor-parallel-size", tp, *grid.flags(int(tp), SECOND_KV_GIB if engine == SECOND else None)]
            log = stack.enter_context((out / f"{engine}.log").open("w"))
            environment = {**os.environ, "CUDA_VISIBLE_DEVICES": gpus}
            process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )
            stack.callback(_end, process)
            engines[engine] = Engine(f"http://127.0.0.1:{port}", process)
        yield engines


def _end(process: subprocess.Popen[bytes]) -> None:
    """The engine and all its processes, which share its session."""
    try:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(5)
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

    @property
    def tpot(self) -> float:
        return (self.ended - self.first) / max(1, self.tokens - 1)

    @property
    def in_time(self) -> bool:
        return self.first - self.sent <= TTFT_SECONDS and self.tpot <= TPOT_SECONDS


@dataclass
class Run:
    """One measurement of a grid; `file` holds what is known after every point."""

    grid: Grid
    engines: Mapping[str, Engine]
    requests: Mapping[str, int]
    file: Path
    limit_seconds: float
    """After which no point begins."""
    say: Callable[[str], None]
    points: dict[str, Figures] = field(default_factory=dict)
    rows: dict[str, float] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    async def measure(self) -> None:
        """Engines on one GPU at the same time, then two of them as replicas, then the others one after the other."""
        with ThreadPoolExecutor(min(12, os.cpu_count() or 1)) as pool:
            pictures = Pictures(pool, self.grid.points, self.requests, self.engines)
            found = await asyncio.gather(*(engine.ready() for engine in self.engines.values()))
            up = dict(zip(self.engines, found, strict=True))
            self._say(f"{sum(up.values())} of {len(up)} engines are ready")
            for engine in (engine for engine, ready in up.items() if not ready):
                self._say(f"{engine} is not; see {engine}.log")
            await asyncio.get_running_loop().run_in_executor(None, pictures.wait)
            self._say("pictures are ready")
            ready = [engine for engine, is_up in up.items() if is_up]
            alone = [engine for engine in ready if not engine.endswith("tp2")]
            await asyncio.gather(*(self._engine([engine], engine, pictures) for engine in alone if engine != SECOND))
            if SECOND in ready and "q25vl-7b-tp1" in ready:
                await self._engine(["q25vl-7b-tp1", SECOND], "q25vl-7b-2xtp1", pictures)
            for engine in ready:
                if engine not in alone:
                    await self._engine([engine], engine, pictures)

    def _say(self, line: str) -> None:
        self.say(f"{time.monotonic() - self.began:5.0f} s {line}")

    def _write(self) -> None:
        found = {"points": {name: asdict(figures) for name, figures in self.points.items()}, "rows": self.rows}
        beside = self.file.with_suffix(".new")
        beside.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        beside.replace(self.file)

    async def _engine(self, engines: Sequence[str], name: str, pictures: Pictures) -> None:
        """All points of an engine, or of replicas that share the load; a point that fails does not end the others."""
        urls = [self.engines[engine].url for engine in engines]
        points = [point for point in self.grid.points if point.engine == name]
        async with _session() as session:
            for side in dict.fromkeys(point.side for point in points):
                warm = pictures.warm.get(side) or [[_text(f"{number} {WORDS}")] for number in range(8)]
                for url in urls:
                    await _load(session, [url], warm, 4)
            if name == "q25vl-7b-tp1":
                await self._rows(session, urls[0], pictures)
            for point in points:
                if time.monotonic() - self.began > self.limit_seconds:
                    self._say(f"{point.name}: no time left")
                    continue
                try:
                    if point.kind == "known":
                        for url in urls:
                            await _load(session, [url], pictures.known[point.side], 4)
                    answers = await _load(session, urls, pictures.contents(point), point.load)
                    self.points[point.name] = figures_of(answers)
                    self._write()
                    self._say(f"{point.name}: {self.points[point.name]}")
                except Exception:
                    self._say(f"{point.name} failed: {traceback.format_exc()[-600:]}")

    async def _rows(self, session: aiohttp.ClientSession, url: str, pictures: Pictures) -> None:
        try:
            async for name, value in calibration_rows(session, url, pictures.rows):
                self.rows[name] = value
                self._write()
                self._say(f"row {name}: {value:.6f}")
        except Exception:
            self._say(f"rows failed: {traceback.format_exc()[-600:]}")


# The rows of a calibration


async def calibration_rows(
    session: aiohttp.ClientSession, url: str, pictures: Sequence[Content]
) -> AsyncIterator[tuple[str, float]]:
    """As `plan_grid_rows` predicts them. The differences leave out what a request costs by itself."""

    async def complete(prompts: list[list[int]], tokens: int) -> float:
        body = {"model": "m", "prompt": prompts, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
        begun = time.perf_counter()
        async with session.post(f"{url}/v1/completions", json=body) as answer:
            if answer.status != 200:
                raise RuntimeError(f"{answer.status} {(await answer.text())[:200]}")
            await answer.read()
        return time.perf_counter() - begun

    draw = random.Random(5)

    def prompt(tokens: int) -> list[int]:
        return [draw.randrange(300, 800) for _ in range(tokens)]

    for sequences in rows.SEQUENCES:
        took: dict[int, float] = {}
        for tokens in (rows.DECODE_FEW, rows.DECODE_MANY, rows.DECODE_FEW, rows.DECODE_MANY):
            batch = [prompt(rows.DECODE_PROMPT) for _ in range(sequences)]
            took[tokens] = min(took.get(tokens, 1e9), await complete(batch, tokens))
        steps = rows.DECODE_MANY - rows.DECODE_FEW
        yield f"decode {sequences}", (took[rows.DECODE_MANY] - took[rows.DECODE_FEW]) / steps
    few = [await complete([prompt(rows.PREFILL_FEW)], 1) for _ in range(5)]
    many = [await complete([prompt(rows.PREFILL_MANY)], 1) for _ in range(5)]
    yield "prefill", statistics.median(many) - statistics.median(few)
    alone = [await _ask(session, url, content, 1) for content in pictures[:5]]
    yield "picture", statistics.median(answer.first - answer.sent for answer in alone)
    answers = await _load(session, [url], pictures[5 : 5 + rows.PICTURE_REQUESTS], rows.PICTURE_LOAD)
    yield "pictures a second", figures_of(answers).per_second


# Load


@asynccontextmanager
async def _session() -> AsyncIterator[aiohttp.ClientSession]:
    timeout = aiohttp.ClientTimeout(total=300)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        yield session


async def _load(
    session: aiohttp.ClientSession, urls: Sequence[str], contents: Sequence[Content], load: int
) -> list[_Answer]:
    """All contents, `load` at once, by turns to the URLs; nothing new is sent after `POINT_SECONDS`."""
    answers: list[_Answer] = []
    left = iter(enumerate(contents))
    end = time.perf_counter() + POINT_SECONDS

    async def worker(url: str) -> None:
        for number, content in left:
            if time.perf_counter() > end:
                return
            answers.append(await _ask(session, url, content, answer_tokens(number)))

    workers = (worker(urls[number % len(urls)]) for number in range(load))
    results = await asyncio.gather(*workers, return_exceptions=True)
    for error in {str(result) for result in results if isinstance(result, BaseException)}:
        print(f"{urls[0]}: {error[:300]}", file=sys.stderr, flush=True)
    return answers


async def _ask(session: aiohttp.ClientSession, url: str, content: Content, tokens: int) -> _Answer:
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


def figures_of(answers: Sequence[_Answer]) -> Figures:
    """What a client sees; of no answers there are none.

    Raises:
        RuntimeError: fewer than two answers.
    """
    if len(answers) < 2:
        raise RuntimeError(f"{len(answers)} answers")
    seconds = max(answer.ended for answer in answers) - min(answer.sent for answer in answers)
    ttft = [answer.first - answer.sent for answer in answers]
    in_time = sum(answer.in_time for answer in answers)
    return Figures.seen(len(answers) / seconds, ttft, [answer.tpot for answer in answers], in_time)


# Pictures


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


class Pictures:
    """What is asked, made by other threads while the engines start. Engines get the same, none of them twice."""

    def __init__(
        self, pool: ThreadPoolExecutor, points: Sequence[Point], requests: Mapping[str, int], engines: Collection[str]
    ) -> None:
        mine = [point for point in points if point.engine in engines or (point.replicas == 2 and SECOND in engines)]
        sides = {point.side for point in mine if point.side}
        self._requests = requests
        self._first: dict[str, int] = {}
        """Of a point's pictures, in those of its side; replicas go on where their first engine stopped."""
        sent: dict[tuple[str, int], int] = {}
        for point in mine:
            if point.kind == "new":
                place = (point.engine.replace("2x", ""), point.side)
                self._first[point.name] = sent.get(place, 0)
                sent[place] = self._first[point.name] + requests[point.name]
        many = {side: max((n for (_, each), n in sent.items() if each == side), default=0) for side in sides}
        self._made = {side: [pool.submit(photo, side, f"{side} {n}") for n in range(many[side])] for side in sides}
        self._warm = {side: [pool.submit(photo, side, f"warm {side} {n}") for n in range(8)] for side in sides}
        known = {point.side for point in mine if point.kind == "known"}
        self._known = {side: [pool.submit(photo, side, f"known {side} {n}") for n in range(KNOWN)] for side in known}
        alone = 5 + rows.PICTURE_REQUESTS if "q25vl-7b-tp1" in engines else 0
        self._rows = [pool.submit(photo, rows.SIDE, f"row {number}") for number in range(alone)]
        self.warm: dict[int, list[Content]] = {}
        self.known: dict[int, list[Content]] = {}
        self.rows: list[Content] = []

    def wait(self) -> None:
        """Until all are there."""
        self.warm = {side: [_about(each.result()) for each in made] for side, made in self._warm.items()}
        self.known = {side: [_about(each.result()) for each in made] for side, made in self._known.items()}
        self.rows = [_about(each.result()) for each in self._rows]
        for made in self._made.values():
            for each in made:
                each.result()

    def contents(self, point: Point) -> list[Content]:
        """Of all requests of a point, in their order."""
        numbers = range(self._requests[point.name])
        if point.kind == "text":
            return [[_text(f"{number} {WORDS}")] for number in numbers]
        if point.kind == "known":
            return [self.known[point.side][known_picture(number)] for number in numbers]
        first = self._first[point.name]
        return [_about(each.result()) for each in self._made[point.side][first : first + len(numbers)]]


def _about(url: str) -> Content:
    return [{"type": "image_url", "image_url": {"url": url}}, _text(QUESTION)]
