"""What was measured on H200s with vLLM 0.26.0 and Qwen2.5-VL-7B shapes (2026-11-21), and the same load, simulated.

Every row is one run of a closed loop over 1024 x 1024 JPEG photos, 64 tokens out: 1,225 visual tokens under max_pixels
1,003,520 and about 18 of text. "unique": 200 different pictures. "repeat": 20 pictures x 10 questions, first time.
"cached": again, with new questions. "uuid": the same by uuid, without data. "text": 30 words, 400 requests. These have
64 in flight; "c1" has one, one token out, and its figure is the median TTFT in ms. All others are requests a second.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from tests.plan.shapes import CONFIGS
from vlfleet.hardware.catalogue import find_model
from vlfleet.plan.demand import ImageSize, Picture
from vlfleet.plan.shape import read_shape
from vlfleet.plan.simulate_replica import Measured, Replica
from vlfleet.plan.simulate_requests import Image, Request
from vlfleet.plan.speed import Percentiles, Setup
from vlfleet.plan.speed_coefficients import Coefficients
from vlfleet.plan.speed_step import Batch
from vlfleet.plan.speed_work import Cut

SHAPE_7B = read_shape(CONFIGS["Qwen2.5-VL-7B"])
FP8_7B = read_shape(CONFIGS["Qwen2.5-VL-7B"], "fp8")
TEXT_TOKENS = 18
WORDS_TOKENS = 41
PICTURE = Picture(ImageSize(1024, 1024), 1.0, 1225, 4900)

SERVED = Setup(
    shape=SHAPE_7B,
    cut=Cut(),
    gpu=find_model("H200"),
    kv_cache_tokens=2_090_640,
    max_pixels=1_003_520,
)
LARGE = replace(SERVED, max_num_batched_tokens=65536)
SETUPS = {
    "defaults": SERVED,
    "32768": replace(SERVED, max_num_batched_tokens=32768),
    "65536": LARGE,
    "65536 compiled": replace(LARGE, cut=Cut(compile_mm_encoder=True)),
    "65536 fp8": replace(LARGE, shape=FP8_7B),
    "tp2": replace(SERVED, cut=Cut(tensor_parallel_size=2, mm_encoder_tp_mode="data")),
}

MEASURED: dict[str, float] = {
    **{f"offline decode {batch}": rate for batch, rate in ((1, 202.8), (64, 11591.8), (256, 28475.1))},
    **{
        f"{setup} {phase}": value
        for setup, values in {
            "defaults": (16.1, 29.7, 39.7, 38.1, 134, 108, 59, 53),
            "32768": (15.6, 58.4, 80.2, 99.0, 128, 111, 69, 53),
            "65536": (15.0, 59.0, 78.0, 95.0, 127, 132, 24, 17),
            "65536 compiled": (19.2, 64.2, 90.3, 98.5, 127, 93, 22, 15),
            "65536 fp8": (17.2, 66.5, 92.6, 109.5, 161, 133, 24, 16),
            "tp2": (14.6, 24.5, 28.5, 26.8, 133, 157, 90, 98),
        }.items()
        for phase, value in zip(
            ("unique", "repeat", "cached", "uuid", "text", "unique c1", "cached c1", "uuid c1"), values, strict=True
        )
    },
    "two unique": 38.9,
    "two unique ttft": 1290,
    "two repeat": 139.5,
    "two repeat ttft": 224,
    "two cached": 188.7,
    "two cached ttft": 188,
    "two cached at 64": 139.4,
    "two cached at 64 ttft": 55,
    "two uuid": 222.1,
    "two uuid ttft": 96,
    "two uuid at 64": 148.1,
    "two uuid at 64 ttft": 29,
    "two text": 290.1,
    "two text ttft": 53,
}
"""The "two" rows: two independent "65536 compiled" engines, each picture always to the same one, 128 in flight."""


@dataclass(frozen=True)
class _Load:
    """Requests in the manner of the load generator."""

    replica: Replica
    numbers: Iterable[int]

    def run(self, images: Sequence[Image | None], output: int, concurrency: int) -> Measured:
        text = [WORDS_TOKENS if image is None else TEXT_TOKENS for image in images]
        requests = [
            Request(next(iter(self.numbers)), [] if image is None else [image], tokens, output)
            for image, tokens in zip(images, text, strict=True)
        ]
        return self.replica.run(requests, concurrency)


def _rate(measured: Measured) -> float:
    return len(measured.requests) / measured.seconds


def _ttft_ms(measured: Measured) -> float:
    return 1000 * Percentiles.of([request.ttft_seconds for request in measured.requests]).p50


def _new(first: int, count: int) -> list[Image]:
    return [Image(number, PICTURE) for number in range(first, first + count)]


def _asked(pictures: Sequence[Image], times: int) -> list[Image]:
    mix = list(pictures) * times
    random.Random(1).shuffle(mix)
    return mix


def _by_uuid(images: Sequence[Image]) -> list[Image]:
    return [replace(image, sent=False) for image in images]


def one_engine(name: str, setup: Setup) -> dict[str, float]:
    """The phases of one measured run, in their order, on one engine whose caches live through all of them."""
    load = _Load(Replica(setup), iter(range(10**9)))
    load.run(_new(0, 8), 8, 4)
    found = {"unique": _rate(load.run(_new(1000, 200), 64, 64))}
    first = _new(2000, 20)
    found["repeat"] = _rate(load.run(_asked(first, 10), 64, 64))
    found["cached"] = _rate(load.run(_asked(first, 10), 64, 64))
    second = _new(3000, 20)
    load.run(second, 64, 64)
    load.run(_asked(second, 10), 64, 64)
    found["uuid"] = _rate(load.run(_by_uuid(_asked(second, 10)), 64, 64))
    found["text"] = _rate(load.run([None] * 400, 64, 64))
    found["unique c1"] = _ttft_ms(load.run(_new(4000, 10), 1, 1))
    found["cached c1"] = _ttft_ms(load.run(first[:10], 1, 1))
    found["uuid c1"] = _ttft_ms(load.run(_by_uuid(second[:10]), 1, 1))
    return {f"{name} {phase}": value for phase, value in found.items()}


def two_engines(setup: Setup) -> dict[str, float]:
    """One of the two; the other is its twin."""
    load = _Load(Replica(setup), iter(range(10**9)))
    load.run(_new(0, 8), 8, 4)
    found = {"unique": load.run(_new(1000, 200), 64, 64)}
    first = _new(2000, 20)
    found["repeat"] = load.run(_asked(first, 10), 64, 64)
    found["cached"] = load.run(_asked(first, 10), 64, 64)
    found["cached at 64"] = load.run(_asked(first, 10), 64, 32)
    second = _new(3000, 20)
    load.run(second, 64, 32)
    found["uuid"] = load.run(_by_uuid(_asked(second, 10)), 64, 64)
    found["uuid at 64"] = load.run(_by_uuid(_asked(second, 10)), 64, 32)
    found["text"] = load.run([None] * 300, 64, 64)
    rates = {f"two {phase}": 2 * _rate(measured) for phase, measured in found.items()}
    return rates | {f"two {phase} ttft": _ttft_ms(measured) for phase, measured in found.items()}


def offline_decode(setup: Setup) -> dict[str, float]:
    """Tokens a second of `LLM.generate`: 256 tokens after about 33 of prompt, in one batch."""
    clock = setup.step_clock()
    found = {}
    for batch in (1, 64, 256):
        prompt = Batch(prompt_tokens=33 * batch, prompt_pairs=33 * 17 * batch, finished_prompts=batch)
        steps = [Batch(decodes=batch, decode_context=(33 + done) * batch) for done in range(1, 256)]
        seconds = clock.seconds(prompt) + sum(clock.seconds(step) for step in steps)
        found[f"offline decode {batch}"] = 256 * batch / seconds
    return found


def predicted(coefficients: Coefficients | None = None, rows: Iterable[str] = MEASURED) -> dict[str, float]:
    """What the model says to the rows of these names."""
    wanted = set(rows)
    found: dict[str, float] = {}
    if any(row.startswith("offline") for row in wanted):
        found |= offline_decode(replace(SERVED, coefficients=coefficients))
    for name, setup in SETUPS.items():
        if any(row.startswith(f"{name} ") and row in MEASURED for row in wanted):
            found |= one_engine(name, replace(setup, coefficients=coefficients))
    if any(row.startswith("two ") for row in wanted):
        found |= two_engines(replace(SETUPS["65536 compiled"], coefficients=coefficients))
    return {row: found[row] for row in MEASURED if row in wanted}


def residuals(coefficients: Coefficients, rows: Iterable[str]) -> list[float]:
    """log(predicted / measured)."""
    return [math.log(value / MEASURED[row]) for row, value in predicted(coefficients, rows).items()]
