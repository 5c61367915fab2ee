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
        self._done = self._skipped = 0
        self._started = self._shown = 0.0
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
        now = time.monotonic()
        if not self._started:  # what came before (a calibration of minutes) says nothing about the rate
            self._started = self._shown = now
            self._skipped = done_bytes  # may be what an interrupted run had done
        self._done += done_bytes
        if self._bar:
            self._bar.advance(self._bar.task_ids[0], done_bytes)
        elif now - self._shown > PLAIN_EVERY_SECONDS:
            self._shown = now
            rate = (self._done - self._skipped) / (now - self._started)
            note(line(self._what, self._done, self._total, rate))

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()


def line(what: str, done_bytes: int, total_bytes: int, rate: float) -> str:
    """`pad  37 %  15.2 of 41.1 GB  1.20 GB/s  22 s left` at `rate` bytes a second; 0: it is not known yet."""
    share = f"{100 * done_bytes / total_bytes:.0f} %  " if total_bytes else ""
    text = f"{what}  {share}{done_bytes / 1e9:.1f} of {total_bytes / 1e9:.1f} GB"
    if rate <= 0:
        return text
    left = max(0, total_bytes - done_bytes) / rate
    return f"{text}  {rate / 1e9:.2f} GB/s  {_duration(left)} left"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
