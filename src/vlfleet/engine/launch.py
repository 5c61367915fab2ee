"""What the fleet needs to know of an engine: how to start it, and how to read its log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from vlfleet.doctor.kinds import FailureKind as FailureKind
from vlfleet.plan.placement import Placement as Placement

Value = int | float | str


@dataclass(frozen=True)
class EngineOptions:
    """What may be said of any engine, under vLLM's names. None leaves the choice to the engine."""

    dtype: str | None = None
    quantization: str | None = None
    max_model_len: int | None = None
    """Tokens of prompt and answer."""
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    """Prompt tokens of one step; with vLLM also the size of its encoder cache, in visual tokens."""
    max_pixels: int | None = None
    """An image with more is scaled down by the processor; 784 pixels are one visual token (Qwen2-VL, Qwen2.5-VL)."""
    limit_mm_per_prompt: dict[str, int] | None = None
    """Most media of one request: {"image": 8, "video": 0}."""
    gpu_memory_utilization: float | None = None
    kv_cache_memory_bytes: int | None = None
    kv_cache_dtype: str | None = None
    mm_processor_cache_gb: float | None = None
    mm_encoder_tp_mode: str | None = None
    """weights: the vision tower is cut across ranks; data: each rank holds it whole and takes a share of the media."""
    distributed_executor_backend: str | None = None
    disable_custom_all_reduce: bool | None = None


@dataclass(frozen=True)
class EngineSpec:
    """What to run, without saying where: the same for every replica of a fleet."""

    model: Path
    served_model_name: str
    threads: int = 1
    """CPU threads that one replica computes with."""
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    options: EngineOptions = field(default_factory=EngineOptions)
    engine_args: tuple[str, ...] = ()
    """Passed to the engine unchanged, after everything else."""

    @property
    def world_size(self) -> int:
        """GPUs of one replica."""
        return self.tensor_parallel_size * self.pipeline_parallel_size


@dataclass(frozen=True)
class Preparation:
    """What an engine decided before anything was started."""

    placements: tuple[Placement, ...]
    """One a replica, no GPU twice."""
    notes: tuple[str, ...] = ()
    """Lines that a person should read: a known gap of this version, a GPU that was left out."""
    map: tuple[str, ...] = ()
    """For a person: which replica runs on which GPUs, and how these are joined."""


@dataclass(frozen=True)
class Launch:
    """A process to start. Secrets travel in `env`, never in `argv`, which every user of the machine can read."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to the environment of the supervisor."""
    secrets: frozenset[str] = frozenset()
    """The names in `env` whose values nobody may see."""
    decisions: Mapping[str, Value] = field(default_factory=dict)
    """What is decided by the command already, and not to be read in the engine's log: max_tokens_per_image, ..."""


@dataclass(frozen=True)
class Failure:
    """Why an engine ended, from its log. `retry` is false when starting it again cannot help."""

    cause: str
    remedy: str = ""
    retry: bool = True
    kind: FailureKind = FailureKind.UNKNOWN
    rule: str = ""
    """The name of the doctor's rule that knew it."""
    numbers: Mapping[str, float] = field(default_factory=dict)
    """What the log said in figures, by the rule's names."""


@dataclass(frozen=True)
class Observation:
    """What one line of an engine's log tells."""

    phase: str = ""
    """The phase of start-up that begins with this line ("load", "compile", "warm-up", ...), or empty."""
    decisions: Mapping[str, Value] = field(default_factory=dict)
    """What the engine has decided: kv_cache_tokens, max_concurrency, encoder_budget_tokens, weights_gib, ..."""


@dataclass(frozen=True)
class Lesson:
    """What a start taught, after the next plans have been corrected by it."""

    decisions: Mapping[str, Value] = field(default_factory=dict)
    """What was predicted of this start, beside what it decided."""
    said: str = ""
    """One line for a person, where the prediction was far off; else empty."""


class Engine(Protocol):
    """An engine as the fleet sees it: serves OpenAI's API on loopback, and answers /health with 200 once ready."""

    name: str
    progress_counters: tuple[str, ...]
    """Counters of its /metrics that grow with every step in which it computes something."""
    needs_warm_up: bool
    """Whether its first picture takes much longer than the next ones, so that no client should be the first."""

    def default_replicas(self, spec: EngineSpec) -> int:
        """How many replicas of `spec` this machine should run when nobody says."""
        ...

    def prepare(self, spec: EngineSpec, replicas: int, *, exposed: bool = False) -> Preparation:
        """Before anything starts; may take seconds, so it is called in a thread. `exposed`: beyond loopback.

        Raises:
            VlfleetError: the options are wrong, or `replicas` cannot fit here.
        """
        ...

    def launch(self, spec: EngineSpec, placement: Placement, port: int, api_key: str) -> Launch:
        """The command and environment of one replica on 127.0.0.1:`port` that accepts only `api_key`."""
        ...

    def media_cache_gb(self, spec: EngineSpec) -> float:
        """GiB of each replica's cache of processed media, which a request may name by `uuid` without sending them; 0:
        it takes no names."""
        ...

    def observe(self, line: str) -> Observation | None:
        """What this log line tells of the start, or None."""
        ...

    def learn(self, spec: EngineSpec, placement: Placement, decisions: Mapping[str, Value]) -> Lesson | None:
        """Corrects what plans are made of by a start that went well; None: it tells nothing. Called in a thread.

        Raises:
            OSError, VlfleetError: what it told cannot be kept.
        """
        ...

    def failure(self, lines: Sequence[str]) -> Failure | None:
        """The first cause in the last lines of a dead replica's log, or None when it is not known."""
        ...

    def heal(self, spec: EngineSpec, failure: Failure, decisions: Mapping[str, Value]) -> tuple[EngineSpec, str] | None:
        """A smaller plan after a start that ran out of memory, and one line that says what was given up; or None."""
        ...
