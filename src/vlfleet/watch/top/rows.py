"""The rows of each pane, and which one is chosen."""

from __future__ import annotations

from collections.abc import Sequence

from vlfleet.watch.top.facts import Facts
from vlfleet.watch.top.view import Pane, View

_MANY = 16
"""Replicas above which the sick ones come first: a person does not scroll through them to find one."""
_SICKNESS = {"failed": 0, "backoff": 1, "unhealthy": 1, "stopped": 2, "starting": 3, "draining": 4}


def rows(glance: Facts, pane: Pane) -> list[Facts]:
    """In their order on the screen."""
    if pane is Pane.LOG:
        return []
    found = glance.parts(pane.value)
    if pane is Pane.REPLICAS and len(found) > _MANY:
        return sorted(found, key=lambda replica: _SICKNESS.get(replica.text("phase"), 5))
    if pane is Pane.ALERTS:
        return sorted(found, key=lambda alert: alert.true("silenced"))
    return found


def key(pane: Pane, facts: Facts) -> str:
    """What tells this row from the others."""
    match pane:
        case Pane.REPLICAS:
            return facts.raw("name")
        case Pane.GPUS:
            return facts.text("index")
        case Pane.ALERTS:
            return f"{facts.raw('code')} {facts.raw('subject')}"
        case _:
            return facts.raw("id")


def chosen_at(view: View, pane: Pane, found: Sequence[Facts]) -> int:
    """Where the chosen row is: the first one when it is gone."""
    wanted = view.chosen.get(pane)
    if wanted is None:
        return 0
    return next((at for at, each in enumerate(found) if key(pane, each) == wanted), 0)


def still(glance: Facts, view: View, pane: Pane) -> Facts | None:
    """The row that was chosen by hand; None when it is gone. Where none was, the first one."""
    wanted = view.chosen.get(pane)
    found = rows(glance, pane)
    return next((each for each in found if wanted is None or key(pane, each) == wanted), None)


def chosen(glance: Facts, view: View, pane: Pane) -> Facts | None:
    """The chosen row; None in an empty pane."""
    found = rows(glance, pane)
    return found[chosen_at(view, pane, found)] if found else None


def replicas_on(glance: Facts, gpu: Facts) -> list[str]:
    """The names of the replicas on a GPU."""
    index = gpu.text("index")
    names = [each.text("name") for each in glance.parts("replicas") if index in each.texts("gpus")]
    return names or gpu.texts("replicas")
