"""The fake engine as the fleet sees it: how to start it as a process, and how to read its log."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from vlfleet.engine.launch import (
    EngineSpec,
    Failure,
    FailureKind,
    Launch,
    Lesson,
    Observation,
    Placement,
    Preparation,
    Value,
)

_ERROR = re.compile(r"(?P<how>ERROR|FATAL)(?:\[(?P<kind>\w+)\])?: (?P<text>.*)")
MAX_NUM_BATCHED_TOKENS = 16384
REPO = Path(__file__).resolve().parents[2]


class FakeEngine:
    """An `Engine` that starts in about half a second and needs no model.

    `options` go to `python -m tests.fakes.engine` before the spec's own `engine_args`, for example
    `FakeEngine("--startup-seconds", "1", "--tokens", "8")`.
    """

    name = "fake"
    progress_counters: tuple[str, ...] = ("vllm:generation_tokens_total", "vllm:prompt_tokens_total")
    needs_warm_up = True

    def __init__(self, *options: str) -> None:
        self.options = options

    def media_cache_gb(self, spec: EngineSpec) -> float:
        return 0.0

    def default_replicas(self, spec: EngineSpec) -> int:
        return 2

    def prepare(self, spec: EngineSpec, replicas: int, *, exposed: bool = False) -> Preparation:
        """A fake fits everywhere."""
        return Preparation((Placement(),) * replicas)

    def launch(self, spec: EngineSpec, placement: Placement, port: int, api_key: str) -> Launch:
        argv = (sys.executable, "-u", "-m", "tests.fakes.engine", "--port", str(port))
        batch = str(spec.options.max_num_batched_tokens or MAX_NUM_BATCHED_TOKENS)
        named = ("--served-model-name", spec.served_model_name, "--max-num-batched-tokens", batch)
        env = {"VLFLEET_ENGINE_KEY": api_key, "PYTHONPATH": str(REPO)}
        return Launch((*argv, *named, *self.options, *spec.engine_args), env)

    def observe(self, line: str) -> Observation | None:
        """`phase: NAME`, and `decided: {JSON}`."""
        _, found, name = line.partition("phase: ")
        if found:
            return Observation(name.strip())
        _, found, text = line.partition("decided: ")
        return Observation(decisions=json.loads(text)) if found else None

    def learn(self, spec: EngineSpec, placement: Placement, decisions: Mapping[str, Value]) -> Lesson | None:
        return None

    def failure(self, lines: Sequence[str]) -> Failure | None:
        """`ERROR: cause | remedy`, or `ERROR[kind]:`; with `FATAL` another start cannot help."""
        for line in lines:
            if match := _ERROR.search(line):
                cause, _, remedy = match["text"].partition(" | ")
                kind = FailureKind(match["kind"] or "unknown")
                return Failure(cause.strip(), remedy.strip(), match["how"] == "ERROR", kind)
        return None

    def heal(self, spec: EngineSpec, failure: Failure, decisions: Mapping[str, Value]) -> tuple[EngineSpec, str] | None:
        """Half the batched tokens."""
        now = spec.options.max_num_batched_tokens or MAX_NUM_BATCHED_TOKENS
        options = dataclasses.replace(spec.options, max_num_batched_tokens=now // 2)
        return dataclasses.replace(spec, options=options), f"{now // 2:,} instead of {now:,} batched tokens"
