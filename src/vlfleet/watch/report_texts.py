"""A report as one HTML file, as Markdown, as JSON. Whatever comes from outside is escaped."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict

from vlfleet.watch.report import Report
from vlfleet.watch.report_html import to_html
from vlfleet.watch.report_words import (
    INCIDENT_HEAD,
    MOST_INCIDENTS,
    PLAN_HEAD,
    SIZE_HEAD,
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

_MARKDOWN = re.compile(r"([\\`*_\[\]<>#|~&])")
"""What means something in the middle of a line."""
_COMMAND = re.compile(r"(`[^`<>|]+`)")


def to_markdown(report: Report) -> str:
    """For an issue or a chat: the figures, the advice, the incidents and the tables."""
    runs = what_runs(report)
    lines = [f"# {_plain(title(report))}", "", f"**{_plain(verdict(report))}** {_plain(watched(report))}"]
    lines += [f"Runs {_plain(runs)}."] if runs else []
    if report.findings:
        lines += ["", "## What to change", ""]
        lines += [f"{n}. **{_plain(each.text)}**: {_prose(each.advice)}" for n, each in enumerate(report.findings, 1)]
    lines += ["", "## Figures", "", *_figures(report.figures)]
    if report.sizes:
        lines += ["", "## Latency by image size", "", *_table(SIZE_HEAD, _sizes(report))]
    if report.cost:
        lines += ["", "## Cost", "", *_figures(report.cost)]
    if report.plan:
        rows = [
            (_plain(each.name), planned(each.planned, each.unit), planned(each.real, each.unit), _prose(each.says))
            for each in report.plan
        ]
        lines += ["", "## The plan against reality", "", *_table(PLAN_HEAD, rows)]
    lines += ["", "## Incidents", "", *(_incidents(report) if report.incidents else ("None.",))]
    for head, subjects in (("Replicas", report.replicas), ("GPUs", report.gpus)):
        if subjects:
            lines += ["", f"## {head}", "", *_subjects(subjects)]
    return "\n".join([*lines, ""])


def to_json(report: Report) -> str:
    """Everything, with the curves."""
    return json.dumps(asdict(report), allow_nan=False)


WRITERS: Mapping[str, Callable[[Report], str]] = {"html": to_html, "md": to_markdown, "json": to_json}
"""By the end of a file's name."""


def _figures(figures: Mapping[str, float | None]) -> list[str]:
    return _table(("what", "value"), [(label(name), value(name, number)) for name, number in figures.items()])


def _sizes(report: Report) -> list[tuple[str, ...]]:
    return [
        (
            each.visual_tokens,
            plain(each.requests),
            *(value(n, v) for n, v in vars(each).items() if n.endswith("seconds")),
        )
        for each in report.sizes
    ]


def _incidents(report: Report) -> list[str]:
    rows = [
        (
            when(each.began),
            lasted(each),
            _plain(each.subject),
            f"{_plain(f'{each.code}: {each.text}')} {_prose(each.advice)}",
        )
        for each in report.incidents[-MOST_INCIDENTS:]
    ]
    if left := len(report.incidents) - len(rows):
        rows.insert(0, ("", "", "", f"{left} earlier ones"))
    return _table(INCIDENT_HEAD, rows)


def _subjects(subjects: Mapping[str, Mapping[str, float | None]]) -> list[str]:
    names = list(next(iter(subjects.values())))
    rows = [(_plain(each), *(value(name, facts[name]) for name in names)) for each, facts in subjects.items()]
    return _table(("", *map(label, names)), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def _plain(text: str) -> str:
    """Markdown that shows `text` as it is."""
    return _escaped(" ".join(text.split()))


def _escaped(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", text)


def _prose(text: str) -> str:
    """The same, but what stands between backticks is a command."""
    parts = _COMMAND.split(" ".join(text.split()))
    return "".join(part if _COMMAND.fullmatch(part) else _escaped(part) for part in parts)
