"""The few rows that `vlfleet calibrate` measures, as `plan_grid` measures them on its 7B, and a fit on nothing else."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping

from benchmarks.plan_grid_points import GPU, GRIDS, Point, answer_tokens, setup_of
from vlfleet.hardware.catalogue import find_model
from vlfleet.plan.demand import ImageSize, Workload
from vlfleet.plan.least_squares import fit
from vlfleet.plan.simulate_replica import Replica
from vlfleet.plan.simulate_requests import Image, Request
from vlfleet.plan.speed_coefficients import Coefficients, coefficients_of
from vlfleet.plan.speed_step import Batch

ENGINE = Point("q25vl-7b", 1, 672, 32)
"""Any point of the engine on which the rows are measured."""
SEQUENCES = (1, 64, 256)
DECODE_PROMPT, DECODE_FEW, DECODE_MANY = 64, 8, 136
"""Tokens of the prompts, and of the answers whose times are subtracted from one another."""
PREFILL_FEW, PREFILL_MANY = 512, 6656
"""Tokens of the prompts whose times are subtracted from one another."""
SIDE, PICTURE_LOAD, PICTURE_REQUESTS = 1024, 16, 96
CALIBRATED = (
    "gemm_efficiency",
    "memory_efficiency",
    "unaligned_efficiency",
    "step_seconds",
    "sequence_seconds",
    "mixed_step_seconds",
    "vision_call_seconds",
    "process_seconds_per_pixel",
)
_STAY = 0.05
"""How far a coefficient has to go, in logarithms, to count as much as a row that is off by a twentieth of it: what the
rows say little of stays where it was."""


def predicted_rows(coefficients: Coefficients) -> dict[str, float]:
    """Seconds of a decode step, of a prefill and to the first token about a picture; pictures a second."""
    setup = setup_of(ENGINE, coefficients, GRIDS[2])
    clock = setup.step_clock()
    (picture,) = setup.pictures(Workload(images=(ImageSize(SIDE, SIDE),)))
    found = {}
    for sequences in SEQUENCES:
        context = DECODE_PROMPT + (DECODE_FEW + DECODE_MANY) // 2
        found[f"decode {sequences}"] = clock.seconds(Batch(decodes=sequences, decode_context=sequences * context))

    def prefill(tokens: int) -> float:
        return clock.seconds(Batch(tokens, tokens * (tokens + 1) / 2, finished_prompts=1))

    found["prefill"] = prefill(PREFILL_MANY) - prefill(PREFILL_FEW)
    (alone,) = Replica(setup).run([Request(0, [Image(0, picture)], 14, 1)], 1).requests
    found["picture"] = alone.ttft_seconds
    sent = [Request(n, [Image(n, picture)], 14, answer_tokens(n)) for n in range(PICTURE_REQUESTS)]
    measured = Replica(setup).run(sent, PICTURE_LOAD)
    found["pictures a second"] = len(sent) / measured.seconds
    return {name: round(value, 6) for name, value in found.items()}


def calibrated(rows: Mapping[str, float], start: Coefficients | None = None) -> Coefficients:
    """The coefficients of this GPU fitted to the rows, as `vlfleet calibrate` does it."""
    begin = start or coefficients_of(find_model(GPU))

    def residuals(tried: Coefficients) -> list[float]:
        said = predicted_rows(tried)
        off = [math.log(said[name] / value) for name, value in rows.items()]
        return off + [_STAY * math.log(getattr(tried, name) / getattr(begin, name)) for name in CALIBRATED]

    return fit(begin, CALIBRATED, residuals, rounds=15)


def errors(rows: Mapping[str, float], coefficients: Coefficients) -> str:
    """One line."""
    said = predicted_rows(coefficients)
    off = {name: 100 * (said[name] / value - 1) for name, value in rows.items()}
    each = ", ".join(f"{name} {error:+.0f} %" for name, error in off.items())
    return f"{each}; mean {statistics.mean(map(abs, off.values())):.1f} %"
