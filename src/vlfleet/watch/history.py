"""What the fleet was, on disk: SQLite in WAL mode, thinned with age, bounded.

One row a moment: its numbers as 4-byte floats in the order of a list of names, compressed. With 8 GPUs and 8 replicas
that is 500 numbers in 0.8 KB, and 8 MiB for all tiers (28 MiB after a week where nothing compresses:
tests/watch/test_history.py). Tiers are bounded by rows and not by age, so that a clock which jumps deletes nothing.
"""

from __future__ import annotations

import array
import json
import os
import sqlite3
import time
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from vlfleet.watch.history_read import TIERS, Event, points_of
from vlfleet.watch.point import Point, merged

MOST_BYTES = 50 << 20
"""Of the file. A fleet so large that its tiers need more keeps less of each."""
MOST_EVENTS = 5000
MOST_LISTS = 500
"""Lists of names; another when a replica or GPU comes or goes, or a bucket gets its first observation."""
PAGES_BYTES = 4096
_MIGRATIONS = (
    """CREATE TABLE names (id INTEGER PRIMARY KEY, list TEXT NOT NULL UNIQUE);
    CREATE TABLE points (resolution INTEGER, at INTEGER, names INTEGER NOT NULL, numbers BLOB NOT NULL,
        PRIMARY KEY (resolution, at)) WITHOUT ROWID;
    CREATE TABLE events (id INTEGER PRIMARY KEY, at REAL NOT NULL, kind TEXT NOT NULL, code TEXT NOT NULL,
        subject TEXT NOT NULL, text TEXT NOT NULL, advice TEXT NOT NULL);
    CREATE INDEX events_at ON events (at);""",
    """CREATE TABLE with_rowid (resolution INTEGER NOT NULL, at INTEGER NOT NULL, names INTEGER NOT NULL,
        numbers BLOB NOT NULL, UNIQUE (resolution, at));
    INSERT INTO with_rowid SELECT resolution, at, names, numbers FROM points;
    DROP TABLE points;
    ALTER TABLE with_rowid RENAME TO points;""",
)
"""The n-th brings a file from version n to n + 1; one that was released is never changed. The second: without a rowid
only 1 KB of a row lies in its page, and the rest takes a whole page of 4 KB."""


