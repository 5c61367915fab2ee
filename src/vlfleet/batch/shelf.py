"""Files and batches of a gateway on disk, under the fleet's home: what it needs to go on after a restart.

`files/ID.jsonl` beside `files/ID.json`, and `batches/ID.json`; nothing is there in halves.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import orjson

from vlfleet.batch.lines import replace_file, sync_folder

INPUT, OUTPUT = "batch", "batch_output"
"""Purposes of files, in OpenAI's words."""
FINAL = frozenset({"completed", "failed", "expired", "cancelled"})


@dataclass(frozen=True)
class Bounds:
    """Of one gateway."""

    file_bytes: int = 1 << 30
    """Of one upload. OpenAI's 200 MB would be a hundred photos, since rows carry their pictures."""
    rows: int = 50_000
    """Of one batch; OpenAI's."""
    all_bytes: int = 16 << 30
    """Of all files together."""
    files: int = 10_000
    batches: int = 1_000
    """Of all tenants; a finished one is forgotten for a new one, the oldest first."""
    waiting_of_tenant: int = 64
    """Batches that are not finished."""
    keep_seconds: float = 30 * 86_400.0
    """After that a file is removed, as OpenAI's outputs are."""


@dataclass(frozen=True)
class Card:
    """One file."""

    id: str
    tenant: str
    filename: str
    purpose: str
    bytes: int
    created_at: int
    """Seconds since the epoch."""


@dataclass
class Record:
    """One batch: OpenAI's object, and what the gateway alone needs to know."""

    id: str
    tenant: str
    key_sha256: str
    """Of the key that made it, empty where none is asked for; so that a revoked key ends it."""
    endpoint: str
    input_file_id: str
    status: str = "validating"
    created_at: int = 0
    expires_at: int = 0
    completion_window: str = "24h"
    output_file_id: str = ""
    error_file_id: str = ""
    total: int = 0
    completed: int = 0
    failed: int = 0
    errors: list[dict[str, Any]] = field(default_factory=list)
    """Why the input was refused."""
    metadata: dict[str, str] | None = None
    at: dict[str, int] = field(default_factory=dict)
    """When it came into each status."""

    def become(self, status: str) -> None:
        self.status = status
        self.at[status] = int(time.time())


class FullError(Exception):
    """There is no room for another file or batch."""


