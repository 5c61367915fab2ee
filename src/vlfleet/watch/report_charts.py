"""The curves of a report. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vlfleet.watch.histogram import EMPTY
from vlfleet.watch.point import SECONDS, Point, histograms, merged
from vlfleet.watch.sizes import SIZES

BINS = 240
"""Points of a curve, at most: two pixels each on a laptop's screen."""
LEAST_SECONDS = 10.0
"""Of a point: a percentile of fewer requests jumps about, and traffic of GPUs is asked for so often."""
Curve = tuple[float | None, ...]


@dataclass(frozen=True)
class Chart:
    """Curves over the report's time, by name; None where nothing is known."""

    title: str
    unit: str
    curves: Mapping[str, Curve]


@dataclass(frozen=True)
class Bin:
    """A stretch of the report's time."""

    seconds: float
    """That were watched."""
    point: Point


def bins_of(since: float, until: float, rows: Sequence[tuple[int, Point]], resolution: int) -> list[Bin]:
    """As many stretches as curves have points; where rows are farther apart than that, some are empty."""
    span = max(until - since, 1.0)
    found: list[list[Point]] = [[] for _ in range(max(1, min(BINS, int(span / LEAST_SECONDS))))]
    for at, each in rows:
        found[min(len(found) - 1, max(0, int((at - since) / span * len(found))))].append(each)
    return [Bin(sum(each.get(SECONDS, resolution) for each in points), merged(points)) for points in found]


def charts(bins: Sequence[Bin], replicas: list[str], gpus: list[str]) -> tuple[Chart, ...]:
    """Those about which anything is known."""
    times = [histograms(each.point) for each in bins]

    def rate(key: str, names: Sequence[str]) -> Curve:
        return tuple(
            sum(each.point.get(f"{name}|{key}+", 0.0) for name in names) / each.seconds if each.seconds else None
            for each in bins
        )

    def links(name: str) -> Curve:
        keys = (f"{name}|pcie_bytes+", f"{name}|nvlink_bytes+")
        sums = ([each.point[key] for key in keys if key in each.point] for each in bins)
        return tuple(
            sum(found) / (each.seconds * 1e6) if found and each.seconds else None
            for each, found in zip(bins, sums, strict=True)
        )

    def mean(key: str) -> Curve:
        return tuple(each.point.get(key) for each in bins)

    def percentile(name: str, share: float) -> Curve:
        return tuple(each.get(f"fleet|{name}", EMPTY).quantile(share) for each in times)

    def percentiles(name: str) -> dict[str, Curve]:
        return {f"p{share * 100:.0f}": percentile(name, share) for share in (0.5, 0.95, 0.99)}

    def by_size(name: str) -> dict[str, Curve]:
        return {f"{size} visual tokens": percentile(f"{name}@{size}", 0.95) for size in SIZES}

    found = (
        Chart(
            "Traffic",
            "a second",
            {"requests": rate("answered", replicas), "images": rate("images", replicas)}
            | {"failed": rate("failed", replicas)},
        ),
        Chart("Time to first token", "s", percentiles("first_token")),
        Chart("Time to the whole answer", "s", percentiles("duration")),
        Chart("Time to first token by image size, p95", "s", by_size("first_token")),
        Chart("Time to the whole answer by image size, p95", "s", by_size("duration")),
        Chart("Requests each replica answered", "a second", {name: rate("answered", [name]) for name in replicas}),
        Chart("KV cache in use", "share", {name: mean(f"{name}|kv") for name in replicas}),
        Chart("GPU utilisation", "share", {name: mean(f"{name}|utilization") for name in gpus}),
        Chart("GPU memory", "share", {name: mean(f"{name}|memory") for name in gpus}),
        Chart("GPU links: PCIe and NVLink", "MB a second", {name: links(name) for name in gpus}),
        Chart("GPU power", "W", {name: mean(f"{name}|watts") for name in gpus}),
        Chart(
            "Media",
            "a second",
            {
                "looked at": rate("needed", replicas),
                "looked at twice": rate("repeated", replicas),
                "held already": rate("avoided", replicas),
            },
        ),
        Chart("Host", "share", {"CPU": mean("host|cpu"), "memory": mean("host|memory")}),
        Chart("Waiting at the gateway", "requests", {"queue": mean("fleet|queue")}),
    )
    known = (
        Chart(c.title, c.unit, {n: v for n, v in c.curves.items() if any(x is not None for x in v)}) for c in found
    )
    return tuple(chart for chart in known if chart.curves)
