"""Options and output that several commands share."""

from __future__ import annotations

import shutil
import sys
from contextlib import suppress
from pathlib import Path
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


def program() -> str:
    """How a person who stands where we do calls this program: by its path if it is not on PATH, as in a new .venv."""
    called = Path(sys.argv[0])
    return shown(called) if called.name == "vlfleet" and not shutil.which("vlfleet") else "vlfleet"


def shown(path: Path) -> str:
    """`path` as short as it can be given from here."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
