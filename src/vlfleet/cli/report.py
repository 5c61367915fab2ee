"""`vlfleet report`: what a fleet did, in one file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from vlfleet.cli.options import AsJson, Name, note
from vlfleet.errors import ExitCode, VlfleetError

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_KINDS = (".html", ".json", ".md")


def report(
    since: Annotated[str, typer.Option(help="How far back: 30m, 2h, 7d.", metavar="TIME")] = "2h",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="FILE.html, FILE.json or FILE.md; without it Markdown is printed."),
    ] = None,
    name: Name = "default",
    as_json: AsJson = False,
) -> None:
    """Write what a fleet did: traffic, latency, GPUs, balance, caches, and incidents with their explanation.

    It reads the history in the fleet's folder, so it also works when the fleet no longer runs.
    """
    import sqlite3
    import time

    from vlfleet.fleet.folder import FleetFolder
    from vlfleet.watch import report_texts
    from vlfleet.watch.history import read
    from vlfleet.watch.report import build
    from vlfleet.watch.watcher import FILE

    seconds = duration(since)
    kind = output.suffix.lower() if output else ".json" if as_json else ".md"
    if kind not in _KINDS:
        raise VlfleetError(f"{output} says no format", "end it with .html, .json or .md", ExitCode.USAGE)
    path, until = FleetFolder.of(name).path / FILE, time.time()
    if not path.exists():
        raise VlfleetError(f"the fleet {name!r} has no history", "`vlfleet up` begins one; --name chooses a fleet")
    try:
        found = build(name, until - seconds, until, *read(path, until - seconds, until))
    except sqlite3.Error as error:
        raise VlfleetError(
            f"{path} cannot be read: {error}", "the next `vlfleet up` sets a damaged one aside"
        ) from None
    write = {".html": report_texts.to_html, ".json": report_texts.to_json, ".md": report_texts.to_markdown}[kind]
    if output is None:
        print(write(found))
        return
    try:
        output.write_text(write(found), encoding="utf-8", errors="replace")
    except OSError as error:
        raise VlfleetError(f"{output} cannot be written: {error.strerror}", "choose another with -o") from None
    note(f"wrote {output}")


def duration(text: str) -> float:
    """Seconds of 90s, 30m, 2h, 7d, 1w.

    Raises:
        VlfleetError: it is none of these.
    """
    if not (found := re.fullmatch(r"(\d{1,6}(?:\.\d+)?)([smhdw])", text.strip())) or not float(found[1]):
        raise VlfleetError(f"--since {text} is no duration", "say 30m, 2h or 7d", ExitCode.USAGE)
    return float(found[1]) * _UNITS[found[2]]
