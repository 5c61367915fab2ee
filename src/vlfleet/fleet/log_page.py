"""A log in pieces, for somebody far away: its last lines, then again and again what came since."""

from __future__ import annotations

import os
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

from vlfleet.doctor.lines import clean

MOST_BYTES = 256 << 10
"""Of one piece."""
LEAST_TAIL_BYTES, LINE_BYTES = 64 << 10, 400
"""Read for the last lines: so many for each, and no less than that in all."""
_BEFORE_BYTES = 64
_MARK = re.compile(r"([0-9a-f]{1,16})\.([0-9a-f]{1,12})\.([0-9a-f]{8})")


@dataclass(frozen=True)
class Piece:
    """A piece of a log."""

    text: str = ""
    """Whole lines, cleaned of whatever would steer a terminal."""
    mark: str = ""
    """Where it ends: names the file, the place in it and what stands before that. Empty while there is no file."""
    truncated: bool = False
    """Something between the last mark and this text is gone."""


def page(log: Path, mark: str, lines: int) -> Piece:
    """What came after `mark`; the last `lines` where it is empty.

    Raises:
        ValueError: it is no mark.
    """
    return since(log, mark) if mark else last(log, lines)


def last(log: Path, lines: int) -> Piece:
    """The last `lines` of a log; nothing where there is none."""
    try:
        with log.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = max(0, size - max(LEAST_TAIL_BYTES, lines * LINE_BYTES))
            file.seek(start)
            found = file.read(size - start)
            if start:
                found = found[found.find(b"\n") + 1 :]
            whole, end = _whole(found, size)
            return Piece(_text(whole, lines), _mark(file.fileno(), end))
    except OSError:
        return Piece()


def since(log: Path, mark: str) -> Piece:
    """What came after `mark`. From the beginning where that is in another file, or in one that was cut meanwhile; of
    more than `MOST_BYTES` only the end.

    Raises:
        ValueError: it is no mark.
    """
    found = _MARK.fullmatch(mark)
    if not found:
        raise ValueError(mark)
    place = int(found[2], 16)
    try:
        with log.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            same = place <= size and _mark(file.fileno(), place) == mark
            start = place if same else 0
            cut = size - start > MOST_BYTES
            if cut:
                start = size - MOST_BYTES
            new = os.pread(file.fileno(), size - start, start)
            if cut:
                new = new[new.find(b"\n") + 1 :]
            whole, end = _whole(new, size)
            return Piece(_text(whole), _mark(file.fileno(), end), cut or not same)
    except OSError:
        return Piece(mark=mark)


def _whole(data: bytes, end: int) -> tuple[bytes, int]:
    """The whole lines of `data`, which goes up to `end`, and where they end."""
    length = data.rfind(b"\n") + 1
    return data[:length], end - (len(data) - length)


def _text(data: bytes, most_lines: int | None = None) -> str:
    lines = data.decode("utf-8", "replace").split("\n")[:-1]
    kept = lines if most_lines is None else lines[max(0, len(lines) - most_lines) :]
    return "".join(f"{clean(line)}\n" for line in kept)


def _mark(file: int, place: int) -> str:
    """A file that was emptied and has grown beyond `place` since then holds something else before it."""
    start = max(0, place - _BEFORE_BYTES)
    before = os.pread(file, place - start, start)
    return f"{os.fstat(file).st_ino:x}.{place:x}.{zlib.crc32(before):08x}"
