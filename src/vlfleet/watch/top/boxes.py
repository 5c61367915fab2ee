"""What lies over the panes: a question, the keys, everything about one row."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len

from vlfleet.watch.top.details import details
from vlfleet.watch.top.line import Line, Span, Tone, cut, fit, line, pad, wrap
from vlfleet.watch.top.look import Look
from vlfleet.watch.top.scene import Scene
from vlfleet.watch.top.view import Box

_WIDEST = 74
"""Cells of text."""
HELP = (
    ("arrows, jk, PgUp PgDn", "choose a row; the keys below act on it"),
    ("Tab, Shift+Tab", "go to the next pane: replicas, GPUs, requests, alerts, log"),
    ("r", "restart the replica: it finishes its requests, a new engine takes its place"),
    ("d", "drain the replica, or the GPU: it finishes its requests and stays out"),
    ("c", "cordon (no new requests) or uncordon the replica, or the GPU"),
    ("l", "the log of the chosen replica"),
    ("e, Enter", "explain the chosen row: why, what to do, all its numbers"),
    ("a", "acknowledge the alert: others see that you know"),
    ("s", "silence the alert for an hour, or end its silence"),
    ("p", "pause the screen; the fleet goes on"),
    ("q, Ctrl+C", "quit; the fleet goes on"),
    ("FLY", "requests in flight"),
    ("VTOK", "visual tokens: what images become for the language model"),
    ("KV", "share of the KV cache in use"),
    ("MM", "share of images that the engine already held"),
    ("TTFT", "time to first token in the last minute: half were faster than the first, 95 of 100 than the second"),
    ("TTFT95", "time to first token: 95 of 100 were faster in the last minute"),
    ("RST", "restarts after a death"),
    ("HELD", "images of the request that its replica already held"),
    ("PRED", "predicted time to its last token on that replica"),
)
"""A key or a title, and what it means."""


def over(scene: Scene, lines: Sequence[Line], width: int) -> list[Line]:
    """The screen with the box over it, in its middle."""
    box, look = scene.view.box, scene.look
    if box is None or not lines or width < 8:
        return list(lines)
    cells = min(_WIDEST, width - 4)
    match box:
        case Box.CONFIRM:
            title, text = look.say("Are you sure?"), _question(scene, cells)
        case Box.HELP:
            title, text = (
                look.say("Keys and words"),
                _pairs([(look.say(name), look.say(text)) for name, text in HELP], cells, look),
            )
        case Box.DETAILS:
            name, told = details(scene)
            title, text = name, _pairs(told, cells, look)
    most = max(1, len(lines) - 4)
    first = max(0, min(scene.view.scroll, len(text) - most))
    shown = text[first : first + most]
    more = f" {first + 1}-{first + len(shown)}/{len(text)} " if len(text) > most else ""
    drawn = _framed(shown, title, more, cells, look)
    top = max(0, (len(lines) - 1 - len(drawn)) // 2)
    left = (width - cells - 4) // 2
    return [
        _laid(each, drawn[at - top], left, width) if top <= at < top + len(drawn) else each
        for at, each in enumerate(lines)
    ]


def _question(scene: Scene, cells: int) -> list[Line]:
    told = [part for text in scene.view.order_text for part in wrap(text, cells)]
    return [
        *(line(each, Tone.STRONG if at == 0 else Tone.PLAIN) for at, each in enumerate(told)),
        line(""),
        line(scene.look.say("y: yes, do it    n: no"), Tone.STRONG),
    ]


def _pairs(told: Sequence[tuple[str, str]], cells: int, look: Look) -> list[Line]:
    """A name on the left, what is said of it beside it, over as many lines as it needs."""
    names = min(cells // 3, max((cell_len(name) for name, _ in told), default=0))
    lines = []
    for name, text in told:
        for at, part in enumerate(wrap(text, cells - names - 2)):
            head = fit(name if at == 0 else "", names, ellipsis=look.signs.ellipsis)
            lines.append(Line((Span(head, Tone.STRONG), Span(f"  {part}"))))
    return lines


def _framed(text: Sequence[Line], title: str, more: str, cells: int, look: Look) -> list[Line]:
    corners, rule, split = look.signs.corners, look.signs.rule, look.signs.split
    head = cut(f" {title} ", cells)
    top = corners[0] + rule + head + rule * (cells + 1 - cell_len(head)) + corners[1]
    bottom = corners[2] + rule * (cells + 1 - cell_len(more)) + more + rule + corners[3]
    side = Span(split)
    inside = [Line((side, Span(" "), *pad(each, cells).spans, Span(" "), side)) for each in text]
    return [line(top), *inside, line(bottom)]


def _laid(below: Line, above: Line, left: int, width: int) -> Line:
    """One line over another: what is beside the box stays, without its tone."""
    text = below.text
    before = fit(cut(text, left), left)
    end = left + cell_len(above.text)
    after = fit(_from(text, end), max(0, width - end))
    return pad(Line((Span(before, Tone.DIM), *above.spans, Span(after, Tone.DIM))), width)


def _from(text: str, cells: int) -> str:
    """What stands from this cell on; a space where a wide character would be halved."""
    head = cut(text, cells)
    if cell_len(head) == cells:
        return text[len(head) :]
    return " " + text[len(head) + 1 :]