class Shelf:
    """The folder of one gateway. Small writes, done where the loop is; files are read and written by others."""

    def __init__(self, folder: Path, bounds: Bounds | None = None) -> None:
        """
        Raises:
            OSError: the folder cannot be made or read.
        """
        self.bounds = bounds or Bounds()
        self._files, self._batches = folder / "files", folder / "batches"
        for each in (folder, self._files, self._batches):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)
        for unfinished in self._files.glob("*.new"):
            unfinished.unlink(missing_ok=True)
        self._cards = {card.id: card for card in read_all(self._files, lambda facts: Card(**facts))}
        self._records = {record.id: record for record in read_all(self._batches, lambda facts: Record(**facts))}
        self.held_bytes = sum(card.bytes for card in self._cards.values())
        """Of all files, with those that are on their way in."""
        self._tidy()

    def path(self, file_id: str) -> Path:
        return self._files / f"{file_id}.jsonl"

    def file(self, tenant: str, file_id: str) -> Card | None:
        card = self._cards.get(file_id)
        return card if card and card.tenant == tenant else None

    def files(self, tenant: str) -> list[Card]:
        return [card for card in self._cards.values() if card.tenant == tenant]

    def begin(self) -> Incoming:
        """A file to be filled.

        Raises:
            FullError: no room for one more.
        """
        self.sweep()
        if len(self._cards) >= self.bounds.files or self.held_bytes >= self.bounds.all_bytes:
            raise FullError
        return Incoming(self, f"file-batch-{secrets.token_hex(16)}")

    def add(self, file_id: str, tenant: str, filename: str, purpose: str) -> Card:
        """Takes a file that is at `path(file_id)`, whole and on disk."""
        size = self.path(file_id).stat().st_size
        card = Card(file_id, tenant, filename, purpose, size, int(time.time()))
        replace_file(self._files / f"{file_id}.json", [orjson.dumps(asdict(card))])
        before = self._cards.get(file_id)
        self.held_bytes += size - (before.bytes if before else 0)
        self._cards[file_id] = card
        return card

    def remove(self, tenant: str, file_id: str) -> bool:
        """Forgets a file; whether it was there."""
        card = self.file(tenant, file_id)
        if card is None:
            return False
        del self._cards[file_id]
        self.held_bytes -= card.bytes
        for path in (self._files / f"{file_id}.json", self.path(file_id)):
            path.unlink(missing_ok=True)
        return True

    def in_use(self, file_id: str) -> bool:
        """Whether a batch that is not finished reads it."""
        return any(file_id == record.input_file_id for record in self.waiting())

    def record(self, tenant: str, batch_id: str) -> Record | None:
        record = self._records.get(batch_id)
        return record if record and record.tenant == tenant else None

    def records(self, tenant: str) -> list[Record]:
        """A tenant's batches, the newest first."""
        own = [record for record in self._records.values() if record.tenant == tenant]
        return sorted(own, key=lambda record: (record.created_at, record.id), reverse=True)

    def waiting(self) -> list[Record]:
        """Batches that are not finished, the oldest first."""
        left = [record for record in self._records.values() if record.status not in FINAL]
        return sorted(left, key=lambda record: (record.created_at, record.id))

    def begin_batch(self, record: Record) -> None:
        """Keeps a new batch.

        Raises:
            FullError: its tenant has too many that are not finished, or all have.
        """
        own = sum(other.tenant == record.tenant for other in self.waiting())
        finished = sorted((each.created_at, each.id) for each in self._records.values() if each.status in FINAL)
        if own >= self.bounds.waiting_of_tenant or len(self._records) - len(finished) >= self.bounds.batches:
            raise FullError
        if len(self._records) >= self.bounds.batches:
            oldest = finished[0][1]
            del self._records[oldest]
            (self._batches / f"{oldest}.json").unlink(missing_ok=True)
        self._records[record.id] = record
        self.save(record)

    def save(self, record: Record) -> None:
        """Writes a batch down.

        Raises:
            OSError: the disk is full, ...; what was written before stays.
        """
        replace_file(self._batches / f"{record.id}.json", [orjson.dumps(asdict(record))])

    def sweep(self) -> None:
        """Removes files that are too old and that no batch needs."""
        oldest = time.time() - self.bounds.keep_seconds
        for card in list(self._cards.values()):
            if card.created_at < oldest and not self.in_use(card.id):
                self.remove(card.tenant, card.id)

    def _tidy(self) -> None:
        """Removes what a kill left behind: files without a card, which nobody can ask for, but for the answers of
        batches that go on."""
        writing = {each for record in self.waiting() for each in (record.output_file_id, record.error_file_id)}
        for path in self._files.glob("*.jsonl"):
            if path.stem not in self._cards and path.stem not in writing:
                path.unlink(missing_ok=True)


class Incoming:
    """A file on its way in, bounded; it is there once it is kept."""

    def __init__(self, shelf: Shelf, file_id: str) -> None:
        self.bytes = 0
        self.id = file_id
        self._shelf = shelf
        self._path = shelf.path(file_id).with_suffix(".new")
        self._file: IO[bytes] = self._path.open("xb")

    def feed(self, chunk: bytes) -> None:
        """
        Raises:
            FullError: it is larger than a file may be, or than there is room.
            OSError: the disk is full.
        """
        self.bytes += len(chunk)
        self._shelf.held_bytes += len(chunk)
        bounds = self._shelf.bounds
        if self.bytes > bounds.file_bytes or self._shelf.held_bytes > bounds.all_bytes:
            raise FullError
        self._file.write(chunk)

    def keep(self, tenant: str, filename: str) -> Card:
        """Makes it a file.

        Raises:
            OSError: the disk is full.
        """
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        path = self._shelf.path(self.id)
        self._path.rename(path)
        sync_folder(path.parent)
        return self._shelf.add(self.id, tenant, filename, INPUT)

    def drop(self) -> None:
        """Forgets what was not kept. To be called once, kept or not."""
        self._shelf.held_bytes -= self.bytes
        with suppress(OSError):
            self._file.close()
        self._path.unlink(missing_ok=True)


def read_all(folder: Path, make: Callable[[dict[str, Any]], Any]) -> Iterator[Any]:
    """What the JSON files of a folder hold; a damaged one is passed over."""
    for path in sorted(folder.glob("*.json")):
        with suppress(OSError, ValueError, TypeError):
            yield make(orjson.loads(path.read_bytes()))
