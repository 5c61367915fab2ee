"""The lines above the panes: which fleet, whether it is well, what it does now."""

from __future__ import annotations

import time
from typing import NamedTuple

from rich.cells import cell_len

from vlfleet.watch.top.facts import Facts
from vlfleet.watch.top.figures import age, number, pair, seconds, size
from vlfleet.watch.top.line import Line, Span, Tone, fit, flow, join, line, pad, wrap
from vlfleet.watch.top.look import Look
from vlfleet.watch.top.scene import Linked, Scene
from vlfleet.watch.top.well import ready_of, verdict

_CURVE = 14
"""Cells of the shortest curve: a step is 9 s then."""


class Figure(NamedTuple):
    """One number of the fleet."""

    name: str
    """What stands before the value; after it where it is a unit."""
    value: str
    curve: str = ""
    """Which of `past.FIGURES` shows how it went."""
    before: bool = False
    """Whether the name stands before the value."""
    tone: Tone = Tone.STRONG

    @property
    def line(self) -> Line:
        name, value = Span(self.name, Tone.DIM), Span(self.value, self.tone)
        return Line((name, Span(" "), value) if self.before else (value, Span(" "), name))


def heading(scene: Scene, width: int, curves: bool) -> list[Line]:
    """Which fleet, whether it is well (in two lines where it must be), and figures; their curves below them."""
    told = figures(scene.glance, scene.look)
    below = _grid(scene, told, width) if curves else [flow((each.line for each in told), width)]
    return [_title(scene, width), *_sentence(scene, width), *below]


def figures(glance: Facts, look: Look) -> list[Figure]:
    """The most important first: a narrow screen shows the first ones."""
    say, rates, queue = look.say, glance.part("rates"), glance.part("queue")
    first = pair(*(rates.number(f"first_token_p{each}_seconds") for each in (50, 95)))
    failed, sent = rates.number("failed_per_second"), rates.number("bytes_not_sent_per_second")
    found = [
        Figure(say("req/s"), number(rates.number("requests_per_second")), "requests_per_second"),
        Figure(say("img/s"), number(rates.number("images_per_second")), "images_per_second"),
        Figure(say("TTFT"), first, "first_token_p95_seconds", before=True),
        Figure(say("queue"), number(queue.number("requests")), "queue", before=True),
        Figure(say("vis.tok/s"), number(rates.number("visual_tokens_per_second")), "visual_tokens_per_second"),
        Figure(say("gen.tok/s"), number(rates.number("generation_tokens_per_second"))),
        Figure(say("E2E p95"), seconds(rates.number("duration_p95_seconds")), before=True),
    ]
    if failed:
        found.insert(0, Figure(say("FAILED/s"), number(failed), tone=Tone.BAD))
    if sent:
        found.append(Figure(say("not sent"), f"{size(sent)}/s", before=True))
    return found


def _title(scene: Scene, width: int) -> Line:
    fleet, say = scene.glance.part("fleet"), scene.look.say
    ready, total = ready_of(scene.glance)
    right, tone = _state(scene)
    parts = [f"vlfleet {fleet.text('name')}".rstrip(), say(fleet.text("status"))]
    parts += [say("{ready}/{total} ready", ready=ready, total=total)] if scene.glance else []
    parts += [fleet.text("served_model_name"), fleet.text("url"), say(fleet.text("policy"))]
    room = max(0, width - cell_len(right) - 1)
    told = flow((line(part) for part in parts if part), room, f" {scene.look.signs.dot} ")
    left = fit(told.text or parts[0], room, ellipsis=scene.look.signs.ellipsis)
    return Line((Span(left, Tone.STRONG), Span(" "), Span(right, tone)))


def _state(scene: Scene) -> tuple[str, Tone]:
    """What the right end of the first line says of the connection."""
    say, at = scene.look.say, scene.glance.number("at")
    match scene.link.linked:
        case Linked.LOST:
            ago = age(max(0.0, scene.now - scene.link.since))
            return say("LOST {ago} ago, reconnecting", ago=ago), Tone.BAD
        case Linked.CONNECTING:
            return say("connecting"), Tone.WARN
    when = clock(at)
    return (say("PAUSED at {when}", when=when), Tone.WARN) if scene.view.paused else (when, Tone.DIM)


def clock(at: float | None) -> str:
    """The local time of day."""
    try:
        return time.strftime("%H:%M:%S", time.localtime(at)) if at is not None else "-"
    except (OverflowError, ValueError, OSError):
        return "-"


def _sentence(scene: Scene, width: int) -> list[Line]:
    """Whether the fleet is well; where nobody can know it now, why."""
    text, tone = _said(scene)
    first, *rest = wrap(text, width)
    if not rest:
        return [line(first, tone)]
    return [line(first, tone), line(fit(" ".join(rest), width, ellipsis=scene.look.signs.ellipsis), tone)]


def _said(scene: Scene) -> tuple[str, Tone]:
    say, link = scene.look.say, scene.link
    if link.linked is Linked.LOST:
        text = say("Lost the fleet at {when}: {reason}", when=clock(link.since), reason=link.reason)
        return text + (say("; what you see is from before") if scene.glance else ""), Tone.BAD
    if not scene.glance:
        return say("waiting for the first glance"), Tone.WARN
    judged = verdict(scene.glance, scene.look)
    return judged.text, judged.tone


def _grid(scene: Scene, told: list[Figure], width: int) -> list[Line]:
    """As many figures as fit, each above its curve of the last two minutes."""
    cells: list[int] = []
    for figure in told:
        need = max(_CURVE, cell_len(figure.line.text))
        if sum(cells) + 2 * len(cells) + need > width:
            break
        cells.append(need)
    more = (width - sum(cells) - 2 * max(0, len(cells) - 1)) // max(1, len(cells))
    above: list[Line] = []
    below: list[Line] = []
    for figure, need in zip(told, cells, strict=False):
        above.append(pad(figure.line, need + more))
        drawn = scene.look.signs.curve(scene.past.curve(figure.curve, need + more)) if figure.curve else ""
        below.append(pad(line(drawn, Tone.GOOD), need + more))
    return [join(above, "  "), join(below, "  ")]
