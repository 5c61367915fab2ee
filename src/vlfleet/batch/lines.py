"""An append-only file of JSON lines that survives being cut at any byte."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path

import orjson

from vlfleet.batch.record import Record
from vlfleet.errors import ExitCode, VlfleetError

CHUNK_BYTES = 1 << 20
START = b'{"id":"'
"""Of every line, whatever its kind."""


class LineFile:
    """Lines that are whole and on disk once `append` returns. One process writes; the kernel holds others off."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size_bytes = 0
        self._file = -1

    def open(self) -> None:
        """Opens the file, or makes it.

        Raises:
            VlfleetError: exit code 2, it cannot be written, or another process writes it.
        """
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.size_bytes = os.fstat(self._file).st_size
            sync_folder(self.path.parent)
        except BlockingIOError:
            self.close()
            cause = f"another `vlfleet batch` writes {self.path}"
            raise VlfleetError(cause, "wait for it, or choose another -o", ExitCode.USAGE) from None
        except OSError as error:
            raise unwritable(self.path, error) from None

    def records(self) -> Iterator[tuple[int, Record]]:
        """Each line with its offset. A last line that is torn by a kill, and zeros that a power cut left, are cut off.

        Raises:
            VlfleetError: exit code 2; a line was not written by a batch.
        """
        offset, end = 0, -1
        for number, line in enumerate(self._lines(), 1):
            if end < 0 and is_torn(line):
                end = offset
            elif end < 0 and (record := parsed(line)) is not None:
                yield offset, record
            else:
                raise foreign(self.path, number)
            offset += len(line)
        if end >= 0:
            self._cut(end)

    def append(self, lines: Sequence[bytes]) -> list[int]:
        """Adds whole lines, waits for the disk, and returns their offsets. When it fails, the file is as it was.

        Raises:
            OSError: the disk is full, ...
        """
        text = b"".join(lines)
        try:
            written = 0
            while written < len(text):
                written += os.pwrite(self._file, memoryview(text)[written:], self.size_bytes + written)
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, self.size_bytes)
            raise
        *offsets, self.size_bytes = accumulate(map(len, lines), initial=self.size_bytes)
        return offsets

    def read(self, offset: int) -> Record:
        """The line that begins at `offset`."""
        line: Record = orjson.loads(self.line(offset))
        return line

    def line(self, offset: int) -> bytes:
        """The bytes of the line that begins at `offset`, with its end."""
        found = b""
        while b"\n" not in found:
            found += self._read(offset + len(found), max(8192, len(found)))
            if offset + len(found) >= self.size_bytes:
                break
        return found[: found.index(b"\n") + 1]

    def rewrite(self, places: Iterable[int]) -> None:
        """Leaves the lines at these offsets, in this order; the file is exchanged at once.

        Raises:
            OSError: there is no room for it; the file stays as it was.
        """
        replace_file(self.path, (self.line(place) for place in places))
        self.close()
        self.open()

    def finish(self) -> None:
        """Every line is where it belongs already."""

    def close(self) -> None:
        """Lets others write."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _read(self, offset: int, count: int) -> bytes:
        return os.pread(self._file, count, offset)

    def _cut(self, size_bytes: int) -> None:
        os.ftruncate(self._file, size_bytes)
        os.fsync(self._file)
        self.size_bytes = size_bytes

    def _lines(self) -> Iterator[bytes]:
        """Every line with its end; the last one may have none."""
        rest, offset = b"", 0
        while chunk := self._read(offset, CHUNK_BYTES):
            offset += len(chunk)
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield line + b"\n"
        if rest:
            yield rest


def parsed(line: bytes) -> Record | None:
    """The record of a whole line of a batch, or None."""
    try:
        record = orjson.loads(line)
    except ValueError:
        return None
    good = isinstance(record, dict) and "hash" in record and ("id" in record or "custom_id" in record)
    return record if good and line.endswith(b"\n") else None


def is_torn(line: bytes) -> bool:
    """Whether a line is the beginning of one of ours, with or without zeros behind it. Somebody's own file must never
    pass for one."""
    whole = line.endswith(b"\n")
    line, zeros, rest = line.partition(b"\0")
    if rest.strip(b"\0") or line[: len(START)] != START[: len(line)]:
        return False
    if zeros:
        return True
    try:
        return not whole and "hash" in orjson.loads(line)  # only its end is missing
    except ValueError:
        return not whole


def foreign(path: Path, number: int) -> VlfleetError:
    cause = f"line {number} of {path} was not written by a batch"
    return VlfleetError(cause, "choose another -o, or take that line out", ExitCode.USAGE)


def unwritable(path: Path, error: OSError) -> VlfleetError:
    reason = (error.strerror or str(error)).lower()
    remedy = "make room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "check the path of -o"
    return VlfleetError(f"{path} cannot be written: {reason}", remedy, ExitCode.USAGE)


def beside(out: Path, what: str) -> Path:
    """A file that goes with an output: answers.jsonl -> answers.failed.jsonl; of another kind than .jsonl, whose name
    may stand beside one, answers.parquet -> answers.parquet.failed.jsonl."""
    return out.with_name(f"{out.stem if out.suffix.lower() == '.jsonl' else out.name}.{what}.jsonl")


def sync_folder(folder: Path) -> None:
    """Makes what was created or renamed in a folder last."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_file(path: Path, lines: Iterable[bytes]) -> None:
    """Puts `lines` in place of a file at once: after a kill there is the old one or the new one.

    Raises:
        OSError: it cannot be written; the old one stays.
    """
    new = path.with_name(f".{path.name}.new")
    try:
        with new.open("wb", buffering=1 << 20) as file:
            for line in lines:
                file.write(line)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
