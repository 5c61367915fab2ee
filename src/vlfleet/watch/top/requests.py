"""The pane of the requests in flight, the oldest first."""

from __future__ import annotations

from functools import lru_cache

from vlfleet.watch.top.facts import Facts
from vlfleet.watch.top.figures import UNKNOWN, age, number, seconds
from vlfleet.watch.top.line import Line, Span, Tone
from vlfleet.watch.top.look import Look
from vlfleet.watch.top.rows import chosen_at, rows
from vlfleet.watch.top.scene import Scene
from vlfleet.watch.top.table import Column, Table, draw
from vlfleet.watch.top.view import Pane

_LATE = 4.0
"""Times its prediction, above which a request without a token is worth a look."""
_SHORT_SECONDS = 2.0
"""Below which it is not."""


def requests(scene: Scene, width: int, height: int) -> list[Line]:
    """The head and as many rows as there is room for. The fleet tells of at most a hundred and how many there are."""
    found = rows(scene.glance, Pane.REQUESTS)
    at = chosen_at(scene.view, Pane.REQUESTS, found)
    lines = list(draw(table(scene.look, width), found, at, scene.here(Pane.REQUESTS), height))
    more = scene.glance.count("requests_total") - len(found)
    if more > 0 and len(lines) < height:
        text = scene.look.say.counted(more, " and {n} more", " and {n} more")
        return [*lines, Line((Span(text, Tone.DIM),))]
    return lines


@lru_cache(16)
def table(look: Look, width: int) -> Table[Facts]:
    """The columns of requests in this width."""
    say = look.say
    columns = [
        Column[Facts](say("REQUEST"), 13, lambda each, _: Span(each.text("id"))),
        Column[Facts](say("REPLICA"), 7, lambda each, _: Span(each.text("replica") or UNKNOWN), 1),
        Column[Facts](say("STATE"), 9, lambda each, _: Span(say(each.text("state")), _tone(each))),
        Column[Facts](say("AGE"), 5, lambda each, _: Span(age(each.number("seconds"))), 2, right=True),
        Column[Facts](say("IMG"), 4, lambda each, _: Span(number(each.number("images"))), 3, right=True),
        Column[Facts](say("HELD"), 4, lambda each, _: Span(number(each.number("held"))), 6, right=True),
        Column[Facts](say("VTOK"), 5, lambda each, _: Span(number(each.number("visual_tokens"))), 4, right=True),
        Column[Facts](say("PRED"), 5, lambda each, _: Span(seconds(each.number("predicted_seconds"))), 5, right=True),
        Column[Facts](say("TOK"), 5, lambda each, _: Span(number(each.number("tokens"))), 7, right=True),
        Column[Facts](say("ROUTE"), 6, lambda each, _: Span(say(each.text("route")), Tone.DIM), 4, grows=200),
    ]
    return Table.of(columns, width, look)


def _tone(request: Facts) -> Tone:
    if request.text("state") == "streaming":
        return Tone.GOOD
    took, predicted = request.number("seconds"), request.number("predicted_seconds")
    late = took and predicted and took > max(_SHORT_SECONDS, _LATE * predicted)
    return Tone.WARN if late else Tone.PLAIN
