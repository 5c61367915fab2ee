"""What a key does: a new view, and perhaps an order. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from vlfleet.watch.top import orders
from vlfleet.watch.top.facts import Facts
from vlfleet.watch.top.look import Look
from vlfleet.watch.top.rows import chosen, chosen_at, key, rows
from vlfleet.watch.top.view import Box, Order, Pane, View

_PAGE = 10
_STEPS = {"up": -1, "k": -1, "down": 1, "j": 1, "pageup": -_PAGE, "pagedown": _PAGE, "home": -(10**9), "end": 10**9}
_ASKED: dict[str, Callable[[Facts, View, Look], tuple[Order, list[str]] | None]] = {
    "r": orders.restart,
    "d": orders.drain,
    "c": orders.cordon,
}


class Pressed(NamedTuple):
    """What came of a key."""

    view: View
    order: Order | None = None
    quit: bool = False


def press(view: View, name: str, glance: Facts, look: Look, person: str) -> Pressed:
    """`name` is the key's, as Textual calls it; one that means nothing here changes nothing."""
    if name == "ctrl+c":
        return Pressed(view, quit=True)
    if view.box is not None:
        return _in_box(view, view.box, name)
    if name == "q":
        return Pressed(view, quit=True)
    if name in _STEPS:
        return Pressed(_move(view, _STEPS[name], glance))
    if name in _ASKED:
        asked = _ASKED[name](glance, view, look)
        if asked is None:
            return Pressed(view)
        order, told = asked
        return Pressed(replace(view, box=Box.CONFIRM, order=order, order_text=tuple(told), scroll=0))
    match name:
        case "tab" | "shift+tab":
            at = view.panes.index(view.pane) + (1 if name == "tab" else -1)
            return Pressed(replace(view, pane=view.panes[at % len(view.panes)]))
        case "a":
            return Pressed(view, orders.acknowledge(glance, view, person))
        case "s":
            return Pressed(view, orders.silence(glance, view))
        case "e" | "enter":
            return Pressed(replace(_kept(view, glance), box=Box.DETAILS, scroll=0))
        case "question_mark" | "h" | "f1":
            return Pressed(replace(view, box=Box.HELP, scroll=0))
        case "p" | "space":
            return Pressed(replace(view, paused=not view.paused))
        case "l":
            pane = Pane.REPLICAS if view.log and view.pane is Pane.LOG else view.pane
            return Pressed(replace(view, log=not view.log, back=0, pane=pane))
    return Pressed(view)


def _in_box(view: View, box: Box, name: str) -> Pressed:
    """Only y carries out what a box asks; in the others the arrows scroll, and any other key closes them."""
    if box is Box.CONFIRM:
        if name == "y":
            return Pressed(view.closed(), view.order)
        return Pressed(view.closed() if name in ("n", "escape", "q", "enter") else view)
    if name in _STEPS:
        return Pressed(replace(view, scroll=max(0, min(view.scroll + _STEPS[name], _MOST))))
    return Pressed(view.closed())


_MOST = 10_000
"""Lines that a box is scrolled at most; what is drawn stops at its end."""


def _kept(view: View, glance: Facts) -> View:
    """With the chosen row chosen for good: what is explained does not become another row when it goes."""
    pane = Pane.REPLICAS if view.pane is Pane.LOG else view.pane
    row = chosen(glance, view, pane)
    return view.choose(pane, key(pane, row)) if row else view


def _move(view: View, steps: int, glance: Facts) -> View:
    if view.pane is Pane.LOG:
        return replace(view, back=max(0, min(view.back - steps, _MOST)))
    found = rows(glance, view.pane)
    if not found:
        return view
    at = min(len(found) - 1, max(0, chosen_at(view, view.pane, found) + steps))
    moved = view.choose(view.pane, key(view.pane, found[at]))
    return replace(moved, back=0) if view.pane is Pane.REPLICAS else moved
