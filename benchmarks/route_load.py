"""The client of the route's benchmarks: a closed loop in several processes, whose bodies are joined from made parts.

The processes are forked, so that they share pictures and the functions that make requests; the caller must have no
threads.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import multiprocessing
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import Any

import aiohttp

PATH = "/v1/chat/completions"
TAIL_BYTES = 400
_FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Request:
    """One streamed chat."""

    url: str
    """Without `PATH`."""
    parts: tuple[bytes, ...]
    """Of its body, to be joined."""
    key: str = ""
    headers: tuple[tuple[str, str], ...] = ()


Make = Callable[[int], Request | None]
"""Request number n, counted from 0; None: there is none left."""


@dataclass(frozen=True)
class Answer:
    """Seconds of `time.perf_counter`, which all processes of a machine share (CLOCK_MONOTONIC)."""

    sent: float
    first: float
    ended: float
    error: str = ""


@dataclass(frozen=True)
class Figures:
    """What the client saw in one row."""

    in_flight: int
    good: int
    bad: int
    seconds: float
    """From the first request sent to the last answer's end."""
    per_second: float
    ttft_p50_ms: float
    ttft_p95_ms: float
    mean_ms: float
    """Of whole answers, as the two below."""
    p50_ms: float
    p95_ms: float
    client_busy: float
    """The busiest client process: its CPU seconds over the row's. Near 1, the client is what was measured."""
    error: str = ""
    """The first one."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def run(make: Make, in_flight: int, seconds: float = 0.0, limit: int = 0, processes: int = 8) -> Figures:
    """`in_flight` requests at any time; nothing new after `seconds`, nor after `limit` requests (0: no limit).

    What was sent is waited for: the work is whole requests.
    """
    if not seconds and not limit:
        raise ValueError("a load must end")
    processes = max(1, min(processes, in_flight))
    counter: Any = _FORK.Value(ctypes.c_long, 0)
    begin = time.perf_counter() + 0.05 + 0.02 * processes
    children = []
    gc.freeze()  # a collection in a child would copy every page that is shared
    for number in range(processes):
        mine, theirs = _FORK.Pipe(duplex=False)
        workers = in_flight // processes + (number < in_flight % processes)
        loop = _Loop(make, workers, begin, begin + seconds if seconds else float("inf"), limit, counter)
        child = _FORK.Process(target=loop.main, args=(theirs,), daemon=True)
        child.start()
        theirs.close()
        children.append((child, mine))
    answers: list[Answer] = []
    busy = 0.0
    for child, pipe in children:
        try:
            got, cpu = pipe.recv()
        except EOFError:
            got, cpu = [Answer(begin, begin, begin, "a client process died")], 0.0
        answers += got
        busy = max(busy, cpu)
        child.join()
    return figures(answers, in_flight, busy)


def figures(answers: Sequence[Answer], in_flight: int, cpu_seconds: float = 0.0) -> Figures:
    """Of all answers of a row; rates and times of the good ones."""
    good = [answer for answer in answers if not answer.error]
    error = next((answer.error for answer in answers if answer.error), "")
    if not good:
        return Figures(in_flight, 0, len(answers), 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, error)
    seconds = max(answer.ended for answer in good) - min(answer.sent for answer in answers)
    ttft = sorted(1000 * (answer.first - answer.sent) for answer in good)
    whole = sorted(1000 * (answer.ended - answer.sent) for answer in good)
    return Figures(
        in_flight=in_flight,
        good=len(good),
        bad=len(answers) - len(good),
        seconds=round(seconds, 2),
        per_second=round(len(good) / seconds, 2),
        ttft_p50_ms=round(percentile(ttft, 0.5), 1),
        ttft_p95_ms=round(percentile(ttft, 0.95), 1),
        mean_ms=round(sum(whole) / len(whole), 1),
        p50_ms=round(percentile(whole, 0.5), 1),
        p95_ms=round(percentile(whole, 0.95), 1),
        client_busy=round(cpu_seconds / seconds, 2),
        error=error,
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


@dataclass(frozen=True)
class _Loop:
    """What one process does."""

    make: Make
    workers: int
    begin: float
    end: float
    limit: int
    counter: Any

    def main(self, pipe: Connection) -> None:
        try:
            import uvloop
        except ImportError:
            pipe.send(asyncio.run(self.load()))
        else:
            pipe.send(uvloop.run(self.load()))
        pipe.close()

    async def load(self) -> tuple[list[Answer], float]:
        answers: list[Answer] = []
        connector, timeout = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=120)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as session:
            await asyncio.sleep(self.begin - time.perf_counter())
            before = _cpu_seconds()
            await asyncio.gather(*(self.worker(session, answers) for _ in range(self.workers)))
            return answers, _cpu_seconds() - before

    async def worker(self, session: aiohttp.ClientSession, answers: list[Answer]) -> None:
        while time.perf_counter() < self.end:
            with self.counter.get_lock():
                number = self.counter.value
                self.counter.value += 1
            if self.limit and number >= self.limit:
                return
            request = self.make(number)
            if request is None:
                return
            answers.append(await ask(session, request))


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def ask(session: aiohttp.ClientSession, request: Request) -> Answer:
    """One request; an answer that is no whole stream is an error, not an exception."""
    headers = {"Content-Type": "application/json", **dict(request.headers)}
    if request.key:
        headers["Authorization"] = f"Bearer {request.key}"
    body = b"".join(request.parts)
    sent, first, tail, error = time.perf_counter(), 0.0, b"", ""
    try:
        async with session.post(request.url + PATH, data=body, headers=headers) as answer:
            async for chunk in answer.content.iter_any():
                first = first or time.perf_counter()
                tail = (tail + chunk)[-TAIL_BYTES:]
            if answer.status != 200:
                error = f"{answer.status} {tail.decode(errors='replace')}"
            elif b"[DONE]" not in tail or b'"error"' in tail:
                error = f"no whole stream: {tail.decode(errors='replace')[-200:]}"
    except (aiohttp.ClientError, TimeoutError) as failure:
        error = f"{type(failure).__name__} {failure}"
    return Answer(sent, first, time.perf_counter(), error)
