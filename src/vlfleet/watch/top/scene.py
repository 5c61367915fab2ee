"""Everything that one screen shows."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field

from vlfleet.watch.top.facts import Facts
from vlfleet.watch.top.line import Tone
from vlfleet.watch.top.look import Look
from vlfleet.watch.top.past import Past
from vlfleet.watch.top.view import Pane, View


class Linked(enum.Enum):
    """How it stands with the fleet."""

    LIVE = enum.auto()
    CONNECTING = enum.auto()
    """None came yet."""
    LOST = enum.auto()


@dataclass(frozen=True)
class Link:
    """The connection to the fleet."""

    linked: Linked = Linked.LIVE
    since: float = 0.0
    """When it was lost; seconds since the epoch."""
    reason: str = ""


@dataclass(frozen=True)
class Notice:
    """What became of an order: a line above the keys."""

    about: str
    """A new notice about the same replaces this one."""
    text: str
    tone: Tone = Tone.PLAIN
    until: float = float("inf")
    """Seconds of `time.monotonic()`."""


@dataclass(frozen=True)
class Scene:
    """The fleet, the person's choices, and what came of them."""

    glance: Facts
    now: float
    """Seconds since the epoch, of this machine."""
    look: Look = field(default_factory=Look)
    view: View = field(default_factory=View)
    link: Link = field(default_factory=Link)
    past: Past = field(default_factory=Past)
    notices: Sequence[Notice] = ()
    log: Sequence[str] = ()
    log_of: str = ""

    def here(self, pane: Pane) -> bool:
        """Whether the keys act on this pane."""
        return self.view.pane is pane and self.view.box is None
