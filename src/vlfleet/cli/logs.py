"""`vlfleet logs`: what the engines wrote."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from vlfleet.cli.options import Name

if TYPE_CHECKING:
    from pathlib import Path

_POLL_SECONDS = 0.2


def logs(
    replica: Annotated[str, typer.Argument(help="r0, r1, ..., or supervisor; all of them without it.")] = "",
    name: Name = "default",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is written from now on.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="Of each log, from its end.")] = 50,
) -> None:
    """Show the engines' logs, also of a fleet that has ended; the run before the last is beside them as *.log.1."""
    from vlfleet.fleet.logs import Tail, tail_lines

    files = _files(name, replica)
    several = len(files) > 1
    tails = {each: Tail(file, most_bytes=0) for each, file in files.items()}
    for each, file in files.items():
        _print(each if several else "", tail_lines(file, lines, most_bytes=max(64 << 10, lines * 400)))
    while follow:
        time.sleep(_POLL_SECONDS)
        for each, tail in tails.items():
            _print(each if several else "", tail.lines())


def _files(name: str, replica: str) -> dict[str, Path]:
    """The log files to show, by replica."""
    from vlfleet.errors import ExitCode, VlfleetError
    from vlfleet.fleet.folder import FleetFolder

    folder = FleetFolder.of(name).path / "logs"
    found = {file.stem: file for file in sorted(folder.glob("*.log"))}
    if not found:
        raise VlfleetError(f"fleet {name!r} has no logs", "start it with `vlfleet up`")
    if not replica:
        return {each: file for each, file in found.items() if each != "supervisor"} or found
    if replica not in found:
        raise VlfleetError(f"there is no log of {replica!r}", f"choose one of: {' '.join(found)}", ExitCode.USAGE)
    return {replica: found[replica]}


def _print(replica: str, lines: list[str]) -> None:
    for line in lines:
        print(f"{replica} | {line}" if replica else line, flush=True)
