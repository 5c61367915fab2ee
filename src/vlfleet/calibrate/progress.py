"""What is going on and how many seconds are left, on stderr."""

from __future__ import annotations

import time
from collections.abc import Callable

EVERY_SECONDS = 10.0


class Progress:
    """Stages in their order, each with the seconds that it usually takes."""

    def __init__(self, stages: dict[str, float], say: Callable[[str], None]) -> None:
        self._left = dict(stages)
        self._say = say
        self._stage, self._detail, self._usual = "", "", 0.0
        self._began = self._said = 0.0

    @property
    def seconds_left(self) -> float:
        """Of this stage, if it takes what it usually does, and of those that follow."""
        here = self._usual - (time.monotonic() - self._began) if self._stage else 0.0
        return max(0.0, here) + sum(self._left.values())

    def begin(self, stage: str) -> None:
        """Stages before it that never began are not waited for any more."""
        if stage in self._left:
            while (first := next(iter(self._left))) != stage:
                del self._left[first]
        self._stage, self._detail, self._usual = stage, "", self._left.pop(stage, 0.0)
        self._began = time.monotonic()
        self._show()

    def tell(self, detail: str) -> None:
        """A new detail at once, the same again every `EVERY_SECONDS`."""
        if detail != self._detail or time.monotonic() - self._said > EVERY_SECONDS:
            self._detail = detail
            self._show()

    def _show(self) -> None:
        self._said = time.monotonic()
        self._say(f"{self._detail or self._stage}, about {self.seconds_left:.0f} s left")
