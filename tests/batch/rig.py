"""What the tests of batches share: pictures, answers without a server, and a run from source to output."""

from __future__ import annotations

import asyncio
import io
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from PIL import Image

from vlfleet.batch.batch import failures_path
from vlfleet.batch.feed import feed
from vlfleet.batch.journal import Journal, Output
from vlfleet.batch.known import Known
from vlfleet.batch.lines import LineFile
from vlfleet.batch.patience import Terms
from vlfleet.batch.record import Reply
from vlfleet.batch.request import Request, Settings
from vlfleet.batch.row import Flawed, Row
from vlfleet.batch.runner import Runner
from vlfleet.batch.settle import settle
from vlfleet.client import AsyncClient

TERMS = Terms()


def png(number: int = 0, size: int = 32) -> bytes:
    """A picture that no other number has."""
    stream = io.BytesIO()
    Image.new("RGB", (size, size), (number % 256, number // 256 % 256, number // 65536)).save(stream, "PNG")
    return stream.getvalue()


def pictures(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number:05d}.png").write_bytes(png(number))
    return folder


def body(text: str, prompt_tokens: int = 10, completion_tokens: int = 2) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
    return {"object": "chat.completion", "model": "fake", "choices": [choice], "usage": usage}


class Rows:
    """A source of rows that are there."""

    def __init__(self, rows: Sequence[Row | Flawed]) -> None:
        self.rows = rows
        self.total: int | None = len(rows)

    def __iter__(self) -> Any:
        return iter(self.rows)


def texts(*prompts: str) -> Rows:
    """Rows r0, r1, ... that ask about nothing but text."""
    return Rows([Row(f"r{n}", prompt=prompt) for n, prompt in enumerate(prompts)])


class Fleet:
    """Answers each prompt with itself; counts how often it was asked what."""

    def __init__(self, seconds: float = 0.0, jitter: float = 0.0) -> None:
        self.asked: Counter[str] = Counter()
        self.now = self.most = 0
        self._seconds, self._random, self._jitter = seconds, random.Random(1), jitter
        self.faults: dict[str, list[Exception]] = {}
        """By prompt, what to raise, one each time."""

    async def __call__(self, request: Request) -> Reply:
        prompt = request.row.prompt
        self.asked[prompt] += 1
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(self._seconds + self._jitter * self._random.random())
            if self.faults.get(prompt):
                raise self.faults[prompt].pop(0)
            return Reply(body(f"about {prompt}"))
        finally:
            self.now -= 1


async def run(
    output: Output,
    source: Any,
    ask: Any,
    terms: Terms = TERMS,
    *,
    ordered: bool = False,
    warn: Callable[[str], None] = lambda line: None,
    begun: Callable[[Runner], None] = lambda runner: None,
) -> Runner:
    """One run from beginning to end."""
    failures = LineFile(failures_path(output.path))
    output.open()
    failures.open()
    journal = Journal(output, failures, terms.patience_seconds, warn)
    runner = Runner(ask, journal, Known.of(output, failures), terms=terms, warn=warn)
    begun(runner)
    writer = asyncio.create_task(journal.run())
    client = AsyncClient("http://127.0.0.1:1")
    try:
        await runner.run(feed(source, Settings(), client.parts))
        settle(runner.known, output, failures, runner.complete, ordered)
    finally:
        journal.close()
        await writer
        failures.close()
        output.close()
        await client.close()
    return runner


def lines(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def ids(path: Path) -> list[str]:
    return [line.get("custom_id") or line["id"] for line in lines(path)]


def read_parquet(path: Path) -> dict[str, list[Any]]:
    """The columns of a file or folder; skips the test where pyarrow, which is an extra, is not installed."""
    columns: dict[str, list[Any]] = pytest.importorskip("pyarrow.parquet").read_table(path).to_pydict()
    return columns
