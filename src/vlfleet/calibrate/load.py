"""A short load on one engine, and what it measures."""

from __future__ import annotations

import asyncio
import json
import random
import re
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from vlfleet.calibrate.counters import Sample, sample, step_seconds
from vlfleet.calibrate.engine import Running
from vlfleet.calibrate.photos import photos
from vlfleet.calibrate.rows import (
    DECODE,
    DECODE_ANSWER,
    DECODE_PROMPT,
    PICTURE,
    PICTURES,
    PREFILL,
    TEXT,
    Row,
    answer_tokens,
)
from vlfleet.errors import VlfleetError
from vlfleet.plan.speed import Setup

_POLL_SECONDS = 0.1
_TOKENS = (100, 600)
"""Ids that every Qwen tokenizer has and that mean nothing special, the bundled one's too."""
_QUESTION = "Describe the picture."
_WORDS = "hello " * 30


@dataclass(frozen=True)
class Sizes:
    """How much of a load: as much as a GPU needs to be timed, or what a CPU can do in the same time."""

    batches: Sequence[int] = (1, 64, 256)
    decode_tokens: int = DECODE_ANSWER
    prompts: int = 8
    """Steps of prefill that are timed."""
    prompt_tokens: int = 8192
    """The most tokens of such a step; it is filled to the brim."""
    sides: Sequence[int] = (448, 1344)
    """Of pictures that come one by one."""
    each: int = 5
    side: int = 1024
    """Of pictures that come many at once."""
    pictures: int = 48
    requests: int = 256
    """Of text alone."""


CPU = Sizes((1, 4), 24, 2, 256, (224,), 2, 224, 6, 8)


@dataclass(frozen=True)
class Answer:
    """One answer that came as a stream."""

    sent: float
    first: float
    ended: float
    prompt_tokens: int


async def measure(
    engine: Running, setup: Setup, sizes: Sizes, tell: Callable[[str], None], problem: Callable[[str], None]
) -> list[Row]:
    """The rows of one engine. When something fails, those before it; `problem` gets the cause."""
    connector, timeout = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=120)
    rows: list[Row] = []
    async with aiohttp.ClientSession(
        engine.url, headers=dict(engine.headers), connector=connector, timeout=timeout
    ) as s:
        load = _Load(s, engine.model, setup)
        tell("warm-up")
        try:
            await load.warm_up(sizes)
            for batch in sizes.batches:
                tell(f"decode {batch}")
                rows.append(Row(DECODE, setup, batch, await load.decode(batch, sizes.decode_tokens)))
            tell("prefill")
            tokens = min(sizes.prompt_tokens, setup.max_num_batched_tokens)
            rows.append(Row(PREFILL, setup, tokens, await load.prefill(tokens, sizes.prompts)))
            for side in sizes.sides:
                tell(f"pictures of {side} x {side}")
                rows.append(await load.one_by_one(side, sizes.each))
            tell("pictures at once")
            rows.append(await load.at_once(PICTURES, sizes.side, sizes.pictures, 16))
            tell("text at once")
            rows.append(await load.at_once(TEXT, 0, sizes.requests, 64))
        except (aiohttp.ClientError, TimeoutError, OSError, VlfleetError) as error:
            problem(f"the rest of its load is left out: {str(error) or type(error).__name__}")
    return rows


