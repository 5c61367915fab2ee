"""The environment that engines inherit, and where it points to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vlfleet.checkup.known import Known
from vlfleet.checkup.scene import Scene

_LIBRARY = re.compile(r"lib(cudart|cublas|cudnn|nccl|cuda|nvidia-ml)\.so\.?([\d.]*)$")


@dataclass(frozen=True)
class Library:
    """A library of CUDA that LD_LIBRARY_PATH puts before those that torch brought."""

    name: str
    version: str
    """As in its file's name: "12", "12.8.90", or empty."""
    path: str

    @property
    def major(self) -> int | None:
        return int(self.version.partition(".")[0]) if self.version[:1].isdecimal() else None


@dataclass(frozen=True)
class Environment:
    """All of it, and libraries that LD_LIBRARY_PATH leads to."""

    variables: Mapping[str, str] = field(default_factory=dict)
    libraries: tuple[Library, ...] = ()

    def get(self, name: str) -> str:
        return self.variables.get(name, "")


def gather(scene: Scene, _: Known) -> Environment:
    """Lists the folders of LD_LIBRARY_PATH."""
    folders = [Path(each) for each in scene.env.get("LD_LIBRARY_PATH", "").split(":") if each]
    return Environment(dict(scene.env), tuple(library for folder in folders for library in libraries_in(folder)))


def libraries_in(folder: Path) -> list[Library]:
    """CUDA's libraries in a folder; none where there is no such folder."""
    try:
        names = sorted(each.name for each in folder.iterdir())
    except OSError:
        return []
    matches = (_LIBRARY.match(name) for name in names)
    return [Library(match[1], match[2], str(folder / match[0])) for match in matches if match]
