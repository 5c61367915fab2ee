"""A folder or a glob of pictures: each is a row, its path is the row's id."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from vlfleet.batch.row import Flawed, Row
from vlfleet.batch.source import first_bytes
from vlfleet.errors import ExitCode, VlfleetError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp"})
"""A file so named is meant as a picture: one that is none fails, and is told. Others count by their first bytes."""
MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"BM")


class Pictures:
    """Files in the order of their paths; 200,000 paths take about 30 MB."""

    def __init__(self, paths: Sequence[Path | str], root: Path, prompt: str, system: str = "") -> None:
        self.paths, self.root, self.prompt, self.system = [str(path) for path in paths], root, prompt, system
        self.total: int | None = len(self.paths)

    @classmethod
    def below(cls, root: Path, prompt: str, system: str = "") -> Pictures:
        """All pictures in a folder and its folders; what is hidden, and folders that are links, are left out.

        Raises:
            VlfleetError: exit code 2, there are none.
        """
        return cls(some(sorted(walk(root)), f"{root} holds no pictures"), root, prompt, system)

    @classmethod
    def matching(cls, pattern: str, prompt: str, system: str = "") -> Pictures:
        """The files that match a glob; ** goes into folders.

        Raises:
            VlfleetError: exit code 2, none does.
        """
        pattern = os.path.expanduser(pattern)  # noqa: PTH111 - a pattern is no path
        found = sorted(path for path in glob.iglob(pattern, recursive=True) if os.path.isfile(path))  # noqa: PTH113, PTH207
        return cls(some(found, f"nothing matches {pattern}"), Path(), prompt, system)

    def __iter__(self) -> Iterator[Row | Flawed]:
        for path in self.paths:
            name = os.path.relpath(path, self.root) if self.root.parts else path
            try:
                name.encode()
            except UnicodeEncodeError:
                name = os.fsencode(name).decode("utf-8", "backslashreplace")
                yield Flawed(name, f"the file's name {name} is no UTF-8", "rename the file")
                continue
            yield Row(name, (path,), prompt=self.prompt, system=self.system)


def some(paths: list[str], cause: str) -> list[str]:
    if not paths:
        raise VlfleetError(cause, f"pictures are {', '.join(sorted(SUFFIXES))}, by name or content", ExitCode.USAGE)
    return paths


def walk(root: Path) -> Iterator[str]:
    """Files below `root` that are named like pictures or begin like one."""
    for folder, folders, files in os.walk(root, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            path = os.path.join(folder, name)  # noqa: PTH118 - 200,000 Path objects are slow
            if not name.startswith(".") and is_picture(path):
                yield path


def refuse(error: OSError) -> None:
    """A folder that cannot be listed would silently leave its pictures out."""
    reason = (error.strerror or str(error)).lower()
    raise VlfleetError(f"{error.filename} cannot be read: {reason}", "check the folder's permissions", ExitCode.USAGE)


def is_picture(path: str) -> bool:
    if os.path.splitext(path)[1].lower() in SUFFIXES:  # noqa: PTH122
        return True
    if not os.path.isfile(path):  # noqa: PTH113 - a pipe would never end
        return False
    try:
        start = first_bytes(Path(path))
    except VlfleetError:
        return False
    return start.startswith(MAGIC) or (start[:4] == b"RIFF" and start[8:12] == b"WEBP")
