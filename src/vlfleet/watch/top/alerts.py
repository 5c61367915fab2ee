"""The pane of the alerts: what is wrong, since when, and what to do."""

from __future__ import annotations

from functools import lru_cache

from vlfleet.watch.top.alert import advice_of, severity_of, text_of
from vlfleet.watch.top.facts import Facts
from vlfleet.watch.top.figures import age
from vlfleet.watch.top.line import Line, Span, Tone, line, wrap
from vlfleet.watch.top.look import Look
from vlfleet.watch.top.rows import chosen_at, rows
from vlfleet.watch.top.scene import Scene
from vlfleet.watch.top.table import Column, Table, draw
from vlfleet.watch.top.view import Pane


def alerts(scene: Scene, width: int, height: int) -> list[Line]:
    """The head, as many rows as there is room for, and below them the advice of the chosen one."""
    found, look = rows(scene.glance, Pane.ALERTS), scene.look
    at = chosen_at(scene.view, Pane.ALERTS, found)
    here, now = scene.here(Pane.ALERTS), scene.glance.number("at") or scene.now
    if not found:
        head = Table.of([Column[Facts](look.say("ALERTS: none"), 40, lambda *_: Span(""))], width, look).head(here)
        return [head][:height]
    told = _advice(found[at], look, width) if height > 2 else []
    height_of_rows = max(2, min(1 + len(found), height - min(len(told), 2)))
    shown = draw(table(look, width), [(each, now) for each in found], at, here, min(height, height_of_rows))
    return [*shown, *told][:height]


def wanted(scene: Scene) -> int:
    """Lines with which nothing is left out: the advice of the chosen one has two."""
    count = len(rows(scene.glance, Pane.ALERTS))
    return 1 + count + 2 * bool(count)


@lru_cache(16)
def table(look: Look, width: int) -> Table[tuple[Facts, float]]:
    """The columns of alerts in this width."""
    say = look.say
    columns = [
        Column[tuple[Facts, float]](say("ALERT"), 9, lambda each, _: severity_of(each[0], look)),
        Column[tuple[Facts, float]](say("SINCE"), 5, lambda each, _: Span(_since(*each)), 3, right=True),
        Column[tuple[Facts, float]](say("SUBJECT"), 7, lambda each, _: Span(each[0].text("subject"), Tone.STRONG), 1),
        Column[tuple[Facts, float]](say("WHAT"), 20, lambda each, _: Span(_what(each[0], look)), grows=200),
    ]
    return Table.of(columns, width, look)


def _what(alert: Facts, look: Look) -> str:
    """Who knows of it, and what is wrong."""
    by = alert.text("acknowledged_by")
    return (look.say("[{by} knows] ", by=by) if by else "") + text_of(alert, look)


def _advice(alert: Facts, look: Look, width: int) -> list[Line]:
    advice = advice_of(alert, look)
    if not advice:
        return []
    told = wrap(look.say("do: {advice}", advice=advice), width - 4)
    return [line(f"   {each}", Tone.DIM) for each in told]


def _since(alert: Facts, now: float) -> str:
    since = alert.number("since")
    return age(now - since) if since is not None else "-"
