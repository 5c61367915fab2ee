"""The figures of a report: sums, shares, percentiles and cost. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from vlfleet.watch.findings import SPARE, Past
from vlfleet.watch.histogram import EMPTY
from vlfleet.watch.point import SECONDS, Point, histograms
from vlfleet.watch.sizes import SIZES

Figures = Mapping[str, float | None]
Rows = Sequence[tuple[int, Point]]


@dataclass(frozen=True)
class SizeTimes:
    """Requests whose pictures have so many visual tokens together: a class of `sizes`."""

    visual_tokens: str
    requests: float
    """That were answered."""
    first_token_p50_seconds: float | None
    first_token_p95_seconds: float | None
    duration_p50_seconds: float | None
    duration_p95_seconds: float | None


_SUMMED = (
    *("answered", "failed", "images", "visual_tokens", "tokens", "needed", "repeated", "avoided", "saved_bytes"),
    *("predicted_seconds", "first_token_seconds", "mm_queries", "mm_hits", "prefix_queries", "prefix_hits"),
)


def figures_of(whole: Point, replicas: list[str], held: list[str], watched: float) -> dict[str, float | None]:
    sums = {name: sum(summed(whole, each, name) for each in replicas) for name in _SUMMED}
    times = histograms(whole)
    first, duration = times.get("fleet|first_token", EMPTY), times.get("fleet|duration", EMPTY)
    looks = sums["needed"] + sums["repeated"] + sums["avoided"]
    served = [summed(whole, each, "answered") for each in replicas]
    use = [whole[f"{each}|utilization"] for each in held if f"{each}|utilization" in whole]
    return {
        "requests": sums["answered"] + sums["failed"],
        "failed_share": _share(sums["failed"], sums["answered"] + sums["failed"]),
        "refused": summed(whole, "fleet", "refused"),
        "requests_per_second": _share(sums["answered"], watched),
        "images": sums["images"],
        "images_per_second": _share(sums["images"], watched),
        "visual_tokens": sums["visual_tokens"],
        "generated_tokens": sums["tokens"],
        "first_token_p50_seconds": first.quantile(0.5),
        "first_token_p95_seconds": first.quantile(0.95),
        "duration_p50_seconds": duration.quantile(0.5),
        "duration_p95_seconds": duration.quantile(0.95),
        "duration_p99_seconds": duration.quantile(0.99),
        "gpu_utilization": sum(use) / len(use) if use else None,
        "media_not_looked_at_again_share": _share(sums["avoided"], looks),
        "media_looked_at_twice_share": _share(sums["repeated"], looks),
        "media_cache_hits_share": _share(sums["mm_hits"], sums["mm_queries"]),
        "prefix_cache_hits_share": _share(sums["prefix_hits"], sums["prefix_queries"]),
        "bytes_not_sent": sums["saved_bytes"],
        "busiest_replica_times_median": _share(max(served, default=0.0), median(served) if served else 0.0),
        "predicted_first_token_times_real": _share(sums["predicted_seconds"], sums["first_token_seconds"]),
        "watched_seconds": float(watched),
    }


def cost_of(
    whole: Point, figures: Figures, replicas: list[str], held: list[str], watched: float, price: float | None
) -> Figures:
    """Of the fleet's GPUs, at work or idle; empty without GPUs."""
    if not held:
        return {}
    joules = sum(summed(whole, each, "joules") for each in held) or None
    seconds = sum(summed(whole, each, "held_seconds") for each in held) or watched * len(held)
    images, tokens = figures["images"] or 0.0, figures["generated_tokens"] or 0.0
    found: dict[str, float | None] = {
        "kwh": None if joules is None else joules / 3.6e6,
        "gpu_hours": seconds / 3600,
        "joules_per_image": None if joules is None else _share(joules, images),
        "gpu_seconds_per_image": _share(seconds, images),
        "joules_per_1000_tokens": None if joules is None else _share(1000 * joules, tokens),
        "gpu_seconds_per_1000_tokens": _share(1000 * seconds, tokens),
    }
    if price is not None:
        found |= {
            "price": price * seconds / 3600,
            "price_of_1000_images": _share(1000 * price * seconds / 3600, images),
            "price_of_1000000_tokens": _share(1e6 * price * seconds / 3600, tokens),
        }
    return found


def sizes_of(whole: Point) -> tuple[SizeTimes, ...]:
    times = histograms(whole)
    found = []
    for size in SIZES:
        first, duration = times.get(f"fleet|first_token@{size}", EMPTY), times.get(f"fleet|duration@{size}", EMPTY)
        if first.count or duration.count:
            quantiles = (each.quantile(share) for each in (first, duration) for share in (0.5, 0.95))
            found.append(SizeTimes(size, duration.count, *quantiles))
    return tuple(found)


