"""What the person at the terminal has chosen. It is never changed: a key makes a new one."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any


class Pane(enum.StrEnum):
    """What Tab goes through."""

    REPLICAS = "replicas"
    GPUS = "gpus"
    REQUESTS = "requests"
    ALERTS = "alerts"
    LOG = "log"


@dataclass(frozen=True)
class Order:
    """Something that the fleet is asked to do."""

    act: str
    """restart, drain, cordon, uncordon, acknowledge or silence."""
    subject: str
    """As it is shown: a replica, a GPU (gpu3) with its replicas, an alert."""
    body: Mapping[str, Any]
    """As it is sent."""


class Box(enum.StrEnum):
    """What may lie over the panes."""

    CONFIRM = "confirm"
    HELP = "help"
    DETAILS = "details"


@dataclass(frozen=True)
class View:
    """The state of the screen beside the fleet's."""

    pane: Pane = Pane.REPLICAS
    """Where the keys act."""
    chosen: Mapping[Pane, str] = field(default_factory=dict)
    """The row of each pane, by its key: rows come and go, the choice stays with its row."""
    log: bool = False
    back: int = 0
    """Lines between the end of the log and the last one that is seen."""
    paused: bool = False
    box: Box | None = None
    scroll: int = 0
    """Of the box: lines before the first one that is seen."""
    order: Order | None = None
    """What Box.CONFIRM asks about."""
    order_text: tuple[str, ...] = ()

    def choose(self, pane: Pane, key: str) -> View:
        return replace(self, chosen={**self.chosen, pane: key})

    @property
    def panes(self) -> tuple[Pane, ...]:
        """Those that are there, in the order of Tab."""
        return tuple(pane for pane in Pane if pane is not Pane.LOG or self.log)

    def closed(self) -> View:
        """Without a box."""
        return replace(self, box=None, scroll=0, order=None, order_text=())
