"""The last quarter of an hour of samples, thinned with age, and what rules ask of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from vlfleet.watch.model import ReplicaSample, Sample, Traffic

RECENT_SECONDS = 60.0
"""So long every sample is kept."""
STEP_SECONDS, LONG_SECONDS = 15.0, 900.0
"""After that, one in so many seconds, for so long."""


@dataclass(frozen=True)
class Window:
    """Samples, the oldest first; never empty."""

    samples: tuple[Sample, ...]

    @property
    def now(self) -> Sample:
        return self.samples[-1]

    def last(self, seconds: float) -> tuple[Sample, ...]:
        """Those of the last `seconds`."""
        since = self.now.monotonic - seconds
        return tuple(each for each in self.samples if each.monotonic >= since)

    def before(self, seconds: float) -> Sample | None:
        """The sample of `seconds` ago, to be compared with now; None until half of that time was seen."""
        oldest = self.last(seconds)[0]
        return oldest if self.now.monotonic - oldest.monotonic >= seconds / 2 else None

    def mean(self, seconds: float, value: Callable[[Sample], float | None]) -> float | None:
        """Of what is known of the last `seconds`; None before half of that time was seen, or where nothing is known."""
        if self.before(seconds) is None:
            return None
        found = [number for each in self.last(seconds) if (number := value(each)) is not None]
        return sum(found) / len(found) if found else None

    def grown(self, seconds: float, replica: ReplicaSample, value: Callable[[Traffic], float]) -> float:
        """By how much a counter of the gateway grew; 0 before half of that time was seen."""
        earlier = self.before(seconds)
        then = earlier.replica(replica.name) if earlier else None
        return max(0.0, value(replica.traffic) - value(then.traffic)) if then else 0.0


class Trail:
    """Takes samples in, one after the other."""

    def __init__(self) -> None:
        self._recent: deque[Sample] = deque()
        self._old: deque[Sample] = deque()

    def add(self, sample: Sample) -> Window:
        """What is known now."""
        self._recent.append(sample)
        while sample.monotonic - self._recent[0].monotonic > RECENT_SECONDS:
            leaving = self._recent.popleft()
            if not self._old or leaving.monotonic - self._old[-1].monotonic >= STEP_SECONDS:
                self._old.append(leaving)
        while self._old and sample.monotonic - self._old[0].monotonic > LONG_SECONDS:
            self._old.popleft()
        return Window((*self._old, *self._recent))