def past_of(
    whole: Point,
    rows: Rows,
    figures: Figures,
    replicas: list[str],
    gpus: list[str],
    held: list[str],
) -> Past:
    """What advice goes by."""
    trusts = [whole[f"{each}|trust"] for each in replicas if f"{each}|trust" in whole]
    kv = [most for each in replicas if (most := _most(whole, f"{each}|kv")) is not None]
    return Past(
        requests=figures["requests"] or 0.0,
        images=figures["images"] or 0.0,
        needed=sum(summed(whole, each, "needed") for each in replicas),
        repeated=sum(summed(whole, each, "repeated") for each in replicas),
        avoided=sum(summed(whole, each, "avoided") for each in replicas),
        gpu_utilization={each: whole[f"{each}|utilization"] for each in gpus if f"{each}|utilization" in whole},
        held=frozenset(each for each in held if summed(whole, each, "held_seconds")),
        queued_idle_share=_queued_idle(rows, held),
        host_cpu=whole.get("host|cpu"),
        trust=min(trusts, default=None),
        kv_most=max(kv, default=None),
        sizes={each.visual_tokens: each.requests for each in sizes_of(whole)},
    )


def _queued_idle(rows: Rows, held: list[str]) -> float | None:
    """Share of the time in which requests waited at the gateway while the GPUs were less than half in use."""
    known = number = 0
    for _, each in rows:
        use = [each[f"{name}|utilization"] for name in held if f"{name}|utilization" in each]
        if use:
            known += 1
            number += each.get("fleet|queue", 0.0) >= 1 and sum(use) / len(use) < SPARE
    return number / known if known else None


def busiest_of(rows: Rows, replicas: list[str], resolution: int) -> float | None:
    """Requests a second in the busiest twentieth of the minutes in which any came."""
    minutes: dict[int, list[tuple[int, Point]]] = {}
    for at, each in rows:
        minutes.setdefault(at // 60, []).append((at, each))
    rates = []
    for minute in minutes.values():
        answered = sum(each.get(f"{name}|answered+", 0.0) for _, each in minute for name in replicas)
        if answered and (seconds := watched_of(minute, resolution)):
            rates.append(answered / seconds)
    rates.sort()
    return rates[min(len(rates) - 1, int(0.95 * len(rates)))] if rates else None


def work_of(whole: Point, figures: Figures, held: list[str]) -> float | None:
    """Seconds in which a GPU worked, for an image; idle time is no part of it."""
    seconds = sum(summed(whole, each, "held_seconds") * whole.get(f"{each}|utilization", 0.0) for each in held)
    return _share(seconds, figures["images"] or 0.0) if seconds else None


def replica_of(whole: Point, name: str) -> Figures:
    return {
        "answered": summed(whole, name, "answered"),
        "failed": summed(whole, name, "failed"),
        "images": summed(whole, name, "images"),
        "mean_first_token_seconds": _share(summed(whole, name, "first_token_seconds"), summed(whole, name, "streams")),
        "in_flight": whole.get(f"{name}|in_flight"),
        "kv_share": whole.get(f"{name}|kv"),
        "kv_share_most": _most(whole, f"{name}|kv"),
        "media_cache_hits_share": _share(summed(whole, name, "mm_hits"), summed(whole, name, "mm_queries")),
        "preemptions": summed(whole, name, "preemptions"),
    }


def gpu_of(whole: Point, name: str, watched: float) -> Figures:
    return {
        "utilization": whole.get(f"{name}|utilization"),
        "memory_most": _most(whole, f"{name}|memory"),
        "celsius_most": _most(whole, f"{name}|celsius"),
        "watts": whole.get(f"{name}|watts"),
        "kwh": summed(whole, name, "joules") / 3.6e6 or None,
        **{f"{link}_bytes_per_second": _rate(whole, f"{name}|{link}_bytes+", watched) for link in ("pcie", "nvlink")},
    }


def watched_of(rows: Rows, resolution: int) -> float:
    """Seconds."""
    return sum(each.get(SECONDS, resolution) for _, each in rows)


def summed(whole: Point, subject: str, name: str) -> float:
    return whole.get(f"{subject}|{name}+", 0.0)


def _rate(whole: Point, key: str, watched: float) -> float | None:
    return whole[key] / watched if key in whole and watched else None


def _most(whole: Point, key: str) -> float | None:
    return whole.get(f"{key}^")


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None
