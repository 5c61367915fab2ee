"""What a report says: figures and curves of a stretch of history. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from vlfleet.watch.history import Event
from vlfleet.watch.point import Point, histogram

BINS = 240
"""Points of a curve: two pixels each on a laptop's screen."""
Curve = tuple[float | None, ...]


@dataclass(frozen=True)
class Chart:
    """Curves over the report's time, by name; None where nothing is known."""

    title: str
    unit: str
    curves: Mapping[str, Curve]


@dataclass(frozen=True)
class Incident:
    """An alert from its beginning to its end, or something that happened to a replica."""

    code: str
    subject: str
    began: float
    ended: float | None
    """None: it goes on, or it was at a moment only."""
    text: str
    advice: str
    moment: bool = False


@dataclass(frozen=True)
class Report:
    """Of one fleet. Times are seconds since the epoch."""

    fleet: str
    since: float
    until: float
    resolution_seconds: int
    figures: Mapping[str, float | None]
    replicas: Mapping[str, Mapping[str, float | None]]
    gpus: Mapping[str, Mapping[str, float | None]]
    incidents: tuple[Incident, ...]
    charts: tuple[Chart, ...] = field(default=())


def build(
    fleet: str, since: float, until: float, resolution: int, rows: Sequence[tuple[int, Point]], events: Sequence[Event]
) -> Report:
    """The report of these rows of history."""
    points = [each for _, each in rows]
    subjects = sorted({name.partition("|")[0] for each in points[-1:] + points[:1] for name in each}, key=_natural)
    gpus = [each for each in subjects if each.startswith("gpu")]
    replicas = [each for each in subjects if each not in ("host", "fleet") and each not in gpus]
    first, duration = histogram(points, "fleet|first_token"), histogram(points, "fleet|duration")
    sums = {name: sum(_sum(points, each, name) for each in replicas) for name in _SUMMED}
    joules = sum(_sum(points, each, "joules") for each in gpus)
    looks = sums["needed"] + sums["repeated"] + sums["avoided"]
    served = [_sum(points, each, "answered") for each in replicas]
    watched = len(rows) * resolution
    figures: dict[str, float | None] = {
        "requests": sums["answered"] + sums["failed"],
        "failed_share": _share(sums["failed"], sums["answered"] + sums["failed"]),
        "refused": _sum(points, "fleet", "refused"),
        "requests_per_second": _share(sums["answered"], watched),
        "images": sums["images"],
        "images_per_second": _share(sums["images"], watched),
        "first_token_p50_seconds": first.quantile(0.5),
        "first_token_p95_seconds": first.quantile(0.95),
        "duration_p50_seconds": duration.quantile(0.5),
        "duration_p95_seconds": duration.quantile(0.95),
        "duration_p99_seconds": duration.quantile(0.99),
        "media_not_looked_at_again_share": _share(sums["avoided"], looks),
        "media_looked_at_twice_share": _share(sums["repeated"], looks),
        "bytes_not_sent": sums["saved_bytes"],
        "busiest_replica_times_median": _share(max(served, default=0.0), median(served) if served else 0.0),
        "predicted_first_token_times_real": _share(sums["predicted_seconds"], sums["first_token_seconds"]),
        "joules_per_image": _share(joules, sums["images"]) if gpus else None,
        "gpu_seconds_per_image": _share(watched * len(gpus), sums["images"]) if gpus else None,
        "watched_seconds": float(watched),
    }
    each_replica = {name: _replica(points, name) for name in replicas}
    each_gpu = {name: _gpu(points, name) for name in gpus}
    charts = _charts(_bins(since, until, rows), replicas, gpus, resolution)
    incidents = tuple(_incidents(events))
    return Report(fleet, since, until, resolution, figures, each_replica, each_gpu, incidents, charts)


_SUMMED = (
    *("answered", "failed", "images", "needed", "repeated", "avoided", "saved_bytes"),
    *("predicted_seconds", "first_token_seconds"),
)


