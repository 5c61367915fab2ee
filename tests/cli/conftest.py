from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.rig import Cli
from tests.fleet.rig import linked_checkpoint, make_folder


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cli]:
    """The command line with a fleet folder of its own; afterwards nothing of it may run."""
    for folder in make_folder(tmp_path, monkeypatch):
        with Cli(folder, linked_checkpoint(tmp_path / "tiny")) as cli:
            yield cli
