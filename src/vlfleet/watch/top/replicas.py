"""The pane of the replicas."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from vlfleet.watch.top.facts import Facts
from vlfleet.watch.top.figures import number, seconds, share
from vlfleet.watch.top.line import Line, Span, Tone
from vlfleet.watch.top.look import Look
from vlfleet.watch.top.rows import chosen_at, rows
from vlfleet.watch.top.scene import Scene
from vlfleet.watch.top.table import Column, Table, draw
from vlfleet.watch.top.view import Pane

_TONES = {
    "ready": Tone.GOOD,
    "starting": Tone.WARN,
    "draining": Tone.WARN,
    "unhealthy": Tone.BAD,
    "backoff": Tone.BAD,
    "failed": Tone.BAD,
}
_BAR = 4
_AMPLE = 90
"""Cells from which rates stand beside a note: a reason is worth more than they are."""


def replicas(scene: Scene, width: int, height: int) -> list[Line]:
    """The head and as many rows as there is room for."""
    found = rows(scene.glance, Pane.REPLICAS)
    at = chosen_at(scene.view, Pane.REPLICAS, found)
    return list(draw(table(scene.look, width, found), found, at, scene.here(Pane.REPLICAS), height))


def table(look: Look, width: int, found: Sequence[Facts]) -> Table[Facts]:
    """The columns for these replicas in this width."""
    gpus = max((len(gpus_of(each)) for each in found), default=0)
    noted = any(note(each, look).text for each in found)
    return _table(look, width, min(8, max(3, gpus)) if gpus else 0, noted)


@lru_cache(16)
def _table(look: Look, width: int, gpus: int, noted: bool) -> Table[Facts]:
    say = look.say

    def kv(replica: Facts, cells: int) -> Span:
        usage = replica.number("kv_usage")
        tone = Tone.PLAIN if usage is None or usage < 0.9 else Tone.WARN if usage < 0.97 else Tone.BAD
        return Span(f"{look.signs.bar(usage, cells - 5)} {share(usage):>4}", tone)

    def state(replica: Facts, cells: int) -> Span:
        return Span(phase(replica, look), tone_of(replica))

    rates = [
        Column[Facts](say("REQ/S"), 5, lambda each, _: Span(number(each.number("requests_per_second"))), 9, right=True),
        Column[Facts](say("WAIT"), 4, lambda each, _: Span(number(each.number("waiting"))), 10, right=True),
        Column[Facts](say("UP"), 5, lambda each, _: Span(seconds(each.number("up_seconds"))), 11, right=True),
    ]
    columns = [
        Column[Facts](say("REPLICA"), 7, lambda each, _: Span(each.text("name"), Tone.STRONG)),
        Column[Facts](say("STATE"), 11, state),
        Column[Facts](say("FLY"), 4, lambda each, _: Span(number(each.number("in_flight"))), 1, right=True),
        Column[Facts](
            say("VTOK"), 5, lambda each, _: Span(number(each.number("visual_tokens_in_flight"))), 5, right=True
        ),
        Column[Facts](say("KV"), 5 + _BAR, kv, 3, grows=12),
        Column[Facts](say("MM"), 4, lambda each, _: Span(share(each.number("mm_hit_share"))), 6, right=True),
        Column[Facts](
            say("TTFT95"), 6, lambda each, _: Span(seconds(each.number("first_token_p95_seconds"))), 2, right=True
        ),
        Column[Facts](say("RST"), 3, restarts, 7, right=True),
        *(rates if not noted or width >= _AMPLE else []),
        *([Column[Facts](say("GPU"), gpus, lambda each, _: Span(gpus_of(each)), 8)] if gpus else []),
        *([Column[Facts](say("NOTE"), 11, lambda each, _: note(each, look), 4, grows=60)] if noted else []),
    ]
    return Table.of(columns, width, look)


def phase(replica: Facts, look: Look) -> str:
    """What it does, in a word or two: also without colour one sees which are not well."""
    told = replica.text("phase")
    if told == "ready" and replica.true("cordoned"):
        return look.say("cordoned")
    sign = "! " if tone_of(replica) is Tone.BAD else ""
    return sign + look.say(told or "unknown")


def tone_of(replica: Facts) -> Tone:
    told = replica.text("phase")
    return Tone.WARN if told == "ready" and replica.true("cordoned") else _TONES.get(told, Tone.DIM)


def note(replica: Facts, look: Look) -> Span:
    """What a person should know beside the state: what it does while it starts, why it died, what was given up."""
    if detail := replica.text("detail"):
        took = replica.part("phases").number(detail)
        return Span(f"{detail} {seconds(took)}" if took is not None else detail, Tone.WARN)
    error = replica.text("error")
    if error and tone_of(replica) is Tone.BAD:
        return Span(error, Tone.BAD)
    if error:
        return Span(look.say("was: {error}", error=error), Tone.DIM)
    return Span(replica.text("adjusted"), Tone.DIM)


def restarts(replica: Facts, cells: int) -> Span:
    count = replica.number("restarts")
    return Span(number(count), Tone.WARN if count else Tone.PLAIN)


def gpus_of(replica: Facts) -> str:
    """0,1 or 0-7."""
    found = [int(each) for each in replica.texts("gpus") if each.isdecimal()]
    if len(found) > 2 and found == list(range(found[0], found[0] + len(found))):
        return f"{found[0]}-{found[-1]}"
    return ",".join(map(str, found))
