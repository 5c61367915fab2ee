"""`vlfleet cordon`, `uncordon` and `drain`: take replicas out of rotation by hand, and put them back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlfleet.cli.options import AsJson, Name, named, note
from vlfleet.cli.restart import describe, running

if TYPE_CHECKING:
    from vlfleet.fleet.cordon import Cordon, Drain
    from vlfleet.fleet.folder import FleetFolder

Which = Annotated[
    str, typer.Argument(metavar="REPLICA", help="r0, r1, ...; gpu3 is every replica that is placed on that GPU.")
]
Force = Annotated[
    bool, typer.Option("--force", help="Also when no other replica is in rotation: requests are refused meanwhile.")
]


def cordon(replica: Which, name: Name = "default", force: Force = False, as_json: AsJson = False) -> None:
    """Send a replica no new request. It stays up and finishes what it has; restarts do not change that it is out.

    Exit code 2: there is no such replica; 1: no other one is in rotation.
    """
    from vlfleet.fleet.cordon import Cordon

    _cordon("/cordon", Cordon(replica, force), name, as_json)


def uncordon(replica: Which, name: Name = "default", as_json: AsJson = False) -> None:
    """Send a replica requests again."""
    from vlfleet.fleet.cordon import Cordon

    _cordon("/uncordon", Cordon(replica), name, as_json)


def drain(
    replica: Which,
    name: Name = "default",
    timeout: Annotated[float, typer.Option(min=0, help="Seconds for the requests that it has.")] = 600.0,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Cordon a replica and wait until it has no request any more.

    With --json each event is a line. Exit code 4: it still had requests when the time was over; they go on, and it
    stays cordoned.
    """
    import asyncio

    from vlfleet.fleet.cordon import Drain

    folder = running(name).folder
    try:
        asyncio.run(_follow(folder, Drain(replica, timeout, force), as_json))
    except KeyboardInterrupt:
        note(f"{replica} stays cordoned: `vlfleet uncordon {replica}{named(name)}` puts it back")
        raise


def _cordon(path: str, order: Cordon, name: str, as_json: bool) -> None:
    """Gives the order, and prints who is out of rotation by hand now."""
    import asyncio
    import json

    answer = asyncio.run(_answer(running(name).folder, path, order))
    if as_json:
        print(json.dumps(answer))
        return
    out = " ".join(answer["cordoned"])
    note(f"cordoned: {out}; `vlfleet uncordon REPLICA{named(name)}` puts it back" if out else "no replica is cordoned")


async def _answer(folder: FleetFolder, path: str, order: Cordon) -> dict[str, Any]:
    from vlfleet.fleet.control import give

    return await anext(give(folder, path, order))


async def _follow(folder: FleetFolder, order: Drain, as_json: bool) -> None:
    from vlfleet.fleet.control import give

    said = ""
    async for event in give(folder, "/drain", order):
        if as_json:
            import json

            print(json.dumps(event), flush=True)
        elif (line := describe(event)) and line != said:
            said = line
            note(line)
