"""The model against what was measured on H200s: 57 rows, 6 of them fitted, and a grid of 30 points, half of them."""

from __future__ import annotations

import statistics

import pytest

from benchmarks.plan_grid_points import GPU, GRIDS, HERE, predict, read_measured
from tests.plan.measured_h200 import MEASURED, predicted
from vlfleet.hardware.catalogue import find_model
from vlfleet.plan.speed_coefficients import FITTED, FITTED_POINTS, FITTED_ROWS, coefficients_of

THROUGHPUT, LATENCY = 25.0, 35.0
"""Percent that an uncalibrated prediction may be off."""
BEYOND = {
    "two cached ttft": "one load generator in one process sends 188 pictures a second and reads 12,000 tokens",
    "tp2 uuid c1": "98 ms by uuid, 90 with data: this run of TP 2 took longer than the grid's for one request (157 ms "
    "for a new picture against 110 for a larger one), and only the grid was fitted",
}
"""Rows outside, each with what may be the cause; none is proven."""


@pytest.fixture(scope="module")
def errors() -> dict[str, float]:
    """Percent, positive where too much was predicted."""
    return {row: 100 * (value / MEASURED[row] - 1) for row, value in predicted().items()}


def latency(row: str) -> bool:
    return row.endswith(("c1", "ttft"))


def test_fitted_rows_are_met(errors: dict[str, float]) -> None:
    assert len(FITTED_ROWS) + 3 * len(FITTED_POINTS) > 4 * len(FITTED)
    assert {row: round(errors[row], 1) for row in FITTED_ROWS if abs(errors[row]) > 3} == {}


def test_predicted_rows_are_in_their_bounds(errors: dict[str, float]) -> None:
    outside = {row for row in errors if abs(errors[row]) > (LATENCY if latency(row) else THROUGHPUT)}
    assert outside == set(BEYOND)


def test_more_than_half_is_predicted_and_the_mean_error_is_what_the_documents_say(errors: dict[str, float]) -> None:
    told = {row: abs(error) for row, error in errors.items() if row not in FITTED_ROWS}
    assert len(told) > 0.8 * len(MEASURED)
    rates = [error for row, error in told.items() if not latency(row)]
    latencies = [error for row, error in told.items() if latency(row)]
    assert (len(rates), round(statistics.mean(rates))) == (35, 9)
    assert (len(latencies), round(statistics.mean(latencies))) == (24, 16)


def test_what_was_learned_from_the_measurements_is_predicted() -> None:
    """Orders, which a plan lives from: each by its measured rows and by the predicted ones."""
    found = predicted()
    for better, worse in (
        ("65536 cached", "defaults cached"),
        ("65536 compiled unique", "65536 unique"),
        ("65536 fp8 text", "65536 text"),
        ("two uuid", "two cached"),
        ("two cached", "two repeat"),
    ):
        assert MEASURED[better] > MEASURED[worse]
        assert found[better] > found[worse]
    assert found["two unique"] > 2 * found["tp2 unique"]  # two replicas, not tensor parallelism


def test_the_other_half_of_the_grid_is_predicted() -> None:
    """Every second point was fitted, of the others nothing; the same number of requests is sent as was measured."""
    measured, _ = read_measured(HERE / "plan_grid_h200.json")
    others = {point.name: point for point in GRIDS[1].points if point.name not in FITTED_POINTS}
    assert len(others) == len(measured) / 2
    wrong: dict[str, list[float]] = {"per_second": [], "ttft_p50": [], "tpot_p50": []}
    for name, point in others.items():
        said = predict(point, coefficients_of(find_model(GPU)), measured[name].requests)
        for figure, errors in wrong.items():
            errors.append(abs(100 * (getattr(said, figure) / getattr(measured[name], figure) - 1)))
    assert max(wrong["per_second"]) < 25
    assert max(wrong["tpot_p50"]) < 35
    assert sum(error < 35 for error in wrong["ttft_p50"]) >= 14  # the 7B at TP 1, 448 pixels, 64 in flight: -48 %
    assert [round(statistics.mean(errors)) for errors in wrong.values()] == [7, 16, 9]
