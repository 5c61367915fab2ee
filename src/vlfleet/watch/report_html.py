"""A report as one HTML file: no script, no network, and nothing that comes from outside is more than text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from vlfleet.watch.report import Incident, Report
from vlfleet.watch.report_style import STYLE
from vlfleet.watch.report_words import (
    INCIDENT_HEAD,
    MOST_INCIDENTS,
    PLAN_HEAD,
    SIZE_HEAD,
    duration,
    label,
    lasted,
    plain,
    planned,
    title,
    value,
    verdict,
    watched,
    what_runs,
    when,
)
from vlfleet.watch.svg import line_chart, range_chart

MOST_BANDS = 60
"""Stretches that a chart shades."""
_CSP = "default-src 'none'; style-src 'unsafe-inline'"
"""A file that a browser opens with this runs no script and asks nobody, whatever stands in it."""
_COMMAND = re.compile(r"`([^`]+)`|(?<![\w-])--[a-z][a-z0-9-]+")
_TILES = (
    ("requests", "requests", "requests_per_second", "{} a second"),
    ("images", "images and videos", "images_per_second", "{} a second"),
    ("first_token_p95_seconds", "first token, p95", "first_token_p50_seconds", "p50 {}"),
    ("duration_p95_seconds", "whole answer, p95", "duration_p50_seconds", "p50 {}"),
    ("failed_share", "failed", "refused", "{} refused before"),
    ("gpu_utilization", "use of the GPUs", "", ""),
    ("media_not_looked_at_again_share", "media not looked at again", "bytes_not_sent", "{} not sent"),
)
"""A figure, its words, and a second one below it."""


def to_html(report: Report) -> str:
    """One file with everything in it."""
    name = escape(title(report))
    sections = (
        ("What to change", _findings(report)),
        ("Latency by image size", _sizes(report)),
        ("Over time", _charts(report)),
        ("Incidents", _incidents(report)),
        (f"The plan against reality{f', for {report.workload}' if report.workload else ''}", _plan(report)),
        ("Cost", _figures(report.cost) if report.cost else ""),
        ("Replicas", _subjects(report.replicas)),
        ("GPUs", _subjects(report.gpus)),
        ("All figures", _figures(report.figures)),
    )
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_CSP}">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<title>{name}</title><style>{STYLE}</style></head><body><main>",
        _header(report),
        *(f"<section><h2>{escape(head)}</h2>{body}</section>" for head, body in sections if body),
        _footer(report),
        "</main></body></html>\n",
    ]
    return "".join(parts)


def _header(report: Report) -> str:
    runs = what_runs(report)
    begin = when(report.since, "%A %d %B %Y, %H:%M")
    same = when(report.since, "%Y%m%d") == when(report.until, "%Y%m%d")
    end = when(report.until, "%H:%M %Z" if same else "%A %d %B %Y, %H:%M %Z")
    tiles = "".join(_tile(report, *each) for each in _TILES)
    if (joules := report.cost.get("joules_per_image")) is not None:
        seconds = value("gpu_seconds_per_image", report.cost.get("gpu_seconds_per_image"))
        tiles += _box("energy of an image", f"{plain(joules)} J", f"{seconds} GPU seconds")
    return (
        f"<header><h1>{escape(report.fleet)}</h1>"
        f"<p>{escape(runs)}</p><p>{escape(f'{begin} to {end}')}. {escape(watched(report))}</p>"
        f'<p class="verdict">{escape(verdict(report))}</p><dl class="tiles">{tiles}</dl></header>'
    )


def _tile(report: Report, name: str, words: str, second: str, form: str) -> str:
    number = report.figures.get(name)
    if number is None:
        return ""
    below = report.figures.get(second)
    return _box(words, value(name, number), form.format(value(second, below)) if below else "")


def _box(words: str, number: str, below: str) -> str:
    small = f"<small>{escape(below)}</small>" if below else ""
    return f'<div class="tile"><dt>{escape(words)}</dt><dd>{escape(number)}{small}</dd></div>'


def _findings(report: Report) -> str:
    items = "".join(f"<li><b>{escape(each.text)}</b>{_prose(each.advice)}</li>" for each in report.findings)
    if items:
        return f'<ol class="findings">{items}</ol>'
    return "<p>Nothing that the history shows.</p>" if report.figures.get("requests") else ""


def _sizes(report: Report) -> str:
    rows = [
        (
            each.visual_tokens,
            plain(each.requests),
            *(value(n, v) for n, v in vars(each).items() if n.endswith("seconds")),
        )
        for each in report.sizes
    ]
    if not rows:
        return ""
    first = [(e.visual_tokens, e.first_token_p50_seconds, e.first_token_p95_seconds) for e in report.sizes]
    whole = [(e.visual_tokens, e.duration_p50_seconds, e.duration_p95_seconds) for e in report.sizes]
    drawn = "".join(
        f"<figure><h3>{head} <small>p50 to p95, by visual tokens</small></h3>{range_chart(each)}</figure>"
        for head, each in (("Time to first token", first), ("Time to the whole answer", whole))
        if any(high is not None for _, _, high in each)
    )
    return f'{_table(SIZE_HEAD, rows, numbers=range(1, 6))}<div class="charts">{drawn}</div>'


def _charts(report: Report) -> str:
    bands = _bands(report)
    found = "".join(
        f"<figure><h3>{escape(chart.title)} <small>{escape(chart.unit)}</small></h3>"
        f"{line_chart(chart.curves, chart.unit, report.since, report.until, bands)}</figure>"
        for chart in report.charts
    )
    note = "<p>Shaded: a warning or a critical alert was there. Bold: the peak of a curve.</p>" if bands else ""
    return f'{note}<div class="charts">{found}</div>' if found else ""


def _bands(report: Report) -> list[tuple[float, float]]:
    """When warnings were there; what lies nearer than a charts' pixels is one stretch."""
    near = (report.until - report.since) / MOST_BANDS
    found: list[tuple[float, float]] = []
    spans = [(each.began, each.ended or report.until) for each in report.incidents if _loud(each)]
    for began, ended in sorted(spans):
        if found and began <= found[-1][1] + near:
            found[-1] = (found[-1][0], max(ended, found[-1][1]))
        else:
            found.append((began, ended))
    return found


