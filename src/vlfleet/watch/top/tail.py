"""The end of a log that grows."""

from __future__ import annotations

from collections import deque

_MOST_LINES = 5000


class Tail:
    """The last lines of what was added; the last one may still grow."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=_MOST_LINES)
        self._open = ""

    def add(self, text: str) -> int:
        """How many lines that made."""
        *whole, self._open = (self._open + text).split("\n")
        self._lines.extend(whole)
        return len(whole)

    def lines(self) -> list[str]:
        return [*self._lines, *([self._open] if self._open else [])]
