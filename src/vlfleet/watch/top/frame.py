"""One screen: which pane stands where, and what lies over them. Pure; exactly as many lines and cells as there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from vlfleet.watch.top import alerts, machine
from vlfleet.watch.top.boxes import over
from vlfleet.watch.top.footer import footer
from vlfleet.watch.top.heading import heading
from vlfleet.watch.top.line import EMPTY, Line, Span, Tone, fit, line, pad
from vlfleet.watch.top.log import log
from vlfleet.watch.top.replicas import replicas
from vlfleet.watch.top.requests import requests
from vlfleet.watch.top.rows import rows
from vlfleet.watch.top.scene import Scene
from vlfleet.watch.top.view import Pane

SIDE_BY_SIDE = 120
"""Cells from which two panes stand beside each other."""
_LARGE = 30
"""Lines from which there is room for curves, and for a log below all panes."""
_BESIDE_ROWS = 14
"""Lines of the heading, the titles, an advice, some requests and the keys."""
_LEFT = 0.61
"""Of the width, for replicas: at 120 cells what is wrong with them and with the GPUs both fits."""
_NOTICES = 3
_USUAL = 18
"""Lines for panes on a screen of 24, with a notice or two."""


class Place(NamedTuple):
    """A pane and how many lines it takes."""

    pane: Pane | None
    """None for a line that no key acts on."""
    least: int
    wanted: int
    draw: Callable[[Scene, int, int], list[Line]]


def frame(scene: Scene, width: int, height: int) -> list[Line]:
    """The screen."""
    top = heading(scene, width, curves=_room_for_curves(scene, height))
    ellipsis = scene.look.signs.ellipsis
    notices = [line(fit(each.text, width, ellipsis=ellipsis), each.tone) for each in scene.notices[-_NOTICES:]]
    bottom = [*notices, footer(scene, width)]
    room = max(0, height - len(top) - len(bottom))
    body = _body(scene, width, room) if scene.glance else []
    shown = [pad(each, width) for each in [*top, *body]]
    blank = pad(EMPTY, width)
    shown = (shown + [blank] * height)[: max(0, height - len(bottom))]
    shown = (shown + [pad(each, width) for each in bottom])[-height:]
    return over(scene, shown, width)


def _room_for_curves(scene: Scene, height: int) -> bool:
    """On a large screen, and where replicas, GPUs and alerts leave enough of a small one."""
    told = sum(len(rows(scene.glance, pane)) for pane in (Pane.REPLICAS, Pane.GPUS, Pane.ALERTS))
    return height >= _LARGE or (not scene.view.log and told + _BESIDE_ROWS <= height)


def share_out(room: int, places: Sequence[Place], first: Pane) -> list[int]:
    """Lines of each place: the least that it needs, the pane in use before the others, then in turn what they want.

    The pane in use gets three lines in its turn. What has not even its least is left out.
    """
    order = sorted(range(len(places)), key=lambda at: (places[at].pane is not first, at))
    lines = [0] * len(places)
    left_out = set()
    for at in order:
        least = places[at].least
        if least <= room or places[at].pane is first:
            lines[at] = min(least, room)
            room -= lines[at]
        else:
            left_out.add(at)
    growing = [at for at in order if at not in left_out]
    while room > 0 and any(places[at].wanted > lines[at] for at in growing):
        for at in growing:
            step = 3 if places[at].pane is first else 1
            more = max(0, min(step, room, places[at].wanted - lines[at]))
            lines[at] += more
            room -= more
    return lines


def _body(scene: Scene, width: int, room: int) -> list[Line]:
    below = _log_place(scene, room)
    room -= below.wanted if below else 0
    beside = width >= SIDE_BY_SIDE and rows(scene.glance, Pane.GPUS)
    places = (_beside if beside else _below)(scene, width, room)
    if below and room < _LARGE:  # the log takes the place of what matters least while one reads it
        places = [each for each in places if each.pane in (Pane.REPLICAS, Pane.ALERTS, scene.view.pane)]
    body = _stack(scene, places, width, room)
    if below is None:
        return body
    return [*body, *[EMPTY] * (room - len(body)), *below.draw(scene, width, below.wanted)]


def _stack(scene: Scene, places: Sequence[Place], width: int, room: int) -> list[Line]:
    """The places below each other. Lines that one does not fill go to the others."""
    heights = share_out(room, places, scene.view.pane)
    drawn = [place.draw(scene, width, height)[:height] for place, height in zip(places, heights, strict=True)]
    if any(len(lines) < height for lines, height in zip(drawn, heights, strict=True)):
        filled = zip(places, drawn, heights, strict=True)
        places = [
            place._replace(wanted=min(place.wanted, len(lines) or 1)) if len(lines) < height else place
            for place, lines, height in filled
        ]
        again = share_out(room, places, scene.view.pane)
        for at, height in enumerate(again):
            if height != heights[at]:
                drawn[at] = places[at].draw(scene, width, height)[:height]
    return [each for lines in drawn for each in lines]


def _below(scene: Scene, width: int, room: int) -> list[Place]:
    """Everything below each other."""
    return [_replicas(scene, room), _gpus(scene, width), *_others(scene)]


def _beside(scene: Scene, width: int, room: int) -> list[Place]:
    """Replicas and GPUs side by side, the rest below them."""
    left = int(width * _LEFT)
    right = width - left - 3
    mine, theirs = _replicas(scene, room), _gpus(scene, right)

    def draw(scene: Scene, _: int, height: int) -> list[Line]:
        one, two = mine.draw(scene, left, height), theirs.draw(scene, right, height)
        rows = max(len(one), len(two))
        split = Span(f" {scene.look.signs.split} ", Tone.DIM)
        both = zip(one + [EMPTY] * (rows - len(one)), two + [EMPTY] * (rows - len(two)), strict=True)
        return [Line((*pad(each, left).spans, split, *pad(other, right).spans)) for each, other in both]

    pane = Pane.GPUS if scene.view.pane is Pane.GPUS else Pane.REPLICAS
    joined = Place(pane, max(mine.least, theirs.least), max(mine.wanted, theirs.wanted), draw)
    return [joined, *_others(scene)]


def _replicas(scene: Scene, room: int) -> Place:
    """Eight of them are seen on the smallest usual screen, whatever else there is."""
    count = len(rows(scene.glance, Pane.REPLICAS))
    return Place(Pane.REPLICAS, 1 + min(8 if room >= _USUAL else 4, count), 1 + count, replicas)


def _gpus(scene: Scene, width: int) -> Place:
    return Place(Pane.GPUS, *machine.lines(scene, width), machine.machine)


def _others(scene: Scene) -> list[Place]:
    told, asked = (len(rows(scene.glance, pane)) for pane in (Pane.ALERTS, Pane.REQUESTS))
    gpus = rows(scene.glance, Pane.GPUS)
    return [
        Place(Pane.ALERTS, 1 + min(2, told), alerts.wanted(scene), alerts.alerts),
        Place(Pane.REQUESTS, 1 + min(1, asked), 2 + asked, requests),
        *([Place(None, 0, 1, machine.host)] if gpus else []),
    ]


def _log_place(scene: Scene, room: int) -> Place | None:
    """The log has the lower half."""
    return Place(Pane.LOG, 3, max(3, room // 2), log) if scene.view.log and room >= 6 else None
