"""`vlfleet report`: what a fleet did, in one file."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated

import typer

from vlfleet.cli.options import AsJson, Name, note
from vlfleet.errors import ExitCode, VlfleetError

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def report(
    since: Annotated[str, typer.Option(help="How far back: 30m, 2h, 7d.", metavar="TIME")] = "2h",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="FILE.html, FILE.json or FILE.md; without it Markdown is printed."),
    ] = None,
    price_per_gpu_hour: Annotated[
        float | None, typer.Option(min=0, help="What a GPU costs; the report then has the price of 1,000 images.")
    ] = None,
    name: Name = "default",
    as_json: AsJson = False,
) -> None:
    """Write what a fleet did: what to change, latency by image size, incidents, the plan against reality, cost.

    It reads the history in the fleet's folder, so it also works when the fleet no longer runs.
    """
    import time

    from vlfleet.fleet.folder import FleetFolder
    from vlfleet.watch.history_read import last
    from vlfleet.watch.report_texts import WRITERS
    from vlfleet.watch.report_words import when
    from vlfleet.watch.reports import report_of
    from vlfleet.watch.watcher import FILE

    seconds = duration(since)
    kind = output.suffix.lower().removeprefix(".") if output else "json" if as_json else "md"
    if kind not in WRITERS:
        raise VlfleetError(f"{output} says no format", "end it with .html, .json or .md", ExitCode.USAGE)
    if price_per_gpu_hour is not None and not math.isfinite(price_per_gpu_hour):
        raise VlfleetError("--price-per-gpu-hour is no price", "say a number, as 2.50", ExitCode.USAGE)
    folder, until = FleetFolder.of(name), time.time()
    found = report_of(folder, until - seconds, until, price_per_gpu_hour)
    if not found.figures["watched_seconds"] and (at := last(folder.path / FILE)) is not None:
        note(f"nothing was watched in the last {since}: the history ends at {when(at)}")
    text = WRITERS[kind](found)
    if output is None:
        print(text)
        return
    try:
        output.write_text(text, encoding="utf-8", errors="replace")
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
