"""The writer of a batch: one thread, which writes what has come since its last write and waits for the disk once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vlfleet.batch.lines import unwritable
from vlfleet.batch.record import Record, encode
from vlfleet.errors import ExitCode, VlfleetError

RETRY_SECONDS = 1.0
"""Between two tries to write to a disk that is full."""


class Output(Protocol):
    """Where answers go: lines (`LineFile`) or parts (`PartFolder`). A place is where a record stands."""

    path: Path

    def open(self) -> None: ...
    def records(self) -> Iterator[tuple[int, Record]]: ...
    def append(self, lines: Sequence[bytes]) -> list[int]: ...
    def read(self, place: int) -> Record: ...
    def rewrite(self, places: Iterable[int]) -> None: ...
    def finish(self) -> None: ...
    def close(self) -> None: ...


@dataclass(eq=False, slots=True)
class Waiting:
    """A line that is not on disk yet."""

    line: bytes
    target: Output
    done: asyncio.Future[int]


class Journal:
    """Answers and failures on their way to the disk. `run` writes them; `put` is answered when a record is safe."""

    def __init__(
        self, output: Output, failures: Output, patience_seconds: float, warn: Callable[[str], None] = lambda line: None
    ) -> None:
        self.output, self.failures = output, failures
        self.error: VlfleetError | None = None
        """Why nothing can be written any more."""
        self._patience_seconds, self._warn = patience_seconds, warn
        self._waiting: list[Waiting] = []
        self._came = asyncio.Event()
        self._closing = False

    async def put(self, record: Record, *, failure: bool = False) -> int:
        """Returns when the record is on disk: its place.

        Raises:
            VlfleetError: it cannot be written.
        """
        if self.error:
            raise self.error
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append(Waiting(encode(record), self.failures if failure else self.output, done))
        self._came.set()
        return await done

    async def run(self) -> None:
        """Writes until `close`, and then what is left."""
        while not self._closing or self._waiting:
            await self._came.wait()
            self._came.clear()
            group, self._waiting = self._waiting, []
            for target in (self.output, self.failures):
                await self._write(target, [each for each in group if each.target is target])

    def close(self) -> None:
        """Ends `run` when everything is written."""
        self._closing = True
        self._came.set()

    async def _write(self, target: Output, some: Sequence[Waiting]) -> None:
        """Writes some lines; whoever put them hears about it."""
        try:
            places = await self._append(target, [each.line for each in some]) if some else []
        except VlfleetError as error:
            self.error = error
            for each in some:
                if not each.done.done():
                    each.done.set_exception(error)
            return
        for each, place in zip(some, places, strict=True):
            if not each.done.done():  # else whoever waited was cancelled
                each.done.set_result(place)

    async def _append(self, target: Output, lines: Sequence[bytes]) -> list[int]:
        if self.error:
            raise self.error
        began, told = time.monotonic(), False
        while True:
            try:
                return await asyncio.to_thread(target.append, lines)
            except OSError as error:
                failure = unwritable(target.path, error)
                if time.monotonic() - began >= self._patience_seconds:
                    remedy = f"{failure.remedy}, and run the same command again: it goes on where it was"
                    raise VlfleetError(failure.cause, remedy, ExitCode.FAILED) from None
                if not told:
                    self._warn(f"{failure.cause}; it is tried again for {self._patience_seconds:.0f} s")
                    told = True
                await asyncio.sleep(RETRY_SECONDS)
