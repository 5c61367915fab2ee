"""What a batch has done so far, for progress and for the report at its end."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, fields
from typing import Any

WINDOW_SECONDS = 30.0
"""Over which the present rate is taken."""


@dataclass
class Tally:
    """Rows by what became of them. Every row that was read is in exactly one of these, or in flight."""

    total: int | None = None
    """Rows of the source, where it says."""
    answered: int = 0
    reused: int = 0
    """Filled with the answer to the same question of another row."""
    failed: int = 0
    done_before: int = 0
    failed_before: int = 0
    """In an earlier run, and not retried."""
    repeated: int = 0
    """The same id with the same question once more."""
    retries: int = 0
    """Requests that were sent again; refusals (429, 503) are not among them."""
    refusals: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    _recent: deque[tuple[float, int]] = field(default_factory=deque, repr=False)

    @property
    def settled(self) -> int:
        """Rows that need nothing more."""
        return self.answered + self.reused + self.failed + self.done_before + self.failed_before + self.repeated

    @property
    def rows(self) -> int:
        """Rows with an answer in the output."""
        return self.answered + self.reused + self.done_before

    @property
    def left(self) -> int | None:
        return None if self.total is None else max(0, self.total - self.settled)

    def sample(self, now: float) -> None:
        """Called about once a second."""
        self._recent.append((now, self.answered + self.reused + self.failed))
        while len(self._recent) > 2 and now - self._recent[1][0] >= WINDOW_SECONDS:
            self._recent.popleft()

    def rate(self) -> float:
        """Rows a second that were settled by this run, over the last `WINDOW_SECONDS`."""
        if len(self._recent) < 2:
            return 0.0
        (began, before), (now, count) = self._recent[0], self._recent[-1]
        return (count - before) / (now - began) if now > began else 0.0

    def seconds_left(self) -> float | None:
        """At the present rate; None while it is not known."""
        rate = self.rate()
        return None if self.left is None or not rate else self.left / rate

    def facts(self) -> dict[str, Any]:
        """For JSON."""
        return {each.name: getattr(self, each.name) for each in fields(self) if not each.name.startswith("_")}
