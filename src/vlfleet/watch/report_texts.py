"""A report as one HTML file, as Markdown, as JSON. Whatever comes from outside is escaped."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from html import escape

from vlfleet.watch.report import Incident, Report
from vlfleet.watch.svg import line_chart

MOST_INCIDENTS = 200
"""Of the newest; the rest is told as a number."""
_STYLE = """
:root{color-scheme:light dark}
body{font:15px/1.45 system-ui,sans-serif;max-width:1360px;margin:0 auto;padding:1rem}
h1{font-size:1.4rem}h2{font-size:1.05rem;margin:1.6rem 0 .4rem}
table{border-collapse:collapse;width:100%}td,th{padding:.25rem .6rem;text-align:left;vertical-align:top;
border-bottom:1px solid #8884}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(22rem,1fr));gap:1rem}
svg{width:100%;height:auto}svg text{font-size:10px;fill:currentColor}.grid{stroke:#8883;fill:none}
.line{fill:none;stroke-width:1.5;stroke-linecap:round}.keys{margin:0;font-size:.8rem;
display:flex;flex-wrap:wrap;gap:.2rem .8rem}
.keys i{display:inline-block;width:.8em;height:.8em;margin-right:.3em;border-radius:2px}
"""
_CSP = "default-src 'none'; style-src 'unsafe-inline'"
"""A file that a browser opens with this runs no script and asks nobody, whatever stands in it."""
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>()#+\-.!|~&])")


def to_html(report: Report) -> str:
    """One file with everything in it: no script, no network."""
    title = f"vlfleet: {report.fleet}, {_when(report.since)} to {_when(report.until)}"
    charts = "".join(
        f"<section><h2>{escape(chart.title)}</h2>"
        f"{line_chart(chart.curves, chart.unit, report.since, report.until)}</section>"
        for chart in report.charts
    )
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_CSP}">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>",
        f"<p>{escape(_summary(report))}</p>",
        "<h2>Figures</h2>",
        _table(("what", "value"), [(_words(name), _value(name, value)) for name, value in report.figures.items()]),
        "<h2>Incidents</h2>",
        _table(_INCIDENT, _incident_rows(report.incidents)) if report.incidents else "<p>None.</p>",
        f'<div class="charts">{charts}</div>',
    ]
    for name, subjects in (("Replicas", report.replicas), ("GPUs", report.gpus)):
        if subjects:
            parts += [f"<h2>{name}</h2>", _table(*_subjects(subjects))]
    return "".join([*parts, "</body></html>\n"])


def to_markdown(report: Report) -> str:
    """For an issue or a chat: the figures, the incidents and the tables."""
    lines = [f"# vlfleet: {_plain(report.fleet)}", "", _plain(_summary(report)), "", "| what | value |", "|---|--:|"]
    lines += [f"| {_words(name)} | {_value(name, value)} |" for name, value in report.figures.items()]
    lines += ["", "## Incidents", ""]
    if report.incidents:
        lines += _markdown_table(_INCIDENT, _incident_rows(report.incidents))
    else:
        lines.append("None.")
    for title, subjects in (("Replicas", report.replicas), ("GPUs", report.gpus)):
        if subjects:
            lines += ["", f"## {title}", "", *_markdown_table(*_subjects(subjects))]
    return "\n".join([*lines, ""])


def to_json(report: Report) -> str:
    """Everything, with the curves."""
    return json.dumps(asdict(report), allow_nan=False)


_INCIDENT = ("began", "lasted", "who", "what", "explanation")


def _incident_rows(incidents: Sequence[Incident]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        (_when(each.began), _lasted(each), each.subject, f"{each.code}: {each.text}", each.advice)
        for each in incidents[-MOST_INCIDENTS:]
    ]
    left = len(incidents) - len(rows)
    return [("", "", "", f"{left} earlier ones", ""), *rows] if left else rows


def _lasted(incident: Incident) -> str:
    if incident.moment:
        return ""
    return "goes on" if incident.ended is None else _seconds(incident.ended - incident.began)


def _subjects(subjects: Mapping[str, Mapping[str, float | None]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    names = list(next(iter(subjects.values())))
    rows = [(subject, *(_value(name, facts[name]) for name in names)) for subject, facts in subjects.items()]
    return ("", *map(_words, names)), rows


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return f"<table>{row(head, 'th')}{''.join(row(cells, 'td') for cells in rows)}</table>"


def _markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(_plain(cell) for cell in row) + " |" for row in rows]


def _plain(text: str) -> str:
    """Markdown that shows `text` as it is."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def _summary(report: Report) -> str:
    watched = report.figures.get("watched_seconds") or 0.0
    resolution = _seconds(report.resolution_seconds)
    if not watched:
        return "Nothing was watched in this time: no vlfleet fleet of this name ran, or its history is gone."
    asked = report.until - report.since
    return f"Watched for {_seconds(watched)} of {_seconds(asked)}, one row for each {resolution}."


def _words(name: str) -> str:
    return name.replace("_", " ").removesuffix(" seconds").removesuffix(" share")


def _value(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    if "share" in name or name in ("utilization", "memory_most"):
        return f"{value:.1%}"
    if name == "watched_seconds":
        return _seconds(value)
    if name.endswith("seconds"):
        return f"{value:.3g} s"
    if name.startswith("bytes"):
        return f"{value / 1e6:,.1f} MB"
    if name.endswith("_real") or name.endswith("_median"):
        return f"{value:.2f}x"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def _seconds(seconds: float) -> str:
    for limit, unit, name in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds / 86_400:.3g} d"


def _when(at: float) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
    except (ValueError, OverflowError, OSError):
        return f"{at:g}"
