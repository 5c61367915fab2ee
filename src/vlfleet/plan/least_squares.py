"""The least squares behind a calibration: coefficients of the speed model from measurements. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from vlfleet.plan.speed_coefficients import Coefficients

_NUDGE = 0.02
_MOST_STEP = 0.5


def fit(
    start: Coefficients, names: Sequence[str], residuals: Callable[[Coefficients], Sequence[float]], rounds: int = 60
) -> Coefficients:
    """`start` with the `names` changed so that the sum of squared `residuals` is least.

    `residuals` are relative errors, log(predicted / measured). The search is in logarithms, so that every coefficient
    stays positive, by Gauss-Newton with damping (Levenberg-Marquardt); deterministic.
    """
    point = [math.log(getattr(start, name)) for name in names]

    def errors(at: Sequence[float]) -> list[float]:
        return list(residuals(replace(start, **{name: math.exp(x) for name, x in zip(names, at, strict=True)})))

    now, damping = errors(point), 1e-2
    for _ in range(rounds):
        rows = []
        for index in range(len(point)):
            moved = [x + (_NUDGE if at == index else 0.0) for at, x in enumerate(point)]
            rows.append([(a - b) / _NUDGE for a, b in zip(errors(moved), now, strict=True)])
        step = _solve(rows, now, damping)
        tried = [x - max(-_MOST_STEP, min(_MOST_STEP, change)) for x, change in zip(point, step, strict=True)]
        then = errors(tried)
        if sum(e * e for e in then) < sum(e * e for e in now):
            small = max(abs(a - b) for a, b in zip(tried, point, strict=True)) < 1e-4
            point, now, damping = tried, then, damping / 3
            if small:
                break
        else:
            damping *= 4
            if damping > 1e6:
                break
    return replace(start, **{name: math.exp(x) for name, x in zip(names, point, strict=True)})


def _solve(rows: Sequence[Sequence[float]], errors: Sequence[float], damping: float) -> list[float]:
    """The damped Gauss-Newton step, from the derivatives of `errors` by each unknown, by elimination with pivots."""
    size = len(rows)
    matrix = [
        [sum(a * b for a, b in zip(rows[i], rows[j], strict=True)) for j in range(size)]
        + [sum(a * b for a, b in zip(rows[i], errors, strict=True))]
        for i in range(size)
    ]
    for i in range(size):
        matrix[i][i] += damping * (matrix[i][i] or 1.0) + 1e-12
    for i in range(size):
        pivot = max(range(i, size), key=lambda row: abs(matrix[row][i]))
        matrix[i], matrix[pivot] = matrix[pivot], matrix[i]
        for row in range(size):
            if row != i:
                factor = matrix[row][i] / matrix[i][i]
                matrix[row] = [a - factor * b for a, b in zip(matrix[row], matrix[i], strict=True)]
    return [matrix[i][size] / matrix[i][i] for i in range(size)]
