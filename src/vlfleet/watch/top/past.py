"""The last two minutes of the figures, for the curves."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from vlfleet.watch.top.facts import Facts

SECONDS = 120.0
FIGURES = (
    "requests_per_second",
    "images_per_second",
    "visual_tokens_per_second",
    "first_token_p95_seconds",
    "queue",
)


class Past:
    """Figures of glances that came, by the time they were made."""

    def __init__(self) -> None:
        self._glances: deque[tuple[float, Mapping[str, float | None]]] = deque()

    def add(self, glance: Facts) -> None:
        """One more; those that are older than two minutes go. A clock that was put back begins anew."""
        at = glance.number("at")
        if at is None:
            return
        if self._glances and at < self._glances[-1][0]:
            self._glances.clear()
        rates = glance.part("rates")
        figures = {name: rates.number(name) for name in FIGURES} | {"queue": glance.part("queue").number("requests")}
        self._glances.append((at, figures))
        while self._glances[0][0] < at - SECONDS:
            self._glances.popleft()

    def curve(self, figure: str, cells: int) -> list[float | None]:
        """The figure over the last two minutes in so many steps: the largest value of each, None where none was."""
        steps: list[float | None] = [None] * cells
        if not self._glances or not cells:
            return steps
        now = self._glances[-1][0]
        for at, figures in self._glances:
            value = figures[figure]
            if value is not None:
                step = min(cells - 1, int((at - now + SECONDS) / SECONDS * cells))
                steps[step] = max(value, steps[step] or 0.0)
        return _held(steps)


def _held(steps: list[float | None]) -> list[float | None]:
    """A step without a glance has the value before it, where there is one before and one after."""
    last = max((at for at, value in enumerate(steps) if value is not None), default=-1)
    before: float | None = None
    for at in range(last):
        if steps[at] is None:
            steps[at] = before
        before = steps[at]
    return steps
