"""The manifest of a checkpoint: size and BLAKE3 of every file that an engine reads, as `b3sum` prints it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from vlfleet.checkpoint.destination_files import sync_folder
from vlfleet.checkpoint.destination_journal import Stamp
from vlfleet.checkpoint.info import read_json
from vlfleet.checkpoint.verify_structure import Kind, Problem
from vlfleet.errors import ExitCode, VlfleetError

NAME = "vlfleet-manifest.json"
JOURNAL = ".journal"
"""After the manifest's name: what an interrupted run has finished."""
_READ = (".json", ".jinja", ".txt", ".model", ".py", ".tiktoken")
"""Files beside the shards that engines read."""


@dataclass(frozen=True)
class Sum:
    """What is known of a file's content."""

    bytes: int
    blake3: str


def files_of(folder: Path, shards: tuple[Path, ...]) -> list[Path]:
    """What the manifest is about: the shards, and the small files that engines read."""
    small = (file for file in folder.iterdir() if file.suffix in _READ and file.is_file())
    return [*shards, *sorted(file for file in small if file.name != NAME and not file.name.startswith("."))]


def read_manifest(file: Path) -> dict[str, Sum] | None:
    """By the files' names; None when there is none.

    Raises:
        VlfleetError: it is damaged.
    """
    if not file.is_file():
        return None
    try:
        return {str(name): Sum(int(entry["bytes"]), str(entry["blake3"])) for name, entry in _entries(read_json(file))}
    except (KeyError, TypeError, ValueError):
        raise VlfleetError(f"{file.name} is damaged", "delete it; the next verify writes a new one") from None


def _entries(content: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    yield from dict(content["files"]).items()


def write_manifest(file: Path, sums: Mapping[str, Sum]) -> None:
    """Whole or not at all: beside its place first, on disk, then renamed."""
    content = {"format": 1, "files": {name: asdict(sums[name]) for name in sorted(sums)}}
    new = file.with_name(f".{file.name}.{os.getpid()}")
    with explained(file):
        try:
            with new.open("x", encoding="utf-8") as stream:
                stream.write(json.dumps(content, indent=1) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
            new.replace(file)
        finally:
            new.unlink(missing_ok=True)
        sync_folder(file.parent)


def compare(manifest: Mapping[str, Sum], sums: Mapping[str, Sum]) -> list[Problem]:
    """Where the files differ from the manifest."""
    problems = []
    for name in sorted(manifest.keys() | sums.keys()):
        then, now = manifest.get(name), sums.get(name)
        if now is None:
            what = "is in the manifest, but not in the folder"
        elif then is None:
            what = "is not in the manifest"
        elif then.bytes != now.bytes:
            what = f"has {now.bytes:,} bytes, the manifest says {then.bytes:,}"
        elif then.blake3 != now.blake3:
            what = "is not the file of the manifest: its BLAKE3 differs"
        else:
            continue
        problems.append(Problem(Kind.CHECKSUM, name, what))
    return problems


@dataclass(frozen=True)
class Done:
    """A file that a run has read to its end."""

    name: str
    stamp: Stamp
    blake3: str
    scanned: bool
    """Its numbers were looked at as well."""
    problems: tuple[Problem, ...]


class Journal:
    """Files that an interrupted run has finished; one that has changed since (size or time) counts as not read."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._done = {entry.name: entry for line in _lines(file) if (entry := _done(line))}

    def finished(self, file: Path, scan: bool) -> Done | None:
        """What is known of `file`, unless it changed, or its numbers are wanted and were not looked at."""
        entry = self._done.get(file.name)
        if entry is None or entry.stamp != Stamp.of(file) or (scan and not entry.scanned):
            return None
        return entry

    @contextlib.contextmanager
    def writing(self) -> Iterator[IO[str]]:
        """For `add`. The journal stays where it is: `remove` it when the run has come to its end.

        Raises:
            VlfleetError: nothing can be written there.
        """
        with explained(self.file), self.file.open("a", encoding="utf-8") as stream:
            if stream.tell():
                stream.write("\n")  # a crash may have cut off the last line
            yield stream

    def add(self, stream: IO[str], entry: Done) -> None:
        """On disk when this returns."""
        self._done[entry.name] = entry
        stream.write(json.dumps(asdict(entry)) + "\n")
        stream.flush()
        os.fsync(stream.fileno())

    def remove(self) -> None:
        self.file.unlink(missing_ok=True)


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return []


def _done(line: str) -> Done | None:
    """A line that a crash has cut off is none."""
    try:
        entry = json.loads(line)
        problems = tuple(Problem(Kind(each["kind"]), each["where"], each["what"]) for each in entry["problems"])
        return Done(entry["name"], Stamp(**entry["stamp"]), entry["blake3"], entry["scanned"], problems)
    except (ValueError, KeyError, TypeError):
        return None


@contextlib.contextmanager
def explained(file: Path) -> Iterator[None]:
    """What the system refuses while the manifest or its journal is written."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        remedy = "free some room, or give a writable place with --manifest FILE"
        raise VlfleetError(f"{file} cannot be written: {reason}", remedy, ExitCode.FAILED) from None
