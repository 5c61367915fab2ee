"""Reads a history: what a report is made of."""

from __future__ import annotations

import array
import json
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from vlfleet.watch.point import Point

TIERS = {1: 3600, 60: 2880, 900: 2880}
"""Seconds of each resolution, and rows of it that are kept: an hour, two days, a month."""


@dataclass(frozen=True)
class Event:
    """Something happened: an alert began or ended, a replica changed."""

    at: float
    kind: str
    """began, ended, or replica."""
    code: str
    subject: str
    text: str
    advice: str = ""


def read(path: Path, since: float, until: float) -> tuple[int, list[tuple[int, Point]], list[Event]]:
    """The finest resolution that reaches back to `since` (or has the oldest row), its points, and the events.

    A file that is not there has nothing.

    Raises:
        sqlite3.Error: it cannot be read.
    """
    if not path.exists():
        return 1, [], []
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)) as db:
        resolution = _resolution(db, since, until)
        points = list(points_of(db, resolution, int(since), int(until) + 1))
        rows = db.execute(
            "SELECT at, kind, code, subject, text, advice FROM events WHERE at >= ? AND at <= ? ORDER BY at, id",
            (since, until),
        )
        return resolution, points, [Event(*row) for row in rows]


def last(path: Path) -> int | None:
    """When the newest row begins, in seconds since the epoch; None where there is none.

    Raises:
        sqlite3.Error: it cannot be read.
    """
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)) as db:
        found = db.execute("SELECT max(at) FROM points").fetchone()[0]
        return None if found is None else int(found)


def _resolution(db: sqlite3.Connection, since: float, until: float) -> int:
    """The finest whose rows reach back to `since`, or as far as those of the coarser ones do."""
    oldest = {
        each: db.execute("SELECT min(at) FROM points WHERE resolution = ?", (each,)).fetchone()[0] for each in TIERS
    }
    known = {each: at for each, at in oldest.items() if at is not None}
    for each, at in sorted(known.items()):
        reaches = at <= since or all(at < first + width for width, first in known.items() if width > each)
        if reaches and (until - max(since, at)) / each <= TIERS[each]:
            return each
    return max(known, default=1)


def points_of(db: sqlite3.Connection, resolution: int, since: int, end: int) -> Iterator[tuple[int, Point]]:
    """From `since` to before `end`, in order. A row that cannot be read is left out."""
    lists: dict[int, list[str]] = {}
    query = "SELECT at, names, numbers FROM points WHERE resolution = ? AND at >= ? AND at < ? ORDER BY at"
    for at, names, packed in db.execute(query, (resolution, since, end)).fetchall():
        if names not in lists:
            row = db.execute("SELECT list FROM names WHERE id = ?", (names,)).fetchone()
            lists[names] = json.loads(row[0]) if row else []
        numbers = array.array("f")
        try:
            numbers.frombytes(zlib.decompress(packed))
        except (zlib.error, ValueError, TypeError):
            continue
        if len(numbers) == len(lists[names]):
            yield at, dict(zip(lists[names], numbers, strict=True))
