"""What the fleet needs to know of an engine: how to start it, and how to read its log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class EngineSpec:
    """What to run, without saying where: the same for every replica of a fleet."""

    model: Path
    served_model_name: str
    threads: int = 1
    """CPU threads that one replica computes with."""
    engine_args: tuple[str, ...] = ()
    """Passed to the engine unchanged, after everything else."""


@dataclass(frozen=True)
class Launch:
    """A process to start. Secrets travel in `env`, never in `argv`, which every user of the machine can read."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to the environment of the supervisor."""


@dataclass(frozen=True)
class Failure:
    """Why an engine ended, from its log. `retry` is false when starting it again cannot help."""

    cause: str
    remedy: str = ""
    retry: bool = True


class Engine(Protocol):
    """An engine as the fleet sees it: serves OpenAI's API on loopback, and answers /health with 200 once ready."""

    name: str

    def check(self, spec: EngineSpec, replicas: int) -> None:
        """Before anything starts: raises VlfleetError if the options are wrong, or `replicas` cannot fit here."""
        ...

    def launch(self, spec: EngineSpec, port: int, api_key: str) -> Launch:
        """The command and environment of one replica on 127.0.0.1:`port` that accepts only `api_key`."""
        ...

    def phase(self, line: str) -> str | None:
        """The phase of start-up that begins with this log line ("load", "warm-up", ...), or None."""
        ...

    def failure(self, lines: list[str]) -> Failure | None:
        """The first cause in the last lines of a dead replica's log, or None when it is not known."""
        ...
