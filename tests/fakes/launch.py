"""The fake engine as the fleet sees it: how to start it as a process, and how to read its log."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from vlfleet.engine.launch import EngineSpec, Failure, Launch

REPO = Path(__file__).resolve().parents[2]


class FakeEngine:
    """An `Engine` that starts in about half a second and needs no model.

    `options` go to `python -m tests.fakes.engine` before the spec's own `engine_args`, for example
    `FakeEngine("--startup-seconds", "1", "--tokens", "8")`.
    """

    name = "fake"

    def __init__(self, *options: str) -> None:
        self.options = options

    def check(self, spec: EngineSpec, replicas: int) -> None:
        """A fake fits everywhere."""

    def launch(self, spec: EngineSpec, port: int, api_key: str) -> Launch:
        argv = (sys.executable, "-u", "-m", "tests.fakes.engine", "--port", str(port))
        named = ("--served-model-name", spec.served_model_name)
        env = {"VLFLEET_ENGINE_KEY": api_key, "PYTHONPATH": str(REPO)}
        return Launch((*argv, *named, *self.options, *spec.engine_args), env)

    def phase(self, line: str) -> str | None:
        _, found, name = line.partition("phase: ")
        return name.strip() if found else None

    def failure(self, lines: Sequence[str]) -> Failure | None:
        """`ERROR: cause | remedy`; with `FATAL:` another start cannot help."""
        for line in lines:
            for mark, retry in (("ERROR: ", True), ("FATAL: ", False)):
                _, found, text = line.partition(mark)
                if found:
                    cause, _, remedy = text.partition(" | ")
                    return Failure(cause.strip(), remedy.strip(), retry)
        return None
