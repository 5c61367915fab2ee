"""Log files of engines: their last lines, what is new in them, and a bound on their size."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from vlfleet.doctor.lines import clean as clean

_TAIL_BYTES = 64 << 10


def tail_lines(log: Path, count: int, most_bytes: int = _TAIL_BYTES) -> list[str]:
    """The last `count` lines within the last `most_bytes`, cleaned; [] when the file cannot be read."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - most_bytes))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    lines = text.split("\n")
    if size > most_bytes:
        del lines[0]  # cut in two
    if lines and not lines[-1]:
        lines.pop()
    return [clean(line) for line in lines[-count:]] if count else []


def last_line(log: Path) -> str:
    """The last line that is not empty, cleaned; "" when there is none."""
    return next((line for line in reversed(tail_lines(log, 50, 8 << 10)) if line), "")


class Tail:
    """What is new in a growing log file. Survives its truncation, and its replacement by a new run's file."""

    def __init__(self, log: Path, most_bytes: int = _TAIL_BYTES) -> None:
        """Begins with what the file holds already, but no more than its last `most_bytes`."""
        self._log = log
        self._inode = 0
        self._partial = b""
        try:
            self._offset = max(0, log.stat().st_size - most_bytes)
            self._inode = log.stat().st_ino
        except FileNotFoundError:
            self._offset = 0

    def lines(self) -> list[str]:
        """The complete lines written since the last call, cleaned; what cannot be read now comes with a later call."""
        try:
            with self._log.open("rb") as file:
                status = os.fstat(file.fileno())
                if status.st_ino != self._inode or status.st_size < self._offset:
                    self._inode, self._offset, self._partial = status.st_ino, 0, b""
                file.seek(self._offset)
                new = file.read()
        except OSError:
            return []
        self._offset += len(new)
        *complete, self._partial = (self._partial + new).split(b"\n")
        return [clean(line.decode(errors="replace")) for line in complete]


def bound(log: Path, most_bytes: int) -> bool:
    """Moves the content of a log that has grown beyond `most_bytes` to `.log.1`; says whether it did.

    The engine has the file open for appending, so it is copied and truncated; lines written in between are lost. Where
    the disk is too full for the copy, the content is lost too: a log must not be what keeps the disk full.
    """
    old = log.with_name(log.name + ".1")
    try:
        if log.stat().st_size <= most_bytes:
            return False
        try:
            shutil.copyfile(log, old)
        except OSError:
            old.unlink(missing_ok=True)
        os.truncate(log, 0)
    except OSError:
        return False
    return True
