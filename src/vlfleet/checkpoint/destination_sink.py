"""A file that is written in order, with its checksum computed on the way."""

from __future__ import annotations

import os
from collections.abc import Callable
from io import RawIOBase
from pathlib import Path

from blake3 import blake3

from vlfleet.errors import VlfleetError

Report = Callable[[int], None]
"""Called with the bytes done since the last call; negative when they have to be done again."""
READ_BYTES = 1 << 20
"""Read, hashed and written before the next, so that the processor's cache still holds it at each."""


def ignore(done_bytes: int) -> None:
    """A report that nobody reads."""


class Sink:
    """Bytes go in one after another."""

    def __init__(self, stream: RawIOBase, report: Report = ignore) -> None:
        self.written = 0
        self._stream = stream
        self._report = report
        self._hash = blake3()
        self._buffer = memoryview(bytearray(0))

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """All of `data`; it may be changed afterwards."""
        view, rest = memoryview(data).cast("B"), len(data)
        self._hash.update(view)
        while rest:
            rest -= self._stream.write(view[len(view) - rest :]) or 0
        self.written += len(view)
        self._report(len(view))

    def copy(self, descriptor: int, start: int, end: int, block_bytes: int = READ_BYTES) -> None:
        """Bytes `start` to `end` of an open file, through a buffer of `block_bytes`.

        Raises:
            VlfleetError: the file ends before `end`.
        """
        if len(self._buffer) < block_bytes:
            self._buffer = memoryview(bytearray(block_bytes))
        while start < end:
            block = self._buffer[: min(block_bytes, end - start)]
            read_exactly(descriptor, [block], start)
            self.write(block)
            start += len(block)

    def digest(self) -> str:
        """BLAKE3 of everything written, in hexadecimal."""
        return self._hash.hexdigest()


def read_exactly(descriptor: int, parts: list[memoryview], start: int) -> None:
    """Fills `parts` (at most IOV_MAX, 1024) one after another from offset `start`.

    Raises:
        VlfleetError: the file is too short.
    """
    wanted = sum(map(len, parts))
    got = os.preadv(descriptor, parts, start)
    while got < wanted:
        rest = _after(parts, got)
        more = os.preadv(descriptor, rest, start + got)
        if not more:
            raise VlfleetError("a file of the source became shorter while it was read", "leave SRC alone, start again")
        got += more


def _after(parts: list[memoryview], skip: int) -> list[memoryview]:
    rest = []
    for part in parts:
        if skip < len(part):
            rest.append(part[skip:])
        skip = max(0, skip - len(part))
    return rest


def digest(file: Path, report: Report = ignore) -> str:
    """BLAKE3 of a file's content, in hexadecimal."""
    hasher, buffer = blake3(), memoryview(bytearray(READ_BYTES))
    with file.open("rb", buffering=0) as stream:
        while size := stream.readinto(buffer):
            hasher.update(buffer[:size])
            report(size)
    return hasher.hexdigest()
