"""`vlfleet restart`: replace replicas one at a time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlfleet.cli.options import AsJson, Name, named, note

if TYPE_CHECKING:
    from vlfleet.fleet.folder import FleetFolder
    from vlfleet.fleet.local import LocalFleet
    from vlfleet.fleet.roll import Order


def restart(
    name: Name = "default",
    replica: Annotated[str, typer.Option(help="r0, r1, ...; without it all, one after the other.")] = "",
    drain_timeout: Annotated[
        float, typer.Option(min=0, help="Seconds for a replica's requests; those left over end with an error.")
    ] = 600.0,
    force: Annotated[
        bool, typer.Option("--force", help="Also when no other replica is ready: requests are refused meanwhile.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Replace replicas by new ones, one at a time; no request fails while others are ready.

    Each finishes its requests first, and the next one waits until the new one is ready and has made a token. It also
    starts anew what was given up. Exit code 4: a new one did not become ready, and the rest were left as they are.
    """
    import asyncio

    from vlfleet.fleet.roll import Order

    folder = running(name).folder
    try:
        asyncio.run(_follow(folder, Order(replica, drain_timeout, force), as_json))
    except KeyboardInterrupt:
        note(f"the restart goes on without you: `vlfleet status{named(name)}` shows it")
        raise


def running(name: str) -> LocalFleet:
    """The fleet `name`, which takes orders.

    Raises:
        VlfleetError: it does not run, or nobody is there to take them.
    """
    from vlfleet.errors import VlfleetError
    from vlfleet.fleet.local import find

    fleet = find(name, note)
    if fleet is None:
        raise VlfleetError(f"no fleet {name!r} is running", f"start one with `vlfleet up{named(name)}`")
    if not fleet.supervised:
        raise VlfleetError("the fleet's supervisor was killed", f"`vlfleet up{named(name)}` takes its replicas over")
    return fleet


async def _follow(folder: FleetFolder, order: Order, as_json: bool) -> None:
    from vlfleet.fleet.control import give

    began, replaced = time.monotonic(), []
    async for event in give(folder, "/restart", order):
        if event["event"] == "ready":
            replaced.append(event["replica"])
        if as_json:
            import json

            print(json.dumps(event), flush=True)
        elif line := describe(event):
            note(line)
    if not as_json:
        note(f"restarted {' '.join(replaced)} in {time.monotonic() - began:.0f} s")


def describe(event: dict[str, Any]) -> str:
    """The event in a few words; empty for one that a person need not read."""
    match event:
        case {"event": "draining", "in_flight": 0}:
            doing = "has no request in flight"
        case {"event": "draining", "in_flight": in_flight}:
            doing = f"draining: {_requests(in_flight)} in flight"
        case {"event": "drained"}:
            doing = "drained: it has no request in flight"
        case {"event": "stopping", "cut": 0}:
            doing = "stopping"
        case {"event": "stopping", "cut": cut}:
            doing = f"stopping: the drain timeout is over, {_requests(cut)} cut"
        case {"event": "starting", "detail": detail}:
            doing = detail or "starting"
        case {"event": "ready", "seconds": seconds}:
            doing = f"ready after {seconds:.1f} s"
        case _:
            return ""
    return f"{event['replica']}  {doing}"


def _requests(count: int) -> str:
    return f"{count} request{'s' * (count != 1)}"
