from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fleet.rig import make_folder
from vlfleet.fleet.folder import FleetFolder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FleetFolder]:
    yield from make_folder(tmp_path, monkeypatch)
