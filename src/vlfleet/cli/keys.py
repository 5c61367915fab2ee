"""`vlfleet keys`: who may use a fleet, and how much of it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlfleet.cli.options import AsJson, Name, named, note

if TYPE_CHECKING:
    from vlfleet.gateway.keys import Key, KeyFile

app = typer.Typer(
    name="keys",
    help="Makes, lists and revokes the API keys of a fleet. A running one heeds changes at once.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
_HEADER = ("NAME", "ID", "MADE", "REQUESTS/MIN", "AT ONCE", "MEGAPIXELS/MIN")
Who = Annotated[str, typer.Argument(metavar="NAME", help="Whose key it is.")]


@app.command()
def add(
    who: Who,
    requests_per_minute: Annotated[int | None, typer.Option(min=1, help="Requests in any 60 seconds.")] = None,
    concurrent_requests: Annotated[int | None, typer.Option(min=1, help="Requests at the same time.")] = None,
    megapixels_per_minute: Annotated[
        float | None, typer.Option(min=0.01, help="Of pictures and video frames, in any 60 seconds.")
    ] = None,
    name: Name = "default",
    as_json: AsJson = False,
) -> None:
    """Make a key and print it, once: only its hash is kept. Once a fleet has had a key, it asks for one."""
    from vlfleet.gateway.keys import KeyLimits

    limits = KeyLimits(requests_per_minute, concurrent_requests, megapixels_per_minute)
    key = _file(name).add(who, limits)
    if as_json:
        _print_json({"name": who, "key": key, "limits": asdict(limits)})
        return
    print(key)
    note("this is the only time that it is shown; clients send it as `Authorization: Bearer KEY`")


@app.command("list")
def show(name: Name = "default", as_json: AsJson = False) -> None:
    """List the keys: names, limits, and the first digits of their hashes."""
    keys = _file(name).read()
    if as_json:
        facts = [{"name": key.name, "id": key.id, "created_at": key.created_at, **asdict(key.limits)} for key in keys]
        _print_json(facts)
    elif keys:
        print(table(keys))
    else:
        note(f"there is no key; make one with `vlfleet keys add NAME{named(name)}`")


@app.command()
def revoke(who: Who, name: Name = "default") -> None:
    """Revoke a key: the next request with it is refused, those that run go on."""
    file = _file(name)
    file.revoke(who)
    note(f"revoked {who}" + ("; no key is left, so nobody is let in" if not file.read() else ""))


@app.callback()
def _group() -> None:
    """Make, list and revoke the API keys of a fleet."""


def _file(name: str) -> KeyFile:
    from vlfleet.fleet.folder import FleetFolder
    from vlfleet.gateway.keys import KeyFile

    folder = FleetFolder.of(name)
    folder.make()
    return KeyFile(folder.keys)


def table(keys: tuple[Key, ...]) -> str:
    """For a person."""
    rows = [_HEADER, *map(_row, keys)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _row(key: Key) -> tuple[str, ...]:
    import time

    made = time.strftime("%Y-%m-%d %H:%M", time.localtime(key.created_at))
    limits = key.limits
    most = (limits.requests_per_minute, limits.concurrent_requests, limits.megapixels_per_minute)
    return (key.name, key.id, made, *("-" if each is None else f"{each:g}" for each in most))


def _print_json(facts: Any) -> None:
    import json

    print(json.dumps(facts, indent=2))
