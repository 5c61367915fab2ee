"""Which files of an unfinished folder are finished: one JSON line each, the first line says what is being made."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any


@dataclass(frozen=True)
class Stamp:
    """What tells that a source file has not changed."""

    bytes: int
    mtime_ns: int

    @staticmethod
    def of(file: Path | None) -> Stamp | None:
        if file is None:
            return None
        status = file.stat()
        return Stamp(status.st_size, status.st_mtime_ns)


@dataclass(frozen=True)
class Entry:
    """A finished file."""

    name: str
    source: Stamp | None
    bytes: int
    blake3: str
    """Of its content, in hexadecimal."""


class Journal:
    """Append-only. A line that a crash cut off, and everything after it, counts as not written."""

    def __init__(self, stream: IO[bytes], finished: dict[str, Entry]) -> None:
        self.finished = finished
        """By name; empty unless an earlier run had the same recipe."""
        self._stream = stream

    @classmethod
    def open(cls, stream: IO[bytes], recipe: Mapping[str, object]) -> Journal:
        """Reads what is in `stream` (opened "a+b"); begins it anew unless its first line is `recipe`."""
        stream.seek(0)
        lines = stream.read().splitlines(keepends=True)
        records = [_record(line) for line in lines]
        if records and records[0] == json.loads(json.dumps(recipe)):
            entries = _entries(records[1:])
            stream.truncate(sum(map(len, lines[: 1 + len(entries)])))
            return cls(stream, {entry.name: entry for entry in entries})
        stream.truncate(0)
        journal = cls(stream, {})
        journal._append(recipe)
        return journal

    def add(self, entry: Entry) -> None:
        self.finished[entry.name] = entry
        self._append(asdict(entry))

    def _append(self, record: Mapping[str, object]) -> None:
        self._stream.write(json.dumps(record).encode() + b"\n")
        self._stream.flush()
        os.fsync(self._stream.fileno())


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and line.endswith(b"\n") else None


def _entries(records: list[dict[str, Any] | None]) -> list[Entry]:
    entries = []
    for record in records:
        try:
            if record is None:
                break
            source = Stamp(**record["source"]) if record["source"] else None
            entries.append(Entry(record["name"], source, record["bytes"], record["blake3"]))
        except (KeyError, TypeError):
            break
    return entries
