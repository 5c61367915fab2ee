"""Settings for every test: one compute thread each, no network to the hub, Ctrl-C, and tiny checkpoints to serve."""

from __future__ import annotations

import os
import signal

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts `command &` so, and children inherit it: no test of Ctrl-C would end.
    signal.signal(signal.SIGINT, signal.default_int_handler)

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Two busy cores: a deadline would only measure the neighbours. The same examples every time, so that a red run repeats.
settings.register_profile(
    "vlfleet", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], max_examples=60
)
settings.load_profile("vlfleet")

TinyCheckpoint = Callable[[str], Path]


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> TinyCheckpoint:
    """Gives the folder of a random checkpoint (1.6 M parameters) of a family, by its model_type. Do not change it."""
    from tests.checkpoints import write_tiny_checkpoint

    built: dict[str, Path] = {}

    def of(model_type: str) -> Path:
        if model_type not in built:
            built[model_type] = write_tiny_checkpoint(tmp_path_factory.mktemp(model_type) / "tiny", model_type)
        return built[model_type]

    return of
