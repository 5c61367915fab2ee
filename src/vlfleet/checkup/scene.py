"""Where the doctor looks: a root folder, an environment, and what a person asked for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Scene:
    """Tests set another root and environment."""

    root: Path = Path("/")
    """Holds proc, sys and dev."""
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    model: str = ""
    """A checkpoint's folder or its name on the hub; empty: no checks of a model."""
    nodes: tuple[str, ...] = ()
    """Other nodes, each as host or host:port."""
    quick: bool = False
    """Nothing that takes longer than a second, or uses a GPU."""

    def read(self, path: str) -> str:
        """A small file of the kernel's without spaces around it; empty where there is none."""
        try:
            return (self.root / path).read_text(encoding="utf-8", errors="replace").strip()
        except (OSError, ValueError):
            return ""

    def number(self, path: str) -> int | None:
        """A file that holds one whole number; None where it is absent, or says "max"."""
        try:
            return int(self.read(path))
        except ValueError:
            return None