class _Load:
    def __init__(self, session: aiohttp.ClientSession, model: str, setup: Setup) -> None:
        self._session = session
        self._model = model
        self._setup = setup
        self._random = random.Random(7)  # noqa: S311

    async def warm_up(self, sizes: Sizes) -> None:
        """Kernels that are compiled when they are first met."""
        await self._complete(self._prompts(4, DECODE_PROMPT), 8)
        tokens = min(sizes.prompt_tokens, self._setup.max_num_batched_tokens)
        await self._complete(self._prompts(1, tokens), 1)
        for side in {*sizes.sides, sizes.side}:
            await self._stream(await asyncio.to_thread(photos, side, 2, 1_000_000 + side), 4, 2)

    async def decode(self, batch: int, tokens: int) -> float:
        """Seconds of a step in which `batch` sequences get a token each."""
        asked = asyncio.create_task(self._complete(self._prompts(batch, DECODE_PROMPT), tokens))
        samples: list[Sample] = [await self._sample()]
        try:
            while not asked.done():
                samples.append(await self._sample())
                await asyncio.wait((asked,), timeout=_POLL_SECONDS)
            await asked
        finally:
            asked.cancel()
        return step_seconds([*samples, await self._sample()], batch)

    async def prefill(self, tokens: int, prompts: int) -> float:
        """Seconds of a step with one prompt of `tokens`: what twelve prompts take longer than four, by eight.

        Each is a request of its own, so that the API server reads the next while the engine works.
        """

        async def seconds(count: int) -> float:
            asked = self._prompts(count, tokens)
            begun = time.perf_counter()
            await asyncio.gather(*(self._complete([prompt], 1) for prompt in asked))
            return time.perf_counter() - begun

        few, many = [], []
        for _ in range(3):
            few.append(await seconds(prompts // 2))
            many.append(await seconds(prompts // 2 + prompts))
        took = (statistics.median(many) - statistics.median(few)) / prompts
        if took <= 0:
            raise VlfleetError("more prompts took no longer than few", "")
        return took

    async def one_by_one(self, side: int, count: int) -> Row:
        """The median time to the first token."""
        answers = await self._stream(await asyncio.to_thread(photos, side, count, side * 1000), 1, 1)
        ttft = statistics.median(answer.first - answer.sent for answer in answers)
        return Row(PICTURE, self._setup, side, ttft, text_tokens=self._text_tokens(answers, side))

    async def at_once(self, kind: str, side: int, count: int, load: int) -> Row:
        """Requests a second, `load` in flight."""
        content = await asyncio.to_thread(photos, side, count, 1) if side else [""] * count
        answers = await self._stream(content, None, load)
        seconds = max(answer.ended for answer in answers) - min(answer.sent for answer in answers)
        tokens = self._text_tokens(answers, side)
        return Row(kind, self._setup, side or load, count / seconds, tokens, load, count)

    def _text_tokens(self, answers: Sequence[Answer], side: int) -> int:
        """Of a prompt, without its picture."""
        picture = Row(PICTURE, self._setup, side, 1.0).visual_tokens if side else 0
        return max(1, max(answer.prompt_tokens for answer in answers) - picture)

    def _prompts(self, count: int, tokens: int) -> list[list[int]]:
        """None begins as another does: no prefix is found in the KV cache."""
        return [[self._random.randrange(*_TOKENS) for _ in range(tokens)] for _ in range(count)]

    async def _sample(self) -> Sample:
        async with self._session.get("/metrics") as answer:
            return sample(await answer.text())

    async def _complete(self, prompts: list[list[int]], tokens: int) -> None:
        """All prompts in one request, the answer in one piece."""
        body = {"model": self._model, "prompt": prompts, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
        async with self._session.post("/v1/completions", json=body) as answer:
            await _check(answer)
            await answer.read()

    async def _stream(self, pictures: Iterable[str], tokens: int | None, load: int) -> list[Answer]:
        """One request for each picture ("" is text alone), `load` in flight; `tokens` None: of various lengths."""
        answers: list[Answer] = []
        left = enumerate(pictures)

        async def worker() -> None:
            for number, picture in left:
                answers.append(await self._ask(number, picture, tokens or answer_tokens(number)))

        await asyncio.gather(*(worker() for _ in range(load)))
        return answers

    async def _ask(self, number: int, picture: str, tokens: int) -> Answer:
        content: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": picture}}] if picture else []
        content.append({"type": "text", "text": _QUESTION if picture else f"{number} {_WORDS}"})
        body = {"messages": [{"role": "user", "content": content}], "model": self._model, "max_tokens": tokens}
        body |= {"temperature": 0, "ignore_eos": True, "stream": True, "stream_options": {"include_usage": True}}
        data = json.dumps(body).encode()
        sent, first, last = time.perf_counter(), 0.0, b""
        async with self._session.post(
            "/v1/chat/completions", data=data, headers={"Content-Type": "application/json"}
        ) as answer:
            await _check(answer)
            async for chunk in answer.content.iter_any():
                first = first or time.perf_counter()
                last = (last + chunk)[-1000:]
        told = re.findall(rb'"prompt_tokens":\s*(\d+)', last)
        if b"[DONE]" not in last or not told:
            raise VlfleetError("an answer ended too early", "")
        return Answer(sent, first, time.perf_counter(), int(told[-1]))


async def _check(answer: aiohttp.ClientResponse) -> None:
    if answer.status != 200:
        raise VlfleetError(f"the engine answers {answer.status}: {(await answer.text())[:200]}", "")
