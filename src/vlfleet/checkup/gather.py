"""Gathers facts, each kind within its time and apart from the others: what hangs or breaks is one missing fact."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vlfleet.checkup.known import Known, Missing, NotKnown
from vlfleet.checkup.scene import Scene
from vlfleet.errors import VlfleetError


@dataclass(frozen=True)
class Gatherer:
    """How facts of one kind come about."""

    kind: type
    gather: Callable[[Scene, Known], object]
    """Given what was gathered before; raises NotKnown or VlfleetError where there is nothing to be had."""
    seconds: float = 5.0
    """After which it is left behind."""
    quick: bool = True
    """Whether it runs with --quick."""


def gather(scene: Scene, gatherers: Sequence[Gatherer]) -> Known:
    """All facts, in order. Takes at most the sum of the gatherers' times; raises nothing."""
    facts: list[object] = []
    missing: dict[type, Missing] = {}
    for gatherer in gatherers:
        if scene.quick and not gatherer.quick:
            missing[gatherer.kind] = Missing("left out by --quick", skipped=True)
            continue
        found = _within(gatherer, scene, Known(*facts, missing=missing))
        if isinstance(found, Missing):
            missing[gatherer.kind] = found
        else:
            facts.append(found)
    return Known(*facts, missing=missing)


def _within(gatherer: Gatherer, scene: Scene, before: Known) -> object:
    """The facts, or why there are none. A thread that hangs (a network disk, a driver) is a daemon and stays behind."""
    box: list[object] = []

    def work() -> None:
        try:
            box.append(gatherer.gather(scene, before))
        except NotKnown as none:
            box.append(none.missing)
        except VlfleetError as error:
            box.append(Missing(error.cause))
        except Exception as error:
            box.append(Missing(f"{type(error).__name__}: {error}".splitlines()[0][:200]))

    thread = threading.Thread(target=work, daemon=True, name=f"doctor-{gatherer.kind.__name__}")
    thread.start()
    thread.join(gatherer.seconds)
    return box[0] if box else Missing(f"no answer within {gatherer.seconds:g} s")