def _replica(points: Sequence[Point], name: str) -> dict[str, float | None]:
    return {
        "answered": _sum(points, name, "answered"),
        "failed": _sum(points, name, "failed"),
        "images": _sum(points, name, "images"),
        "mean_first_token_seconds": _share(_sum(points, name, "first_token_seconds"), _sum(points, name, "streams")),
        "in_flight": _mean(points, f"{name}|in_flight"),
        "kv_share": _mean(points, f"{name}|kv"),
        "kv_share_most": _most(points, f"{name}|kv"),
    }


def _gpu(points: Sequence[Point], name: str) -> dict[str, float | None]:
    return {
        "utilization": _mean(points, f"{name}|utilization"),
        "memory_most": _most(points, f"{name}|memory"),
        "celsius_most": _most(points, f"{name}|celsius"),
        "watts": _mean(points, f"{name}|watts"),
    }


def _sum(points: Sequence[Point], subject: str, name: str) -> float:
    key = f"{subject}|{name}+"
    return sum(each.get(key, 0.0) for each in points)


def _mean(points: Sequence[Point], key: str) -> float | None:
    found = [each[key] for each in points if key in each]
    return sum(found) / len(found) if found else None


def _most(points: Sequence[Point], key: str) -> float | None:
    found = [each.get(f"{key}^", each[key]) for each in points if key in each]
    return max(found, default=None)


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _natural(name: str) -> tuple[str, int]:
    """gpu10 after gpu9."""
    letters = name.rstrip("0123456789")
    return letters, int(name[len(letters) :] or 0)


def _bins(since: float, until: float, rows: Sequence[tuple[int, Point]]) -> list[list[Point]]:
    """The points of each stretch of the report's time."""
    bins: list[list[Point]] = [[] for _ in range(BINS)]
    width = max(until - since, 1.0) / BINS
    for at, each in rows:
        bins[min(BINS - 1, max(0, int((at - since) / width)))].append(each)
    return bins


def _charts(bins: list[list[Point]], replicas: list[str], gpus: list[str], resolution: int) -> tuple[Chart, ...]:
    def rate(key: str, names: Sequence[str]) -> Curve:
        return tuple(
            sum(each.get(f"{name}|{key}+", 0.0) for each in points for name in names) / (len(points) * resolution)
            if points
            else None
            for points in bins
        )

    def mean(key: str) -> Curve:
        return tuple(_mean(points, key) for points in bins)

    def percentile(name: str, share: float) -> Curve:
        return tuple(histogram(points, f"fleet|{name}").quantile(share) for points in bins)

    charts = [
        Chart(
            "Traffic",
            "a second",
            {"requests": rate("answered", replicas), "images": rate("images", replicas)}
            | {"failed": rate("failed", replicas)},
        ),
        Chart(
            "Time to first token",
            "s",
            {f"p{share * 100:.0f}": percentile("first_token", share) for share in (0.5, 0.95, 0.99)},
        ),
        Chart(
            "Time to the whole answer",
            "s",
            {f"p{share * 100:.0f}": percentile("duration", share) for share in (0.5, 0.95, 0.99)},
        ),
        Chart("Requests each replica answered", "a second", {name: rate("answered", [name]) for name in replicas}),
        Chart("KV cache in use", "share", {name: mean(f"{name}|kv") for name in replicas}),
        Chart("GPU utilisation", "share", {name: mean(f"{name}|utilization") for name in gpus}),
        Chart("GPU memory", "share", {name: mean(f"{name}|memory") for name in gpus}),
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
    ]
    known = (
        Chart(c.title, c.unit, {n: v for n, v in c.curves.items() if any(x is not None for x in v)}) for c in charts
    )
    return tuple(chart for chart in known if chart.curves)


def _incidents(events: Sequence[Event]) -> list[Incident]:
    """The oldest first; an end belongs to the last beginning of the same alert."""
    found: list[Incident] = []
    open_at: dict[tuple[str, str], int] = {}
    for event in events:
        key = event.code, event.subject
        if event.kind == "ended":
            if (at := open_at.pop(key, None)) is not None:
                old = found[at]
                found[at] = Incident(old.code, old.subject, old.began, event.at, old.text, old.advice)
            continue
        if event.kind == "began":
            open_at[key] = len(found)
        moment = event.kind != "began"
        found.append(Incident(event.code, event.subject, event.at, None, event.text, event.advice, moment))
    return found