class History:
    """One fleet's history. Every method may raise sqlite3.Error or OSError; one thread uses it."""

    def __init__(self, path: Path) -> None:
        """Opens or makes it. A file that is damaged is set aside, `said` tells so."""
        self.path, self.said = path, ""
        try:
            self._db = _open(path)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):  # no disk, no permission, locked: the file may be good
                raise
            why = " ".join(str(error).split())
            self.said = f"the history was damaged and is set aside as {_set_aside(path).name}: {why}"
            self._db = _open(path)
        self._lists: dict[tuple[str, ...], int] = {}
        self._waiting: list[tuple[int, Point]] = []
        self._events: list[Event] = []

    def add(self, at: float, point: Point, events: Sequence[Event] = ()) -> None:
        """Keeps this in memory, for the next `flush`."""
        self._waiting.append((int(at), point))
        self._events += events

    def flush(self) -> None:
        """Writes what waits, in one transaction, thins what is old, and forgets what is too much.

        Where it fails, what waited is lost: a disk that stays full must not fill the memory.
        """
        waiting, self._waiting = self._waiting, []
        events, self._events = self._events, []
        if not waiting and not events:
            return
        try:
            with self._db:
                for at, points in _grouped(waiting).items():
                    there = [each for _, each in points_of(self._db, 1, at, at + 1)] + points
                    self._put(1, at, there[0] if len(there) == 1 else merged(there))
                self._db.executemany(
                    "INSERT INTO events (at, kind, code, subject, text, advice) VALUES (?, ?, ?, ?, ?, ?)",
                    [(e.at, e.kind, e.code, e.subject, e.text, e.advice) for e in events],
                )
                if waiting:
                    self._thin(waiting[-1][0])
                self._bound()
        except (sqlite3.Error, OSError):
            self._lists.clear()  # some may have been rolled back
            raise

    def close(self) -> None:
        with suppress(sqlite3.Error, OSError):
            self.flush()
        self._db.close()

    def _put(self, resolution: int, at: int, point: Point) -> None:
        names = tuple(sorted(point))
        numbers = array.array("f", (point[name] for name in names))
        row = (resolution, at, self._list(names), zlib.compress(numbers.tobytes(), 6))
        self._db.execute("INSERT OR REPLACE INTO points VALUES (?, ?, ?, ?)", row)

    def _list(self, names: tuple[str, ...]) -> int:
        if (known := self._lists.get(names)) is None:
            text = json.dumps(names)
            self._db.execute("INSERT OR IGNORE INTO names (list) VALUES (?)", (text,))
            known = int(self._db.execute("SELECT id FROM names WHERE list = ?", (text,)).fetchone()[0])
            if len(self._lists) > MOST_LISTS:
                self._lists.clear()
            self._lists[names] = known
        return known

    def _thin(self, now: int) -> None:
        """Makes the coarser rows that are complete and not there yet, from the finer ones; also after a pause."""
        for fine, coarse in ((1, 60), (60, 900)):
            last = self._db.execute(
                "SELECT max(at) FROM points WHERE resolution = ? AND at <= ?", (coarse, now)
            ).fetchone()[0]
            since = 0 if last is None else last + coarse
            end = now - now % coarse
            if since >= end:
                continue
            groups: dict[int, list[Point]] = {}
            for at, point in points_of(self._db, fine, since, end):
                groups.setdefault(at - at % coarse, []).append(point)
            for at, points in groups.items():
                self._put(coarse, at, merged(points))

    def _bound(self) -> None:
        for resolution, rows in TIERS.items():
            self._keep(resolution, rows)
        self._db.execute("DELETE FROM events WHERE id <= (SELECT max(id) FROM events) - ?", (MOST_EVENTS,))
        if self._bytes() > MOST_BYTES:
            for resolution in TIERS:
                rows = self._db.execute("SELECT count(*) FROM points WHERE resolution = ?", (resolution,)).fetchone()[0]
                self._keep(resolution, rows * 3 // 4)
        lists = self._db.execute("SELECT count(*) FROM names").fetchone()[0]
        if lists > MOST_LISTS:
            self._db.execute("DELETE FROM names WHERE id NOT IN (SELECT DISTINCT names FROM points)")
            self._lists.clear()

    def _keep(self, resolution: int, rows: int) -> None:
        self._db.execute(
            "DELETE FROM points WHERE resolution = ?1 AND at <= "
            "(SELECT at FROM points WHERE resolution = ?1 ORDER BY at DESC LIMIT 1 OFFSET ?2)",
            (resolution, rows),
        )

    def _bytes(self) -> int:
        """Of pages with something in them; those that are free are used again."""
        pages, free = (self._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count"))
        return int(pages - free) * PAGES_BYTES


def _open(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    db = sqlite3.connect(path, timeout=2, check_same_thread=False)
    try:
        db.execute(f"PRAGMA page_size = {PAGES_BYTES}")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")  # a power cut may lose the last seconds, and breaks nothing
        db.execute("PRAGMA journal_size_limit = 4194304")
        if (found := db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(found)
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > len(_MIGRATIONS):
            raise sqlite3.DatabaseError("it is of a newer vlfleet")
        for number in range(version, len(_MIGRATIONS)):
            db.executescript(f"BEGIN; {_MIGRATIONS[number]} PRAGMA user_version = {number + 1}; COMMIT;")
    except BaseException:
        db.close()
        raise
    return db


def _grouped(waiting: Sequence[tuple[int, Point]]) -> dict[int, list[Point]]:
    """By second: samples that are a second apart may fall into the same one."""
    found: dict[int, list[Point]] = {}
    for at, point in waiting:
        found.setdefault(at, []).append(point)
    return found


def _set_aside(path: Path) -> Path:
    """Where the damaged file is now; the one that was set aside before is gone."""
    aside = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
    for old in path.parent.glob(f"{path.name}.damaged-*"):
        old.unlink(missing_ok=True)
    path.replace(aside)
    for end in ("-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)
    return aside
