"""What the filesystem can do and what it refuses: links and clones, room, and errors that a person understands."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from vlfleet.errors import ExitCode, VlfleetError

FICLONE = 0x40049409
"""ioctl that lets a file share another's blocks until one of them is written to (linux/fs.h)."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)


def share(source: Path, target: Path) -> bool:
    """Make `target` the same content as `source` without copying it: a clone, else a hard link. False if neither goes.

    Neither goes across filesystems, nor on those without links (FAT, some network and object stores).
    """
    source = source.resolve()  # the hub's cache holds links: link to what they point to
    try:
        with source.open("rb") as reading, target.open("xb") as writing:
            fcntl.ioctl(writing.fileno(), FICLONE, reading.fileno())
            os.fsync(writing.fileno())
        return True
    except OSError as error:
        if error.errno in _FULL:
            raise
        target.unlink(missing_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:
        return False
    return True


def sync_folder(folder: Path) -> None:
    """Names in `folder` are on disk when this returns."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def needs(folder: Path, needed_bytes: int) -> None:
    """Check that so much is free.

    Raises:
        VlfleetError: exit code 3; it is not.
    """
    if needed_bytes > shutil.disk_usage(folder).free:
        raise _full(folder, needed_bytes)


@contextlib.contextmanager
def explained(target: Path) -> Iterator[None]:
    """What the system refuses while `target` is made becomes a cause and a remedy."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        if error.errno in _FULL:
            raise _full(target.parent) from None
        where = error.filename or target
        if error.errno in _REFUSED:
            raise VlfleetError(f"{where}: {reason}", "check its permissions, or give a DST elsewhere") from None
        remedy = "look into the system's log (dmesg); the same command goes on where this one stopped"
        raise VlfleetError(f"{target} cannot be made: {where}: {reason}", remedy) from None


def _full(folder: Path, needed_bytes: int = 0) -> VlfleetError:
    free = f"{_size(shutil.disk_usage(folder).free)} free"
    if needed_bytes:
        cause, remedy = f"{folder} has {free}, {_size(needed_bytes)} are needed", "free some room"
    else:
        cause, remedy = f"the disk of {folder} is full ({free})", "free some room; the same command goes on from there"
    return VlfleetError(cause, f"{remedy}, or give a DST on another disk", ExitCode.DOES_NOT_FIT)


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.1f} GiB" if size_bytes >= 1 << 30 else f"{size_bytes / 2**20:.0f} MiB"
