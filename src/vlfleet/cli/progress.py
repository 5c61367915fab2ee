"""How replicas come up: one live line each in a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from vlfleet.cli.options import note
from vlfleet.fleet.folder import FleetFolder
from vlfleet.fleet.logs import last_line
from vlfleet.fleet.replica import Phase, Replica

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

TICK_SECONDS = 0.1
PLAIN_EVERY_SECONDS = 10.0
_COLOURS = {Phase.READY: "green", Phase.UNHEALTHY: "yellow", Phase.BACKOFF: "yellow", Phase.FAILED: "red"}


def describe(replica: Replica, now: float) -> str:
    """The state in a few words: "load", "ready", "out of rotation: no progress", "died, ...", "failed: ..."."""
    if replica.phase is Phase.BACKOFF and replica.retry_at:
        return f"died, next start in {max(0.0, replica.retry_at - now):.0f} s: {replica.error}"
    if replica.phase is Phase.FAILED:
        return f"failed: {replica.error}"
    if replica.phase is Phase.UNHEALTHY:
        return f"out of rotation: {replica.detail}"
    if replica.phase is Phase.DRAINING:
        return f"draining: {replica.in_flight} in flight"
    return (replica.detail or replica.phase.value) + ", cordoned" * replica.cordoned


def elapsed(replica: Replica, now: float) -> str:
    """How long this start has taken so far, or took; empty when there is none."""
    if replica.phase not in (Phase.STARTING, Phase.READY):
        return ""
    return f"{max(0.0, (replica.ready_at or now) - (replica.started_at or now)):.1f} s"


class Progress:
    """Shown while a fleet starts (`with Progress(folder) as progress`) and after that for what happens to it."""

    def __init__(self, folder: FleetFolder) -> None:
        self._folder = folder
        self._shown: dict[str, tuple[str, str, str]] = {}
        self._shown_at: dict[str, float] = {}
        self._live: Live | None = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), auto_refresh=False)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves the last state in the terminal; from now on changes are plain lines."""
        if self._live:
            self._live.stop()
            self._live = None

    def update(self, replicas: Sequence[Replica]) -> None:
        """Called every `TICK_SECONDS`."""
        now = time.time()
        for replica in replicas:
            self._line(replica, now)
        if self._live:
            self._live.update(self._table(replicas, now), refresh=True)

    def _line(self, replica: Replica, now: float) -> None:
        """A plain line on every change, and every 10 s while one has to be waited for."""
        state = (replica.phase.value, replica.detail, replica.error)
        waiting = replica.phase in (Phase.STARTING, Phase.BACKOFF)
        overdue = waiting and now - self._shown_at.get(replica.name, 0.0) > PLAIN_EVERY_SECONDS
        if state == self._shown.get(replica.name) and not overdue:
            return
        again = replica.name in self._shown and state == self._shown[replica.name]
        self._shown[replica.name], self._shown_at[replica.name] = state, now
        if self._live is None:
            last = f"  {last_line(self._folder.log(replica.name))}" if again else ""
            line = f"{replica.name}  {describe(replica, now)}  {elapsed(replica, now)}{last}"
            note(line.rstrip())

    def _table(self, replicas: Sequence[Replica], now: float) -> Table:
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        table.add_column(no_wrap=True, justify="right")
        table.add_column(no_wrap=True, overflow="ellipsis")
        for replica in replicas:
            state = Text(describe(replica, now), _COLOURS.get(replica.phase, ""))
            starting = replica.phase is Phase.STARTING
            last = last_line(self._folder.log(replica.name)) if starting else ""
            table.add_row(Text(replica.name), state, elapsed(replica, now), Text(last, "dim"))
        return table
