"""Admin ports without a fleet behind them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

pytest.importorskip("playwright.sync_api")

from playwright.sync_api import expect

from tests.web.views.admin_double import AdminDouble, Doubles

Serve = Callable[..., AdminDouble]
expect.set_options(timeout=20_000)  # of a busy machine: a plan takes 2 s of a quiet one


@pytest.fixture
def doubles() -> Iterator[Doubles]:
    doubles = Doubles()
    yield doubles
    doubles.close()


@pytest.fixture
def serve(doubles: Doubles) -> Serve:
    """`serve(look, gpus="8xH200", tick_seconds=1.0, port=0)` starts a double."""
    return doubles.start
