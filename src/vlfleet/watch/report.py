"""What a report says: figures, cost, advice and curves of a stretch of history. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from vlfleet import __version__
from vlfleet.watch.alerts import all_rules
from vlfleet.watch.findings import Finding, findings
from vlfleet.watch.history_read import Event
from vlfleet.watch.point import merged
from vlfleet.watch.report_charts import Chart, bins_of, charts
from vlfleet.watch.report_figures import (
    Figures,
    Rows,
    SizeTimes,
    busiest_of,
    cost_of,
    figures_of,
    gpu_of,
    past_of,
    replica_of,
    sizes_of,
    summed,
    watched_of,
    work_of,
)
from vlfleet.watch.report_plan import Line, compare
from vlfleet.watch.setup import Setup

FORMAT = 1
"""Of the JSON. Names that are there stay; more may come."""


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
    severity: str = ""
    """Of its rule: info, warning, critical; empty for what is no alert, or of a rule that is no more."""


@dataclass(frozen=True)
class Report:
    """Of one fleet. Times are seconds since the epoch; a name ends in its unit; None is what nobody told."""

    fleet: str
    since: float
    until: float
    resolution_seconds: int
    figures: Figures
    replicas: Mapping[str, Figures]
    gpus: Mapping[str, Figures]
    incidents: tuple[Incident, ...]
    charts: tuple[Chart, ...] = ()
    cost: Figures = field(default_factory=dict)
    sizes: tuple[SizeTimes, ...] = ()
    findings: tuple[Finding, ...] = ()
    plan: tuple[Line, ...] = ()
    """Empty where no plan chose the layout."""
    workload: str = ""
    """That the plan was for."""
    model: str = ""
    engine: str = ""
    layout: str = ""
    version: str = __version__
    format: int = FORMAT


def build(
    fleet: str,
    since: float,
    until: float,
    resolution: int,
    rows: Rows,
    events: Sequence[Event],
    setup: Setup | None = None,
    price_per_gpu_hour: float | None = None,
) -> Report:
    """The report of these rows of history."""
    setup = setup or Setup()
    whole = merged([each for _, each in rows])
    subjects = sorted({name.partition("|")[0] for name in whole}, key=_natural)
    gpus = [each for each in subjects if each.startswith("gpu")]
    replicas = [each for each in subjects if each not in ("host", "fleet") and each not in gpus]
    held = [each for each in gpus if summed(whole, each, "held_seconds")] or gpus
    bins = bins_of(since, until, rows, resolution)
    watched = watched_of(rows, resolution)
    figures = figures_of(whole, replicas, held, watched)
    past = past_of(whole, rows, figures, replicas, gpus, held)
    measured = {
        "busiest_requests_per_second": busiest_of(rows, replicas, resolution),
        "working_gpu_seconds_per_image": work_of(whole, figures, held),
    }
    return Report(
        fleet=fleet,
        since=since,
        until=until,
        resolution_seconds=resolution,
        figures=figures,
        replicas={name: replica_of(whole, name) for name in replicas},
        gpus={name: gpu_of(whole, name, watched) for name in gpus},
        incidents=tuple(_incidents(events)),
        charts=charts(bins, replicas, gpus),
        cost=cost_of(whole, figures, replicas, held, watched, price_per_gpu_hour),
        sizes=sizes_of(whole),
        findings=findings(past, setup),
        plan=compare(setup, figures | measured) if rows else (),
        workload=setup.planned.workload if setup.planned else "",
        model=setup.model,
        engine=setup.engine,
        layout=setup.layout,
    )


def _natural(name: str) -> tuple[str, int]:
    """gpu10 after gpu9."""
    letters = name.rstrip("0123456789")
    return letters, int(name[len(letters) :] or 0)


_SEVERITIES = {rule.code: rule.severity.name.lower() for rule in all_rules()}


def _incidents(events: Sequence[Event]) -> list[Incident]:
    """The oldest first; an end belongs to the last beginning of the same alert."""
    found: list[Incident] = []
    open_at: dict[tuple[str, str], int] = {}
    for event in events:
        key = event.code, event.subject
        if event.kind == "ended":
            if (at := open_at.pop(key, None)) is not None:
                found[at] = replace(found[at], ended=event.at)
            continue
        began = event.kind == "began"
        if began:
            open_at[key] = len(found)
        severity = _SEVERITIES.get(event.code, "") if began else ""
        found.append(Incident(*key, event.at, None, event.text, event.advice, not began, severity))
    return found
