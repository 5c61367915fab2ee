"""Coefficients that explain measurements: found again where they are known, and left alone where nothing tells."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from benchmarks import plan_grid_rows
from benchmarks.plan_grid_points import GRIDS, HERE, TEXT_TOKENS, read_measured, setup_of
from tests.plan.shapes import CONFIGS
from vlfleet.calibrate import rows
from vlfleet.calibrate.cuts import Depth, cut_shape, depths
from vlfleet.calibrate.rows import DECODE, PICTURE, PICTURES, PREFILL, TEXT, Row
from vlfleet.hardware.catalogue import find_model
from vlfleet.hardware.catalogue_table import GpuModel
from vlfleet.plan.shape import ModelShape, read_shape
from vlfleet.plan.speed import Setup
from vlfleet.plan.speed_coefficients import Coefficients, coefficients_of
from vlfleet.plan.speed_work import Cut
from vlfleet.plan.terms import GIB

GPU = find_model("H200")
SHAPE = read_shape(CONFIGS["Qwen2.5-VL-7B"])
START = coefficients_of(GPU)


def setup(shape: ModelShape, tp: int = 1, gpu: GpuModel = GPU) -> Setup:
    mode = Cut(tensor_parallel_size=tp, mm_encoder_tp_mode="data" if tp > 1 else "weights")
    return Setup(shape, mode, gpu, kv_cache_tokens=10_000_000, max_pixels=3_211_264)


def load(engine: Setup) -> list[Row]:
    """The rows of one engine but for those that take a second to simulate."""
    steps = [Row(DECODE, engine, batch, 1) for batch in (1, 64, 256)] + [Row(PREFILL, engine, 8192, 1)]
    return steps + [Row(PICTURE, engine, side, 1, 14) for side in (448, 1344)]


def measured(asked: list[Row], true: Coefficients, noise: float = 0.0) -> list[Row]:
    draw = random.Random(5)
    return [replace(row, value=rows.predict(row, true) * math.exp(draw.gauss(0, noise))) for row in asked]


def others(engine: Setup) -> list[Row]:
    """What no engine of a calibration is asked."""
    return [Row(DECODE, engine, batch, 1) for batch in (16, 128)] + [Row(PREFILL, engine, 4096, 1)]


def unlike(start: Coefficients, names: Sequence[str]) -> Coefficients:
    """Another machine: all off by up to a half, but no GPU above its datasheet."""
    draw = random.Random(1)
    other = {name: getattr(start, name) * math.exp(draw.uniform(-0.4, 0.4)) for name in names}
    return replace(start, **{name: min(0.93, x) if "efficiency" in name else x for name, x in other.items()})


@pytest.mark.parametrize(("noise", "percent"), [(0.0, 2.0), (0.02, 6.0)])
@pytest.mark.parametrize(
    ("model", "card"), [("Qwen2.5-VL-7B", "H200"), ("Qwen2.5-VL-7B", "RTX-4090"), ("Qwen2.5-VL-72B", "H200")]
)
def test_the_deep_cut_predicts_the_whole_model(model: str, card: str, noise: float, percent: float) -> None:
    """28 of 28 layers, 19 of 28, and 28 of 80; also batches and prompts that were not measured."""
    gpu, shape = find_model(card), read_shape(CONFIGS[model])
    start, (_, deep) = coefficients_of(gpu), depths(shape, round(gpu.cuda_gib * GIB))
    asked = load(setup(cut_shape(shape, deep), gpu=gpu))
    true = unlike(start, rows.names(asked))
    found = rows.fitted(measured(asked, true, noise), start)
    engine = setup(shape, gpu=gpu)
    whole = measured(load(engine) + others(engine), true)
    before, after = rows.errors(whole, start), rows.errors(whole, found)
    assert max(map(abs, before.values())) > 10
    assert {name: error for name, error in after.items() if abs(error) > percent} == {}


@pytest.mark.parametrize("depth", [Depth(4, 8), Depth(28, 32)])
def test_no_gpu_is_faster_than_its_datasheet(depth: Depth) -> None:
    """Even if the rows say so; what an H200 that waits for its CPU had said was 1.29."""
    asked = load(setup(cut_shape(SHAPE, depth)))
    fast = measured(asked, replace(START, memory_efficiency=1.29, gemm_efficiency=1.1))
    found = rows.fitted(fast, START)
    assert 0.9 < found.memory_efficiency <= 0.95
    assert 0.9 < found.gemm_efficiency <= 0.95


def test_a_fit_to_the_whole_7b_of_an_h200_is_an_h200(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured: shares of the datasheet that a GPU can have, and costs of the size of the built-in ones."""
    context = plan_grid_rows.DECODE_PROMPT + (plan_grid_rows.DECODE_FEW + plan_grid_rows.DECODE_MANY) // 2
    monkeypatch.setattr(rows, "_DECODE_CONTEXT", context)
    _, seen = read_measured(HERE / "plan_grid2_h200.json")
    engine = setup_of(plan_grid_rows.ENGINE, START, GRIDS[2])
    asked = [Row(DECODE, engine, batch, seen[f"decode {batch}"]) for batch in plan_grid_rows.SEQUENCES]
    asked += [Row(PICTURE, engine, plan_grid_rows.SIDE, seen["picture"], TEXT_TOKENS)]
    found = rows.fitted(asked, START)
    assert 0.82 < found.memory_efficiency < 0.95
    assert max(map(abs, rows.errors(asked, found).values())) < 3
    for name in rows.names(asked):
        assert 0.6 < getattr(found, name) / getattr(START, name) < 1.6, name


def test_what_nothing_tells_of_stays() -> None:
    true = replace(START, step_seconds=2 * START.step_seconds)
    few = measured([Row(DECODE, setup(cut_shape(SHAPE, Depth(4, 8))), batch, 1) for batch in (1, 64)], true)
    found = rows.fitted(few, START)
    assert found.step_seconds > 1.5 * START.step_seconds
    for name in ("rank_step_seconds", "vision_call_seconds", "decode_seconds_per_pixel", "gemm_efficiency"):
        assert getattr(found, name) == pytest.approx(getattr(START, name), rel=0.01), name


def test_ranks_are_fitted_where_ranks_were_measured() -> None:
    both = load(setup(SHAPE, 2))
    more = set(rows.names(both)) - set(rows.names(load(setup(SHAPE))))
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
