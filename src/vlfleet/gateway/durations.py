"""Histograms of seconds, counted at a fifth of the cost of prometheus_client's, which takes locks for other threads."""

from __future__ import annotations

import itertools
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


@dataclass
class _Tally:
    """Observations with one value of the label, or of all."""

    counts: list[int]
    """Of each bucket by itself; the last one has no end."""
    seconds: float = 0.0


class Durations(Collector):
    """One histogram, by the values of `label` or of all together. Of one thread, which is the loop's."""

    def __init__(self, name: str, documentation: str, bounds: Sequence[float], *, label: str = "") -> None:
        self.name, self.documentation = name, documentation
        self._bounds = tuple(bounds)
        self._labels = (label,) if label else ()
        self._tallies: dict[str, _Tally] = {}
        if not label:
            self._add("")

    def observe(self, seconds: float, value: str = "") -> None:
        """Something took `seconds`."""
        tally = self._tallies.get(value) or self._add(value)
        tally.counts[bisect_left(self._bounds, seconds)] += 1
        tally.seconds += seconds

    def since(self, start: float, value: str = "") -> None:
        """Something began at `start` of `time.perf_counter()` and is over."""
        self.observe(time.perf_counter() - start, value)

    def collect(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(self.name, self.documentation, labels=self._labels)
        ends = [*map(floatToGoString, self._bounds), "+Inf"]
        for value, tally in self._tallies.items():
            buckets = list(zip(ends, itertools.accumulate(tally.counts), strict=True))
            family.add_metric([value] if self._labels else [], buckets, tally.seconds)
        yield family

    def _add(self, value: str) -> _Tally:
        return self._tallies.setdefault(value, _Tally([0] * (len(self._bounds) + 1)))
