"""One fleet of the demo model for all that needs a real answer: it takes four seconds to start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from scripts.task_docs import Fleet, demo_fleet


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Served by `vlfleet up` in a process of its own; do not change it."""
    with demo_fleet(tmp_path_factory.mktemp("demo")) as running:
        yield running
