"""What the replicas of one fleet have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import aiohttp

from vlfleet.engine.launch import Engine
from vlfleet.fleet.folder import FleetFolder
from vlfleet.fleet.replica import Phase, Replica
from vlfleet.fleet.timing import Timing


@dataclass(frozen=True)
class Shared:
    """Their engine, their clocks, their neighbours, and who wants to hear of them."""

    engine: Engine
    served_model_name: str
    folder: FleetFolder
    timing: Timing
    session: aiohttp.ClientSession
    replicas: Sequence[Replica]
    on_change: Callable[[Replica], None]
    say: Callable[[str], None]

    def another_ready(self, replica: Replica) -> bool:
        """Whether the gateway has somebody else to ask."""
        return any(each.in_rotation for each in self.replicas if each is not replica)

    def set(self, replica: Replica, phase: Phase, detail: str = "") -> None:
        if (replica.phase, replica.detail) != (phase, detail):
            replica.phase, replica.detail = phase, detail
            self.on_change(replica)
