"""What has failed once, and a few thousand inputs more. `python -m benchmarks.fuzz` runs a million."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.fuzz.targets import CORPUS, TARGETS
from tests.fuzz.wire import Wire

FINDINGS = sorted(path for path in CORPUS.rglob("*") if path.is_file())
EXECUTIONS = 6000


@pytest.fixture(scope="module", autouse=True)
def _close() -> object:
    yield
    Wire.shared().close()
    Wire.shared.cache_clear()


@pytest.mark.parametrize("path", FINDINGS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_has_failed_once(path: Path) -> None:
    TARGETS[path.parent.name].run(path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_but_answers(name: str) -> None:
    target = TARGETS[name]
    for number in range(EXECUTIONS * target.share // 100):
        target.run(target.make(random.Random(f"test:{name}:{number}")))


def test_a_number_is_an_input() -> None:
    for target in TARGETS.values():
        assert target.make(random.Random("0:a:1")) == target.make(random.Random("0:a:1"))
        assert len({target.make(random.Random(f"0:a:{n}")) for n in range(50)}) > 25
