"""A folder that appears whole or not at all: the new checkpoint of `pad`, `quantise` and `normalise`.

DST is built in `.DST.partial` beside it: `files/` holds what is to become DST, `journal` says which files are finished.
A crash leaves only that folder. The same command goes on from there; another command starts it anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from vlfleet.checkpoint.destination_files import explained, needs, share, sync_folder
from vlfleet.checkpoint.destination_journal import Entry, Journal, Stamp
from vlfleet.checkpoint.destination_sink import Report, Sink, digest, ignore
from vlfleet.errors import ExitCode, VlfleetError


class Destination:
    """Being built. Made by `building`; nothing but its methods writes into the new folder."""

    def __init__(self, target: Path, partial: Path, journal: Journal, report: Report) -> None:
        self.target = target
        self.files = partial / "files"
        self.reused: list[str] = []
        """Files that an interrupted run had finished, and that were found whole."""
        self._partial = partial
        self._journal = journal
        self._report = report

    def has(self, name: str, source: Path | None = None) -> bool:
        """Whether an earlier run finished `name` from the `source` that is there now. Reads the file to be sure."""
        entry, file = self._journal.finished.get(name), self.files / name
        if entry is None or entry.source != Stamp.of(source) or not _is_size(file, entry.bytes):
            return False
        if digest(file, self._report) != entry.blake3:
            self._report(-entry.bytes)
            return False
        self.reused.append(name)
        return True

    @contextlib.contextmanager
    def writing(self, name: str, source: Path | None = None) -> Iterator[Sink]:
        """Opens file `name` of the new folder for writing in order; on a clean exit it is on disk and in the journal.

        `source` is the file that it is made of: the result counts as finished only as long as that does not change.
        """
        stamp = Stamp.of(source)
        with self._new(name).open("xb", buffering=0) as stream:
            sink = Sink(stream, self._report)
            yield sink
            os.fsync(stream.fileno())
            self._journal.add(Entry(name, stamp, sink.written, sink.digest()))

    def write_text(self, name: str, text: str) -> None:
        """A small file: configuration, index."""
        with self._new(name).open("x", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())

    def copy(self, source: Path, name: str = "") -> None:
        """A file that does not change, as a file of its own; for small ones that a person may edit later."""
        name = name or source.name
        if self.has(name, source):
            return
        with self.writing(name, source) as sink, source.open("rb", buffering=0) as stream:
            sink.copy(stream.fileno(), 0, os.fstat(stream.fileno()).st_size)

    def carry(self, source: Path, name: str = "") -> None:
        """A large file that does not change: cloned where the filesystem can, else hard-linked, else copied.

        A hard link is the same file under two names: who writes into it later changes both. Nobody writes into shards.
        """
        name = name or source.name
        if self.has(name, source):
            return
        file = self._new(name)
        if share(source, file):
            self._report(file.stat().st_size)
        else:
            self.copy(source, name)

    def publish(self) -> None:
        """DST appears, under its name, with everything in it on disk."""
        sync_folder(self.files)
        if os.path.lexists(self.target):
            raise _exists(self.target)
        self.files.rename(self.target)
        sync_folder(self.target.parent)
        shutil.rmtree(self._partial)

    def _new(self, name: str) -> Path:
        """Where `name` goes, with nothing there: what an earlier run left may be a link to a file of the source."""
        file = self.files / name
        file.unlink(missing_ok=True)
        return file


@contextlib.contextmanager
def building(
    target: Path, source: Path, recipe: Mapping[str, object], needed_bytes: int = 0, report: Report = ignore
) -> Iterator[Destination]:
    """Everything within happens in a hidden folder beside `target`; `publish` gives it its name.

    `recipe` is what the result depends on besides the source's files (the command and its settings): only a run with
    the same one goes on where an interrupted one stopped. `needed_bytes` have to be free there, less what an
    interrupted run has written. `report` is called with the bytes done since its last call.

    Raises:
        VlfleetError: exit code 2: `target` exists, its folder does not, or it lies in `source`. Exit code 3: the disk
            is too small, now or later. Exit code 1: somebody else is building it, or the system refuses.
    """
    target = Path(os.path.abspath(target.expanduser()))  # noqa: PTH100 - resolve() would follow a link called target
    check(target, source)
    partial = target.parent / f".{target.name}.partial"
    with explained(target):
        if _is_foreign(partial):
            cause = f"{partial} is in the way: vlfleet has not made it"
            raise VlfleetError(cause, f"move it away, or choose another name than {target.name}", ExitCode.USAGE)
        (partial / "files").mkdir(parents=True, exist_ok=True)
        with (partial / "journal").open("a+b") as stream:
            _lock(stream.fileno(), target)
            if os.path.lexists(target):
                raise _exists(target)
            journal = Journal.open(stream, {"source": str(source.resolve()), **recipe})
            for file in (partial / "files").iterdir():
                if file.name not in journal.finished:
                    file.unlink()
            finished = sum(entry.bytes for entry in journal.finished.values())
            try:
                needs(target.parent, needed_bytes - finished)
            except VlfleetError:
                if not journal.finished:
                    shutil.rmtree(partial)
                raise
            yield Destination(target, partial, journal, report)


def check(target: Path, source: Path) -> None:
    """Whether `target` can be made, as far as that is known before.

    Raises:
        VlfleetError: exit code 2; see `building`.
    """
    if os.path.lexists(target):
        raise _exists(target)
    if not target.parent.is_dir():
        raise VlfleetError(f"folder {target.parent} does not exist", "make it, or give another DST", ExitCode.USAGE)
    if target.parent.resolve().is_relative_to(source.resolve()):
        raise VlfleetError(f"{target} lies in the source", "give a DST outside of SRC", ExitCode.USAGE)


def _exists(target: Path) -> VlfleetError:
    return VlfleetError(f"{target} exists", "give a DST that does not, or remove it first", ExitCode.USAGE)


def _is_foreign(partial: Path) -> bool:
    """Ours holds nothing but `journal` and `files`."""
    if not os.path.lexists(partial):
        return False
    if partial.is_symlink() or not partial.is_dir():
        return True
    return not {entry.name for entry in partial.iterdir()} <= {"journal", "files"}


def _is_size(file: Path, size_bytes: int) -> bool:
    return file.is_file() and file.stat().st_size == size_bytes


def _lock(descriptor: int, target: Path) -> None:
    """Released by the kernel when the process ends, however it ends."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise VlfleetError(f"another vlfleet is writing {target}", "wait for it, or give another DST") from None
