"""Options and output that several commands share."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Annotated

import typer

Name = Annotated[str, typer.Option("--name", help="Which fleet, when several run on this machine.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def note(line: str) -> None:
    """Progress and warnings go to stderr: stdout is for data. A terminal that was closed stops nothing."""
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def named(name: str) -> str:
    """The option that a command for fleet `name` needs."""
    return "" if name == "default" else f" --name {name}"
