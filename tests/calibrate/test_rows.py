"""Coefficients that explain measurements: found again where they are known, and left alone where nothing tells."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from tests.plan.shapes import CONFIGS
from vlfleet.calibrate import rows
from vlfleet.calibrate.cuts import Depth, cut_shape
from vlfleet.calibrate.rows import DECODE, PICTURE, PICTURES, PREFILL, TEXT, Row
from vlfleet.hardware.catalogue import find_model
from vlfleet.plan.shape import ModelShape, read_shape
from vlfleet.plan.speed import Setup
from vlfleet.plan.speed_coefficients import Coefficients, coefficients_of
from vlfleet.plan.speed_work import Cut

GPU = find_model("H200")
SHAPE = read_shape(CONFIGS["Qwen2.5-VL-7B"])
START = coefficients_of(GPU)


def setup(shape: ModelShape, tp: int = 1) -> Setup:
    mode = Cut(tensor_parallel_size=tp, mm_encoder_tp_mode="data" if tp > 1 else "weights")
    return Setup(shape, mode, GPU, kv_cache_tokens=10_000_000, max_pixels=3_211_264)


def load(engine: Setup) -> list[Row]:
    """The rows of one engine but for those that take a second to simulate."""
    steps = [Row(DECODE, engine, batch, 1) for batch in (1, 64, 256)] + [Row(PREFILL, engine, 8192, 1)]
    return steps + [Row(PICTURE, engine, side, 1, 14) for side in (448, 1344)]


def measured(asked: list[Row], true: Coefficients, noise: float = 0.0) -> list[Row]:
    draw = random.Random(5)
    return [replace(row, value=rows.predict(row, true) * math.exp(draw.gauss(0, noise))) for row in asked]


CUTS = [row for depth in (Depth(4, 8), Depth(12, 16)) for row in load(setup(cut_shape(SHAPE, depth)))]


@pytest.mark.parametrize(("noise", "percent"), [(0.0, 2.0), (0.02, 6.0)])
def test_two_cuts_predict_the_whole_model(noise: float, percent: float) -> None:
    draw = random.Random(1)
    true = replace(
        START, **{name: getattr(START, name) * math.exp(draw.uniform(-0.4, 0.4)) for name in rows.names(CUTS)}
    )
    found = rows.fitted(measured(CUTS, true, noise), START)
    whole = measured(load(setup(SHAPE)), true)
    before, after = rows.errors(whole, START), rows.errors(whole, found)
    assert max(map(abs, before.values())) > 10
    assert {name: error for name, error in after.items() if abs(error) > percent} == {}


def test_what_nothing_tells_of_stays() -> None:
    true = replace(START, step_seconds=2 * START.step_seconds)
    few = measured([Row(DECODE, setup(cut_shape(SHAPE, Depth(4, 8))), batch, 1) for batch in (1, 64)], true)
    found = rows.fitted(few, START)
    assert found.step_seconds > 1.5 * START.step_seconds
    for name in ("rank_step_seconds", "vision_call_seconds", "decode_seconds_per_pixel", "gemm_efficiency"):
        assert getattr(found, name) == pytest.approx(getattr(START, name), rel=0.01), name


def test_ranks_are_fitted_where_ranks_were_measured() -> None:
    both = load(setup(SHAPE, 2))
    more = set(rows.names(both)) - set(rows.names(CUTS))
    assert more >= {"rank_step_seconds", "broadcast_seconds_per_byte"}
    assert all("rank" in name or "broadcast" in name for name in more)


def test_closed_loops_are_simulated() -> None:
    engine = setup(SHAPE)
    text, pictures = Row(TEXT, engine, 64, 1, 41, 64, 128), Row(PICTURES, engine, 1024, 1, 14, 16, 32)
    assert 50 < rows.predict(text, START) < 400, "127 to 161 were measured with answers of 64 tokens"
    assert 10 < rows.predict(pictures, START) < 40, "15 to 17 were measured"
    slower = replace(START, process_seconds_per_pixel=20 * START.process_seconds_per_pixel)
    assert rows.predict(pictures, slower) < rows.predict(pictures, START) / 2


def test_names_say_what_was_measured() -> None:
    assert Row(DECODE, setup(SHAPE, 2), 64, 1).name == "decode 64, 28 layers, TP 2"
    assert Row(PICTURE, setup(SHAPE), 1344, 1).visual_tokens == 48 * 48
    assert 16 <= min(map(rows.answer_tokens, range(100))) < max(map(rows.answer_tokens, range(100))) <= 48
