"""Histograms as Prometheus keeps them, so that percentiles come from merged buckets and never from averages."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Histogram:
    """How many observations fell into each bucket."""

    bounds: tuple[float, ...] = ()
    """Upper ends, ascending; the last bucket, which has no end, is not named."""
    counts: tuple[float, ...] = ()
    """In each bucket alone, one more than `bounds`; empty when nothing is known."""
    sum: float = 0.0
    """Of all observations."""

    @property
    def count(self) -> float:
        """Observations."""
        return sum(self.counts)

    def since(self, earlier: Histogram) -> Histogram:
        """What came after `earlier`; all of it when that is no earlier state of this one (the process is new)."""
        pairs = tuple(zip(self.counts, earlier.counts, strict=False))
        if self.bounds != earlier.bounds or any(now < then for now, then in pairs):
            return self
        return Histogram(self.bounds, tuple(now - then for now, then in pairs), self.sum - earlier.sum)

    def plus(self, other: Histogram) -> Histogram:
        """Both together. Of two with other bounds, the one with more observations."""
        if not self.counts or not other.counts or self.bounds != other.bounds:
            return max(self, other, key=lambda each: each.count)
        return Histogram(
            self.bounds,
            tuple(a + b for a, b in zip(self.counts, other.counts, strict=True)),
            self.sum + other.sum,
        )

    def quantile(self, share: float) -> float | None:
        """The value below which `share` of the observations are, as PromQL's histogram_quantile says it.

        Linear within a bucket; in the last one its lower end, as its upper is not known. None without observations.
        """
        left = share * self.count
        if not self.count or not self.bounds:
            return None
        lower = 0.0
        for bound, number in zip(self.bounds, self.counts, strict=False):
            if number and left <= number:
                return lower + (bound - lower) * left / number
            left -= number
            lower = bound
        return self.bounds[-1]

    def above(self, bound: float) -> float:
        """Observations above `bound`, as far as buckets tell: those of the buckets that begin there or later."""
        lowers = (0.0, *self.bounds)
        return sum(number for lower, number in zip(lowers, self.counts, strict=False) if lower >= bound)


EMPTY = Histogram()
"""Of nothing."""


def from_cumulative(buckets: dict[float, float], total: float) -> Histogram:
    """Of Prometheus' `_bucket` lines: observations up to each `le`, with +Inf among them.

    Raises:
        ValueError: there is no +Inf, or a wider bucket holds less than a narrower one.
    """
    ends = sorted(buckets)
    if not ends or ends[-1] != float("inf"):
        raise ValueError("a histogram without +Inf")
    below = 0.0
    counts = []
    for end in ends:
        if buckets[end] < below:
            raise ValueError("a wider bucket that holds less")
        counts.append(buckets[end] - below)
        below = buckets[end]
    return Histogram(tuple(ends[:-1]), tuple(counts), total)
