"""How a batch goes: one live line in a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from vlfleet.cli.options import note

if TYPE_CHECKING:
    from rich.live import Live

    from vlfleet.batch.batch import Batch

PLAIN_EVERY_SECONDS = 10.0


def line(batch: Batch) -> str:
    """`1,200 of 10,000 rows  38.1 a second  4 min left  3 failed  64 in flight  1.2 M + 80 k tokens`."""
    tally, runner = batch.tally, batch.runner
    total = f" of {tally.total:,}" if tally.total is not None else ""
    words = [f"{tally.settled:,}{total} rows"]
    if rate := tally.rate():
        words.append(f"{rate:.1f} a second" if rate >= 1 else f"{60 * rate:.1f} a minute")
    if (left := tally.seconds_left()) is not None and tally.left:
        words.append(f"{duration(left)} left")
    if tally.failed:
        words.append(f"{tally.failed:,} failed")
    if runner and runner.in_flight:
        words.append(f"{runner.in_flight} in flight")
    if tally.prompt_tokens:
        words.append(f"{short(tally.prompt_tokens)} + {short(tally.completion_tokens)} tokens")
    if runner and runner.patience.trouble:
        words.append(f"waiting: {runner.patience.trouble}")
    return "  ".join(words)


def summary(batch: Batch) -> list[str]:
    """What came of it, for a person."""
    from vlfleet.batch.batch import failures_path
    from vlfleet.cli.options import program, shown

    tally, out = batch.tally, batch.job.out
    total = tally.total if tally.total is not None else tally.settled
    lines = [f"{tally.rows:,} of {total:,} rows have an answer in {shown(out)}{detail(batch)}"]
    if failed := tally.failed + tally.failed_before:
        where = shown(failures_path(out))
        lines.append(f"{failed:,} failed, see {where}; ask them again with --retry-failed")
    if not batch.complete:
        lines.append(f"the batch is not finished: the same `{program()} batch` command goes on where it was")
    return lines


def detail(batch: Batch) -> str:
    tally = batch.tally
    words = [
        f"{count:,} {word}"
        for count, word in (
            (tally.answered, "asked now"),
            (tally.reused, "with the answer to the same question"),
            (tally.done_before, "from before"),
        )
        if count
    ]
    return f": {', '.join(words)}" if words else ""


def duration(seconds: float) -> str:
    """`40 s`, `3 min`, `2 h 5 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def short(count: int) -> str:
    """`950`, `12 k`, `1.2 M`."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}" if count < 10 * size else f"{count / size:.0f} {unit}"
    return str(count)


class Progress:
    """Called about once a second with the batch."""

    def __init__(self) -> None:
        self._live: Live | None = None
        self._told_at = 0.0
        self._terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    def note(self, text: str) -> None:
        """A line that stays."""
        if self._live:
            self._live.console.print(text, highlight=False, markup=False, soft_wrap=True)
        else:
            note(text)

    def update(self, batch: Batch) -> None:
        now = time.monotonic()
        if self._terminal:
            self._show(line(batch))
        elif not self._told_at:
            self._told_at = now
        elif now - self._told_at >= PLAIN_EVERY_SECONDS:
            self._told_at = now
            note(line(batch))

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        """Leaves the last line in the terminal."""
        if self._live:
            self._live.stop()
            self._live = None

    def _show(self, text: str) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        if self._live is None:
            self._live = Live(console=Console(stderr=True), auto_refresh=False)
            self._live.start()
        self._live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)
