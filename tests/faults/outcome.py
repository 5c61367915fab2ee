"""What came of one drill."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

Figures = Mapping[str, float]


@dataclass(frozen=True)
class Outcome:
    """One row of the report."""

    drill: str
    promise: str
    """R1, R2, ... of docs/reliability.md."""
    aim: str
    good: bool
    figures: Figures
    sees: str = ""
    """What a client sees."""
    seconds: float = 0.0
    """That the drill took."""
    trouble: str = field(default="", compare=False)
    """Of a drill that could not be finished, or the first answer that was wrong."""

    def line(self) -> str:
        figures = ", ".join(f"{name} {value:g}" for name, value in self.figures.items())
        return f"{'ok  ' if self.good else 'FAIL'} {self.promise:4} {self.drill}: {figures} (aim: {self.aim})"


Drill = Callable[[], Awaitable[Outcome]]


async def timed(drill: Drill) -> Outcome:
    """Its outcome with its time; one that raises is a failure with its reason."""
    began = time.monotonic()
    try:
        outcome = await drill()
    except Exception as error:
        name = getattr(drill, "__name__", "drill")
        outcome = Outcome(name, "", "", False, {}, trouble=f"{type(error).__name__}: {error}")
    return Outcome(**{**vars(outcome), "seconds": round(time.monotonic() - began, 1)})
