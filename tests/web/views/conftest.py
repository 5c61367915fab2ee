"""Admin ports without a fleet behind them, each in a thread of its own: Playwright keeps this one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("playwright.sync_api")

from playwright.sync_api import expect

from tests.web.views.admin_double import AdminDouble, Look
from tests.web.views.answers import answers

Serve = Callable[..., AdminDouble]
expect.set_options(timeout=20_000)  # of a busy machine: a plan takes 2 s of a quiet one


class _Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    def end(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()


@pytest.fixture
def loop() -> Iterator[_Loop]:
    loop = _Loop()
    yield loop
    loop.end()


@pytest.fixture
def serve(loop: _Loop) -> Iterator[Serve]:
    """`serve(look, gpus="8xH200", tick_seconds=1.0, port=0)` starts a double; its `page` is the address of its page."""
    doubles: list[AdminDouble] = []

    def started(look: Look, gpus: str = "8xH200", tick_seconds: float = 1.0, port: int = 0) -> AdminDouble:
        double = AdminDouble(look, answers(gpus, look), tick_seconds)
        loop.run(double.start(port))
        doubles.append(double)
        return double

    yield started
    for double in doubles:
        loop.run(double.stop())


@pytest.fixture
def end(loop: _Loop) -> Callable[[AdminDouble], None]:
    """Ends a double before the test does: a server that is gone."""
    return lambda double: loop.run(double.stop())
