"""Parquet in parts that are whole or absent, with the rows of the part to come in a journal of lines.

`OUT.parquet/part-00003.parquet` appears at once, by a rename; until then its rows stand in `_pending-00003.jsonl`.
Readers of Parquet folders pass over names with an underscore.
"""

from __future__ import annotations

import importlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from threading import RLock
from typing import Any

import orjson

from vlfleet.batch.lines import LineFile, sync_folder, unwritable
from vlfleet.batch.record import Record
from vlfleet.batch.source_table import pyarrow_parquet
from vlfleet.errors import ExitCode, VlfleetError

PART_ROWS = 10_000
"""About 5 MB; a row of a part is found again by reading the part, in some 20 ms."""
PART = re.compile(r"part-(\d{5,})\.parquet")
COLUMNS: dict[str, Any] = {
    "id": "string",
    "hash": "string",
    "images": "list",
    "prompt": "string",
    "answer": "string",
    "finish_reason": "string",
    "model": "string",
    "prompt_tokens": "int64",
    "completion_tokens": "int64",
    "seconds": "float64",
    "replica": "string",
    "custom_id": "string",
    "response": "string",
}
"""`response` and `custom_id` are for lines of OpenAI's batch API; the response is JSON."""
SHIFT = 32


class PartFolder:
    """A folder of parts, with the interface of `LineFile`: places are the number of a part and the row in it."""

    def __init__(self, path: Path, part_rows: int = PART_ROWS) -> None:
        self.path, self.part_rows = path, part_rows
        self.parquet = pyarrow_parquet()
        self._number = 0
        self._pending: LineFile | None = None
        self._offsets: list[int] = []
        self._cached: tuple[int, list[Record]] = (-1, [])
        self._lock = RLock()
        """The writer's thread appends while others read."""

    @property
    def pending(self) -> LineFile:
        assert self._pending is not None, "the folder is not open"
        return self._pending

    def open(self) -> None:
        """Opens the folder, or makes it; finishes what a kill has interrupted.

        Raises:
            VlfleetError: exit code 2, it cannot be written, or is something else.
        """
        old = self.path.with_name(f".{self.path.name}.old")
        try:
            if old.exists() and not self.path.exists():
                old.rename(self.path)
            self.path.mkdir(exist_ok=True)
            self._number = 1 + max((number for number, _ in self._parts()), default=-1)
            for stray in (*self.path.glob("_pending-*.jsonl"), *self.path.glob(".part-*.new")):
                if stray != self._pending_path(self._number):
                    stray.unlink()  # its part was written
            shutil.rmtree(old, ignore_errors=True)
        except OSError as error:
            raise unwritable(self.path, error) from None
        self._begin()

    def records(self) -> Iterator[tuple[int, Record]]:
        """Each row with its place.

        Raises:
            VlfleetError: exit code 2, a part was not written by a batch.
        """
        for number, path in self._parts():
            try:
                found = self.parquet.read_table(path, columns=["id", "hash", "custom_id"]).to_pylist()
            except (OSError, ValueError, KeyError):
                cause = f"{path} was not written by a batch"
                raise VlfleetError(cause, "choose another -o", ExitCode.USAGE) from None
            for row, record in enumerate(found):
                yield number << SHIFT | row, without_nones(record)
        for offset, record in self.pending.records():
            self._offsets.append(offset)
            yield self._number << SHIFT | len(self._offsets) - 1, record

    def append(self, lines: Sequence[bytes]) -> list[int]:
        """Adds whole lines, waits for the disk, and returns their places; makes a part of them when there are enough.

        Raises:
            OSError: the disk is full, ...; then nothing of `lines` was added.
        """
        with self._lock:
            first = self._number << SHIFT | len(self._offsets)
            self._offsets += self.pending.append(lines)
            if len(self._offsets) >= self.part_rows:
                with suppress(OSError):  # no room for the part: its rows are safe, and it is tried again
                    self.finish()
        return list(range(first, first + len(lines)))

    def finish(self) -> None:
        """Makes a part of the rows that wait for one. A full disk leaves them where they are.

        Raises:
            OSError: the part cannot be written.
        """
        if self._offsets:
            self._write_part(self.path, self._number, (self.pending.read(offset) for offset in self._offsets))
            self._number += 1
        self._end_pending()
        self._begin()

    def read(self, place: int) -> Record:
        """The row at a place."""
        number, row = place >> SHIFT, place & ((1 << SHIFT) - 1)
        with self._lock:
            if number == self._number:
                return self.pending.read(self._offsets[row])
            if self._cached[0] != number:
                self._cached = number, self.parquet.read_table(self._part(number)).to_pylist()
            return from_part(self._cached[1][row])

    def rewrite(self, places: Iterable[int]) -> None:
        """Leaves the rows at `places`, in this order; the folder is exchanged as a whole.

        Raises:
            OSError: there is no room for it; the folder stays as it was.
        """
        new, old = self.path.with_name(f".{self.path.name}.new"), self.path.with_name(f".{self.path.name}.old")
        shutil.rmtree(new, ignore_errors=True)
        try:
            new.mkdir()
            rows: list[Record] = []
            number = 0
            for place in places:
                rows.append(self.read(place))
                if len(rows) == self.part_rows:
                    self._write_part(new, number, rows)
                    rows, number = [], number + 1
            if rows:
                self._write_part(new, number, rows)
        except OSError:
            shutil.rmtree(new, ignore_errors=True)
            raise
        self.pending.close()
        self.path.rename(old)
        new.rename(self.path)
        sync_folder(self.path.parent)
        shutil.rmtree(old)
        self.open()

    def close(self) -> None:
        """Leaves whole parts, and the journal only where there was no room for the last one."""
        if self._pending is not None:
            if not self._offsets:
                self._end_pending()
            self.pending.close()

    def _write_part(self, folder: Path, number: int, rows: Iterable[Record]) -> None:
        pyarrow: Any = importlib.import_module("pyarrow")
        types = {"string": pyarrow.string(), "list": pyarrow.list_(pyarrow.string())}
        schema = pyarrow.schema([(name, types.get(kind) or getattr(pyarrow, kind)()) for name, kind in COLUMNS.items()])
        table = pyarrow.Table.from_pylist([to_part(row) for row in rows], schema=schema)
        new = folder / f".part-{number:05d}.new"
        try:
            self.parquet.write_table(table, new, compression="zstd")
            with new.open("rb+") as file:
                os.fsync(file.fileno())
            new.rename(folder / self._part(number).name)
        except OSError:
            new.unlink(missing_ok=True)
            raise
        sync_folder(folder)

    def _begin(self) -> None:
        self._offsets = []
        self._pending = LineFile(self._pending_path(self._number))
        self._pending.open()

    def _end_pending(self) -> None:
        self.pending.path.unlink(missing_ok=True)
        self.pending.close()

    def _parts(self) -> list[tuple[int, Path]]:
        found = ((PART.fullmatch(path.name), path) for path in self.path.iterdir())
        return sorted((int(match[1]), path) for match, path in found if match)

    def _part(self, number: int) -> Path:
        return self.path / f"part-{number:05d}.parquet"

    def _pending_path(self, number: int) -> Path:
        return self.path / f"_pending-{number:05d}.jsonl"


def to_part(record: Record) -> Record:
    """A line as a row of a part."""
    response = record.get("response")
    return record if response is None else {**record, "response": orjson.dumps(response).decode()}


def from_part(row: Record) -> Record:
    """A row of a part as a line."""
    record = without_nones(row)
    return {**record, "response": orjson.loads(record["response"])} if "response" in record else record


def without_nones(row: Record) -> Record:
    return {name: value for name, value in row.items() if value is not None}
