"""A file read once, for its checksum and for its numbers; several at a time, one core each."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from blake3 import blake3

from vlfleet.checkpoint.destination_journal import Stamp
from vlfleet.checkpoint.destination_sink import Report
from vlfleet.checkpoint.headers import Tensor
from vlfleet.checkpoint.verify_manifest import Done
from vlfleet.checkpoint.verify_structure import Problem
from vlfleet.errors import VlfleetError

if TYPE_CHECKING:
    from vlfleet.checkpoint.verify_numbers import Scanner

CHUNK_BYTES = 1 << 20
"""Read at once: hashed and looked at while it is still in the core's own cache."""
LARGE_CHUNK_BYTES = 8 << 20
"""Read at once when a file has several cores: large enough for all of them to hash a part."""
AHEAD = 3
"""Large chunks that are there at a time: one is read while another is hashed."""


@dataclass(frozen=True)
class Task:
    """A file to read; with `tensors`, their numbers are looked at."""

    file: Path
    tensors: Sequence[Tensor] | None


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read_all(tasks: Sequence[Task], report: Report) -> Iterator[Done]:
    """Reads every file and gives each when it is done. `report` is called with bytes read, from several threads.

    Leaving the loop, or Ctrl-C, ends the reading within a chunk.

    Raises:
        VlfleetError: a file cannot be read, or changes meanwhile.
    """
    stop = threading.Event()
    workers = max(1, min(cores(), len(tasks)))
    with ThreadPoolExecutor(workers, thread_name_prefix="verify") as pool:
        try:
            threads = max(1, cores() // workers)
            waiting: set[Future[Done]] = {pool.submit(_read, task, threads, report, stop) for task in tasks}
            while waiting:
                finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in finished:
                    yield future.result()
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)


class _StoppedError(Exception):
    """Nobody waits for the result any more."""


def _read(task: Task, threads: int, report: Report, stop: threading.Event) -> Done:
    stamp, hasher, scanner = Stamp.of(task.file), blake3(max_threads=threads), _scanner(task)
    try:
        offset = 0
        with task.file.open("rb", buffering=0) as stream:
            for chunk in _chunks(stream.fileno(), ahead=threads > 1):
                if stop.is_set():
                    raise _StoppedError
                hasher.update(chunk)
                if scanner:
                    scanner.feed(offset, chunk)
                offset += len(chunk)
                report(len(chunk))
    except OSError as error:
        reason = error.strerror or str(error)
        raise VlfleetError(f"{task.file.name} cannot be read: {reason}", "check the disk and the permissions") from None
    if stamp is None or stamp != Stamp.of(task.file) or offset != stamp.bytes:
        raise VlfleetError(f"{task.file.name} changed while it was read", "wait until its download has ended")
    problems: tuple[Problem, ...] = tuple(scanner.problems()) if scanner else ()
    return Done(task.file.name, stamp, hasher.hexdigest(), scanner is not None, problems)


def _scanner(task: Task) -> Scanner | None:
    if task.tensors is None:
        return None
    from vlfleet.checkpoint.verify_numbers import Scanner

    return Scanner(task.tensors)


def _chunks(descriptor: int, *, ahead: bool) -> Iterator[memoryview]:
    """The whole file in pieces. Each is overwritten once the next has been asked for."""
    if not ahead:
        buffer = memoryview(bytearray(CHUNK_BYTES))
        while size := _fill(descriptor, buffer):
            yield buffer[:size]
        return
    free: queue.SimpleQueue[memoryview | None] = queue.SimpleQueue()
    full: queue.SimpleQueue[tuple[memoryview, int] | OSError] = queue.SimpleQueue()
    for _ in range(AHEAD):
        free.put(memoryview(bytearray(LARGE_CHUNK_BYTES)))
    reader = threading.Thread(target=_read_ahead, args=(descriptor, free, full), name="read-ahead", daemon=True)
    reader.start()
    try:
        while True:
            got = full.get()
            if isinstance(got, OSError):
                raise got
            buffer, size = got
            if not size:
                return
            yield buffer[:size]
            free.put(buffer)
    finally:
        free.put(None)
        reader.join()


def _read_ahead(
    descriptor: int,
    free: queue.SimpleQueue[memoryview | None],
    full: queue.SimpleQueue[tuple[memoryview, int] | OSError],
) -> None:
    """Fills buffers until the file ends, or until nobody wants any more."""
    try:
        while (buffer := free.get()) is not None:
            size = _fill(descriptor, buffer)
            full.put((buffer, size))
            if not size:
                return
    except OSError as error:
        full.put(error)


def _fill(descriptor: int, buffer: memoryview) -> int:
    """As much as there is, up to the whole buffer. Returns bytes."""
    size = 0
    while size < len(buffer) and (got := os.readv(descriptor, [buffer[size:]])):
        size += got
    return size