def _loud(incident: Incident) -> bool:
    return not incident.moment and incident.severity in ("warning", "critical")


def _incidents(report: Report) -> str:
    if not report.incidents:
        return "<p>None.</p>" if report.figures.get("watched_seconds") else ""
    rows = []
    for each in report.incidents[-MOST_INCIDENTS:]:
        tag = f'<span class="tag {each.severity}">{each.severity}</span> ' if each.severity else ""
        advice = f"<small>{_prose(each.advice)}</small>" if each.advice else ""
        who = f"{escape(each.subject)}<small>{escape(each.code)}</small>"
        rows.append((escape(when(each.began)), escape(lasted(each)), who, f"{tag}{escape(each.text)}{advice}"))
    if left := len(report.incidents) - len(rows):
        rows.insert(0, ("", "", "", f"{left} earlier ones"))
    return _markup(INCIDENT_HEAD, rows)


def _plan(report: Report) -> str:
    rows = [
        (escape(e.name), escape(planned(e.planned, e.unit)), escape(planned(e.real, e.unit)), _prose(e.says))
        for e in report.plan
    ]
    return _markup(PLAN_HEAD, rows, numbers=(1, 2)) if rows else ""


def _figures(figures: Mapping[str, float | None]) -> str:
    """Two columns of names and values."""
    rows = [(label(name), value(name, number)) for name, number in figures.items()]
    half = (len(rows) + 1) // 2
    parts = (_table(("", ""), each, numbers=(1,), head=False) for each in (rows[:half], rows[half:]) if each)
    return f'<div class="two">{"".join(parts)}</div>'


def _subjects(subjects: Mapping[str, Mapping[str, float | None]]) -> str:
    if not subjects:
        return ""
    names = list(next(iter(subjects.values())))
    rows = [(each, *(value(name, facts[name]) for name in names)) for each, facts in subjects.items()]
    return _table(("", *map(label, names)), rows, numbers=range(1, len(names) + 1))


def _table(
    names: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = (), *, head: bool = True
) -> str:
    return _markup(names, [tuple(map(escape, row)) for row in rows], numbers, head=head)


def _markup(
    names: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = (), *, head: bool = True
) -> str:
    """A table of cells that are HTML already; `numbers` are the columns to be set to the right."""

    def row(cells: Sequence[str], tag: str) -> str:
        found = (
            f'<{tag} class="n">{cell}</{tag}>' if number in numbers else f"<{tag}>{cell}</{tag}>"
            for number, cell in enumerate(cells)
        )
        return f"<tr>{''.join(found)}</tr>"

    top = row([escape(name) for name in names], "th") if head else ""
    return f'<div class="wide"><table>{top}{"".join(row(cells, "td") for cells in rows)}</table></div>'


def _prose(text: str) -> str:
    """Escaped; what stands between backticks is a command, and flags are, too."""
    return _COMMAND.sub(lambda found: f"<code>{found[1] or found[0]}</code>", escape(text))


def _footer(report: Report) -> str:
    row = duration(report.resolution_seconds)
    return (
        f"<footer>Made by vlfleet {escape(report.version)} on {escape(when(report.until))}. Percentiles come from "
        f"merged buckets, never from averages; curves are of rows of {row}. Energy and GPU seconds are those of the "
        "fleet's GPUs, at work or idle. Times are of the machine that served.</footer>"
    )
