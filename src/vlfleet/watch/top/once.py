"""One glance as plain text: for a pipe, a colleague, a terminal without Textual."""

from __future__ import annotations

from collections.abc import Callable

from vlfleet.watch.top import machine, replicas, requests
from vlfleet.watch.top.alert import advice_of, severity_of, text_of
from vlfleet.watch.top.facts import Facts
from vlfleet.watch.top.heading import clock, figures
from vlfleet.watch.top.line import EMPTY, Line, Span, Tone, join, line
from vlfleet.watch.top.look import Look
from vlfleet.watch.top.rows import rows
from vlfleet.watch.top.table import Table
from vlfleet.watch.top.view import Pane
from vlfleet.watch.top.well import ready_of, verdict

WIDTH = 160
"""Cells where the output is no terminal."""
_REQUESTS = 10


def once(glance: Facts, look: Look, width: int = WIDTH) -> list[Line]:
    """Everything that a person looks at first: every replica, GPU and alert, the oldest requests."""
    judged = verdict(glance, look)
    found = rows(glance, Pane.REPLICAS)
    told = join((each.line for each in figures(glance, look)), "  ")
    blocks = [
        [_title(glance, look), line(judged.text, judged.tone), told],
        _table(replicas.table(look, width, found), found),
        _table(machine.table(look, width), rows(glance, Pane.GPUS)),
        [machine.host_line(glance.part("host"), look, width)] if glance.part("host") else [],
        _requests(glance, look, width),
        _alerts(glance, look),
    ]
    shown: list[Line] = []
    for block in blocks:
        shown += [EMPTY] * bool(shown and block) + block
    return shown


def _title(glance: Facts, look: Look) -> Line:
    fleet, say = glance.part("fleet"), look.say
    ready, total = ready_of(glance)
    parts = [f"vlfleet {fleet.text('name')}".rstrip(), say(fleet.text("status"))]
    parts += [say("{ready}/{total} ready", ready=ready, total=total), fleet.text("served_model_name")]
    parts += [fleet.text("url"), clock(glance.number("at"))]
    return line(f" {look.signs.dot} ".join(part for part in parts if part), Tone.STRONG)


def _table(table: Table[Facts], found: list[Facts]) -> list[Line]:
    return [table.head(here=False), *(table.row(each, False, False) for each in found)] if found else []


def _requests(glance: Facts, look: Look, width: int) -> list[Line]:
    found = rows(glance, Pane.REQUESTS)
    if not found:
        return []
    shown = _table(requests.table(look, width), found[:_REQUESTS])
    more = max(len(found), glance.count("requests_total")) - _REQUESTS
    return [*shown, line(look.say.counted(more, " and {n} more", " and {n} more"))] if more > 0 else shown


def _alerts(glance: Facts, look: Look) -> list[Line]:
    """Whole, whatever the width: nobody can open them here."""
    shown: list[Line] = []
    for alert in rows(glance, Pane.ALERTS):
        told = severity_of(alert, look)
        text = Span(f"  {alert.text('subject')}  {text_of(alert, look)}")
        shown.append(Line((Span(" "), told, text)))
        if advice := advice_of(alert, look):
            shown.append(line(f"   {look.say('do: {advice}', advice=advice)}", Tone.DIM))
    return shown


def printed(lines: list[Line], style: Callable[[str, Tone], str] | None = None) -> str:
    """The lines as text, without spaces at their ends; `style` colours a span."""
    if style is None:
        return "\n".join(each.text.rstrip() for each in lines)
    return "\n".join("".join(style(span.text, span.tone) for span in each.spans).rstrip() for each in lines)
