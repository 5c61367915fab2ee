"""`vlfleet down`: stop a fleet."""

from __future__ import annotations

from typing import Annotated

import typer

from vlfleet.cli.options import Name, note


def down(
    name: Name = "default",
    timeout: Annotated[
        float | None,
        typer.Option(min=0, help="Seconds for requests in flight.", show_default="the fleet's --drain-timeout"),
    ] = None,
) -> None:
    """Stop a fleet: requests in flight are finished, then nothing of it remains."""
    import asyncio

    from vlfleet.fleet.local import end, find

    fleet = find(name, note)
    if fleet is None:
        note(f"no fleet {name!r} is running")
        return
    stop_seconds = 10.0  # beyond the drain: engines get SIGTERM, then SIGKILL
    patience = fleet.state.spec.drain_timeout_seconds + stop_seconds if timeout is None else timeout
    in_flight = sum(replica.in_flight for replica in fleet.state.replicas)
    note(f"stopping fleet {name!r}" + (f", {in_flight} in flight" if fleet.supervised and in_flight else ""))
    asyncio.run(end(fleet, patience))
    note("stopped")
