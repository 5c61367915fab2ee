"""What `plan_grid` prints: errors point by point, with and without a calibration, and what a plan loses by them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping

from benchmarks.plan_grid_points import GPU, Figures, Grid, Point, predict, read_predictions
from benchmarks.plan_grid_rows import CALIBRATED, calibrated, errors
from vlfleet.hardware.catalogue import find_model
from vlfleet.plan.speed_coefficients import FITTED_POINTS, coefficients_of

LIMITS = {"requests/s": (25, 5), "TTFT p50": (35, 8), "TPOT": (35, 8)}
"""Percent, without and with a calibration."""
_FIGURES: tuple[tuple[str, Callable[[Figures], float], int], ...] = (
    ("requests/s", lambda figures: figures.per_second, 1),
    ("TTFT p50", lambda figures: 1000 * figures.ttft_p50, 0),
    ("TPOT", lambda figures: 1000 * figures.tpot_p50, 1),
)


def report(grid: Grid, measured: Mapping[str, Figures], rows: Mapping[str, float]) -> list[str]:
    """Markdown. Where another number of requests was sent than was predicted for, it is predicted again for that."""
    points = {point.name: point for point in grid.points if point.name in measured}
    before = read_predictions(grid)
    now = coefficients_of(find_model(GPU))
    same = {n: predict(points[n], now, measured[n].requests) for n in points}
    as_told = {n: before[n] if before[n].requests == measured[n].requests else same[n] for n in points}
    lines = ["## As predicted before\n", *table({n: before[n] for n in points}, measured, calibrated=False)]
    if as_told != {n: before[n] for n in points} or now_differs(same, before):
        lines += [
            "\n## With today's model, for the requests that were sent\n",
            *table(same, measured, calibrated=False),
        ]
        others = {name: measured[name] for name in points if name not in FITTED_POINTS}
        if len(others) < len(points):
            lines += ["\n## Of these, the points that no coefficient was fitted on\n", *summary(same, others, False)]
    rows = {name: value for name, value in rows.items() if value > 0}
    if rows:
        coefficients = calibrated(rows)
        said = {n: predict(points[n], coefficients, measured[n].requests) for n in points}
        lines += ["\n## With the calibration's rows fitted (7B, TP 1), and nothing else\n"]
        lines += [f"{errors(rows, now)} before;\n{errors(rows, coefficients)} after.\n"]
        lines += [", ".join(f"{name} {getattr(coefficients, name):.4g}" for name in CALIBRATED), ""]
        lines += table(said, measured, calibrated=True)
    return [*lines, *regret(grid, as_told, measured)]


def now_differs(same: Mapping[str, Figures], before: Mapping[str, Figures]) -> bool:
    """Whether the model has changed since."""
    return any(abs(same[n].per_second / before[n].per_second - 1) > 0.001 for n in same)


def table(predicted: Mapping[str, Figures], measured: Mapping[str, Figures], calibrated: bool) -> list[str]:
    """Every point with its errors, and what they come to."""
    heads = "| ".join(f"{name}{'' if name == 'requests/s' else ' ms'} predicted | measured | error " for name in LIMITS)
    rows = [f"| point | {heads}|", "|---" * (1 + 3 * len(LIMITS)) + "|"]
    for name, said in predicted.items():
        cells = [name]
        for _, of, digits in _FIGURES:
            one, other = of(said), of(measured[name])
            cells += [f"{one:.{digits}f}", f"{other:.{digits}f}", f"{_error(one, other):+.0f} %"]
        rows.append(f"| {' | '.join(cells)} |")
    return [*rows, "", *summary(predicted, {name: measured[name] for name in predicted}, calibrated)]


def summary(predicted: Mapping[str, Figures], measured: Mapping[str, Figures], calibrated: bool) -> list[str]:
    """One line a figure."""
    lines = []
    for what, of, _ in _FIGURES:
        sizes = [abs(_error(of(predicted[name]), of(there))) for name, there in measured.items()]
        sizes = [size for size in sizes if not math.isnan(size)] or [math.nan]
        limit = LIMITS[what][calibrated]
        lines.append(
            f"{what}: mean error {statistics.mean(sizes):.1f} %, median {statistics.median(sizes):.1f} %, "
            f"largest {max(sizes):.0f} %, {sum(size <= limit for size in sizes)} of {len(sizes)} within {limit} %\n"
        )
    return lines


def _error(one: float, other: float) -> float:
    return 100 * (one / other - 1) if other else math.nan


def regret(grid: Grid, predicted: Mapping[str, Figures], measured: Mapping[str, Figures]) -> list[str]:
    """For every load that two or more ways to use both GPUs were measured under: what the predicted best one does,
    against the one that does best."""
    if not any(figures.goodput for figures in measured.values()):
        return []
    loads: dict[tuple[str, str], list[Point]] = {}
    for point in grid.points:
        if point.name in measured:
            loads.setdefault((point.model, point.what), []).append(point)
    rows, lost = [], []
    for (model, what), points in loads.items():
        if len({point.engine for point in points}) < 2:
            continue
        chosen = max(points, key=lambda point: _worth(predicted[point.name]))
        best = max(points, key=lambda point: _worth(measured[point.name]))
        got, possible = _worth(measured[chosen.name])[0], _worth(measured[best.name])[0]
        lost.append(100 * (1 - got / possible) if possible else 0.0)
        ways = ", ".join(f"{p.engine} {measured[p.name].goodput:.1f} ({predicted[p.name].goodput:.1f})" for p in points)
        rows.append(f"| {model} {what} | {ways} | {chosen.engine} | {best.engine} | {lost[-1]:.1f} % |")
    if not rows:
        return []
    head = ["\n## Regret\n", "| load | goodput measured (predicted) | chosen | best | lost |", "|---|---|---|---|---|"]
    return [*head, *rows, f"\nmean {statistics.mean(lost):.1f} %, largest {max(lost):.1f} %"]


def _worth(figures: Figures) -> tuple[float, float]:
    """Goodput; where nothing is in time, what is done at all decides."""
    return figures.goodput, figures.per_second
