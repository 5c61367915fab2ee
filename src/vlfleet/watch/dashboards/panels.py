"""What a panel of the dashboard is: what is asked of Prometheus, and in which unit it is drawn.

$S is the fleet that was chosen, $R the replicas of it; `rate(...)` without a window is over what Grafana chooses.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Panel:
    """One panel. Units are Grafana's ids."""

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    """PromQL, and how its series are called."""
    kind: str = "timeseries"
    """timeseries, stat or table."""
    width: int = 8
    """Of 24."""
    most: float | None = None
    """The axis ends there."""
    stacked: bool = False
    about: str = ""


@dataclass(frozen=True)
class Row:
    """Panels under one title."""

    title: str
    panels: tuple[Panel, ...]


def quantiles(name: str, labels: str, *shares: float) -> tuple[tuple[str, str], ...]:
    """Percentiles of a histogram, all of its series together."""
    made = (f"histogram_quantile({share}, sum by (le) (rate({name}_bucket{{{labels}}})))" for share in shares)
    return tuple((query, f"p{share * 100:.0f}") for query, share in zip(made, shares, strict=True))


def p95_by(name: str, labels: str, by: str) -> tuple[tuple[str, str], ...]:
    """The 95th percentile of a histogram, by the values of a label."""
    return ((f"histogram_quantile(0.95, sum by (le, {by}) (rate({name}_bucket{{{labels}}})))", f"{{{{{by}}}}}"),)


def by_replica(query: str) -> tuple[tuple[str, str], ...]:
    """The sum of what each replica has."""
    return ((f"sum by (replica) ({query})", "{{replica}}"),)


def share(hits: str, queries: str) -> tuple[tuple[str, str], ...]:
    """Of each replica, the share of look-ups that hit."""
    query = f"sum by (replica) (rate({hits}{{$R}})) / sum by (replica) (rate({queries}{{$R}}))"
    return ((query, "{{replica}}"),)
