"""How far a command on files has come: a bar with rate and time left in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from vlfleet.cli.options import note

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

PLAIN_EVERY_SECONDS = 10.0


class Progress:
    """`with Progress("pad", total_bytes) as report:` gives what the package calls with the bytes done."""

    def __init__(self, what: str, total_bytes: int) -> None:
        self._what = what
        self._total = total_bytes
        self._done = 0
        self._started = self._shown = time.monotonic()
        self._bar: Bar | None = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                DownloadColumn,
                TaskProgressColumn,
                TextColumn,
                TimeRemainingColumn,
                TransferSpeedColumn,
            )
            from rich.progress import Progress as Bar

            columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), DownloadColumn())
            rates = (TransferSpeedColumn(), TimeRemainingColumn())
            self._bar = Bar(*columns, *rates, console=Console(stderr=True), transient=True)
            self._bar.add_task(self._what, total=self._total)
            self._bar.start()
        return self

    def __call__(self, done_bytes: int) -> None:
        self._done += done_bytes
        now = time.monotonic()
        if self._bar:
            self._bar.advance(self._bar.task_ids[0], done_bytes)
        elif now - self._shown > PLAIN_EVERY_SECONDS:
            self._shown = now
            note(line(self._what, self._done, self._total, now - self._started))

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()


def line(what: str, done_bytes: int, total_bytes: int, seconds: float) -> str:
    """`pad  37 %  15.2 of 41.1 GB  1.20 GB/s  22 s left`; nothing is said of what cannot be known yet."""
    share = f"{100 * done_bytes / total_bytes:.0f} %  " if total_bytes else ""
    text = f"{what}  {share}{done_bytes / 1e9:.1f} of {total_bytes / 1e9:.1f} GB"
    if seconds <= 0 or done_bytes <= 0:
        return text
    rate = done_bytes / seconds
    left = max(0, total_bytes - done_bytes) / rate
    return f"{text}  {rate / 1e9:.2f} GB/s  {_duration(left)} left"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
