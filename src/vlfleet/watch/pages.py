"""What an engine said on /metrics, as the watch is given it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from vlfleet.fleet.replica import Phase, Replica

RUNS = (Phase.READY, Phase.UNHEALTHY, Phase.DRAINING)
"""Phases in which an engine has something to say."""


@dataclass(frozen=True)
class Page:
    """What the process that began at `started_at` said at `at` of `time.monotonic()`."""

    started_at: float
    at: float
    text: bytes


class Pages(Protocol):
    """Who asks the engines, for everybody who wants to know (`gateway.engine_pages`)."""

    def of(self, replica: Replica) -> Page | None:
        """What it said last; None where its present process has said nothing yet, or none runs."""

    async def look(self, most_seconds: float, patience_seconds: float) -> None:
        """Asks every engine whose page is older than `most_seconds`, and waits at most `patience_seconds`."""
