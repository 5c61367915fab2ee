"""What was measured, what the speed model says to it, and the coefficients with which both agree. Pure."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from vlfleet.plan.demand import ImageSize, Picture, Workload
from vlfleet.plan.least_squares import fit
from vlfleet.plan.simulate_replica import Replica
from vlfleet.plan.simulate_requests import Image, Request
from vlfleet.plan.speed import Setup
from vlfleet.plan.speed_coefficients import FITTED, Coefficients
from vlfleet.plan.speed_step import Batch

DECODE, PREFILL, PICTURE, PICTURES, TEXT = "decode", "prefill", "picture", "pictures", "text"
RATES = (PICTURES, TEXT)
"""Requests a second; of the others, seconds."""
SHORTEST, LONGEST = 16, 48
"""Tokens of answers to requests that come many at once: of one length they would march in step."""
FEWEST_ROWS = 4
DECODE_PROMPT, DECODE_ANSWER = 64, 640
"""Tokens of a sequence while decoding is timed."""
_DECODE_CONTEXT = DECODE_PROMPT + DECODE_ANSWER // 2
"""Tokens of context on average meanwhile."""
_ALSO = ("gemm_efficiency", "memory_efficiency", "request_seconds")
"""Beside `FITTED`: priors of the GPU, and what the API server's loop needs for a request."""
_STAY = 0.03
"""Weight of a coefficient that leaves its start, against a row that is off by as much (in logarithms): what
the rows say little of stays where it was."""
_MOST_EFFICIENT, _WALL = 0.95, 20.0
"""No peak of a datasheet is reached: a fit that asks for more explains something else by it. The weight makes a
hundredth more as bad as a row that is off by a fifth."""


@dataclass(frozen=True)
class Row:
    """One measurement."""

    kind: str
    setup: Setup
    """The engine."""
    size: int
    """decode: sequences; prefill: tokens; picture, pictures: the side in pixels; text: requests in flight."""
    value: float
    """Seconds of a step (decode, prefill) or to the first token (picture); requests a second (pictures, text)."""
    text_tokens: int = 40
    load: int = 1
    count: int = 3
    """Requests that were sent, `load` of them in flight."""

    @property
    def name(self) -> str:
        """Such as "decode 64, 12 layers, TP 2"."""
        ranks = self.setup.cut.tensor_parallel_size
        layers = f"{self.setup.shape.num_hidden_layers} layers"
        return f"{self.kind} {self.size}, {layers}" + (f", TP {ranks}" if ranks > 1 else "")

    @property
    def picture(self) -> Picture:
        """What the engine makes of a picture of this side."""
        (found,) = self.setup.pictures(Workload(images=(ImageSize(self.size, self.size),)))
        return found

    @property
    def visual_tokens(self) -> int:
        return self.picture.tokens


def answer_tokens(number: int) -> int:
    """Of the answer to the request of this number."""
    return random.Random(number).randint(SHORTEST, LONGEST)  # noqa: S311


def predict(row: Row, coefficients: Coefficients) -> float:
    """What the speed model says to a row."""
    setup = replace(row.setup, coefficients=coefficients)
    if row.kind == DECODE:
        batch = Batch(decodes=row.size, decode_context=row.size * _DECODE_CONTEXT)
        return setup.step_clock().seconds(batch)
    if row.kind == PREFILL:
        pairs = row.size * (row.size + 1) / 2
        return setup.step_clock().seconds(Batch(row.size, pairs, finished_prompts=1))
    single = row.kind == PICTURE
    media = [] if row.kind == TEXT else [row.picture]
    sent = [
        Request(
            number,
            [Image(number, each) for each in media],
            row.text_tokens,
            1 if single else answer_tokens(number),
        )
        for number in range(row.count)
    ]
    measured = Replica(setup).run(sent, row.load)
    if single:
        return statistics.median(request.ttft_seconds for request in measured.requests)
    return len(measured.requests) / measured.seconds


def names(rows: Sequence[Row]) -> tuple[str, ...]:
    """The coefficients that are fitted: those that speak of ranks only where ranks were measured."""
    known = {field.name for field in fields(Coefficients)}
    ranks = any(row.setup.cut.tensor_parallel_size > 1 for row in rows)
    return tuple(
        name
        for name in dict.fromkeys((*FITTED, *_ALSO))
        if name in known and (ranks or not name.startswith(("rank_", "broadcast_")))
    )


def fitted(rows: Sequence[Row], start: Coefficients) -> Coefficients:
    """`start` with the coefficients of `names(rows)` fitted to the rows; no efficiency is above 0.95."""
    wanted = names(rows)
    shares = [name for name in wanted if name.endswith("_efficiency")]

    def residuals(tried: Coefficients) -> list[float]:
        off = [math.log(predict(row, tried) / row.value) for row in rows]
        off += [max(0.0, math.log(getattr(tried, name) / _MOST_EFFICIENT)) * _WALL for name in shares]
        return off + [_STAY * math.log(getattr(tried, name) / getattr(start, name)) for name in wanted]

    found = fit(start, wanted, residuals, rounds=12)
    return replace(found, **{name: min(getattr(found, name), _MOST_EFFICIENT) for name in shares})


def errors(rows: Sequence[Row], coefficients: Coefficients) -> dict[str, float]:
    """Percent by row, positive where too much is predicted."""
    return {row.name: 100 * (predict(row, coefficients) / row.value - 1) for row in rows}
