"""The fleet at a moment, as plain facts. Counters count since their process began; None is what nobody told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from vlfleet.hardware.reading import GpuReading
from vlfleet.watch.histogram import EMPTY, Histogram


@dataclass(frozen=True)
class HostSample:
    """The machine, or the container's share of it."""

    cpu: float | None = None
    """Share of all cores in use since the last sample, 0 to 1."""
    memory_bytes: int = 0
    used_bytes: int = 0
    """What could not be given to somebody else."""
    disk_bytes: int = 0
    """Of the disk with the fleet's folder."""
    disk_free_bytes: int = 0
    sent_bytes: int = 0
    """Over all network interfaces but loopback, since they came up."""
    received_bytes: int = 0


@dataclass(frozen=True)
class EngineSample:
    """What an engine says of itself on /metrics."""

    running: float | None = None
    waiting: float | None = None
    kv_usage: float | None = None
    """Share of the KV cache in use, 0 to 1; of several engines in one server, the fullest."""
    preemptions: float | None = None
    finished: float | None = None
    prompt_tokens: float | None = None
    generation_tokens: float | None = None
    mm_queries: float | None = None
    """Media looked up in the processor cache."""
    mm_hits: float | None = None
    prefix_queries: float | None = None
    """Tokens looked up in the prefix cache."""
    prefix_hits: float | None = None
    first_token: Histogram = EMPTY
    inter_token: Histogram = EMPTY
    broken: tuple[str, ...] = ()
    """Names whose values cannot be: no number, negative, a share above 1, a histogram that shrinks."""


@dataclass(frozen=True)
class Traffic:
    """What the gateway counts of one replica."""

    answered: float = 0.0
    """Requests with a status below 500; those whose client left are not among them."""
    failed: float = 0.0
    images: float = 0.0
    visual_tokens: float = 0.0
    media_held: float = 0.0
    """Media that were named without data."""
    media_sent: float = 0.0
    saved_bytes: float = 0.0
    looks_needed: float = 0.0
    looks_repeated: float = 0.0
    """Media that this replica's vision tower looked at although another replica held the result."""
    looks_avoided: float = 0.0
    retries: float = 0.0
    broken_streams: float = 0.0
    predicted_first_token_seconds: float = 0.0
    """Sum over the streams that `first_token` counts."""
    mm_trust: float | None = None
    """Of its processor cache, the share that the route counts on: it falls when the engine forgets what it should
    hold."""
    first_token: Histogram = EMPTY
    duration: Histogram = EMPTY


@dataclass(frozen=True)
class GatewaySample:
    """What the gateway counts of the fleet as a whole."""

    queue_requests: float = 0.0
    queue_work_seconds: float = 0.0
    refused: float = 0.0
    """Requests that could not wait."""
    refused_before: float = 0.0
    """Requests answered with a 5xx before any replica had them."""
    overhead: Histogram = EMPTY
    first_token_by_size: Mapping[str, Histogram] = field(default_factory=dict)
    """Of all replicas, by the class of `sizes` that the request's pictures are in."""
    duration_by_size: Mapping[str, Histogram] = field(default_factory=dict)
    """Of requests that were answered."""
    traffic: Mapping[str, Traffic] = field(default_factory=dict)
    """By replica."""


@dataclass(frozen=True)
class ReplicaSample:
    """One replica: what the supervisor knows, what the gateway counts, what its engine says."""

    name: str
    phase: str
    detail: str = ""
    engine_name: str = ""
    gpus: tuple[int, ...] = ()
    started_at: float = 0.0
    restarts: int = 0
    in_flight: int = 0
    served: int = 0
    error: str = ""
    cordoned: bool = False
    """Out of rotation by hand."""
    traffic: Traffic = Traffic()
    engine: EngineSample | None = None
    """The last that came of this process; None before the first."""
    engine_age_seconds: float | None = None
    """How old that is; since the process is ready where none came; None while it is not ready."""

    @property
    def in_rotation(self) -> bool:
        return self.phase == "ready" and not self.cordoned


@dataclass(frozen=True)
class Sample:
    """The whole fleet."""

    at: float
    """Seconds since the epoch: for people. It may jump."""
    monotonic: float
    """Seconds of `time.monotonic()`: for arithmetic."""
    host: HostSample = HostSample()
    gpus: tuple[GpuReading, ...] = ()
    replicas: tuple[ReplicaSample, ...] = ()
    gateway: GatewaySample = field(default_factory=GatewaySample)

    def replica(self, name: str) -> ReplicaSample | None:
        return self._replicas.get(name)

    def gpu(self, index: int) -> GpuReading | None:
        return self._gpus.get(index)

    @cached_property
    def _replicas(self) -> dict[str, ReplicaSample]:
        """By name: rules ask for each replica of each sample, which would be a million looks with a thousand."""
        return {each.name: each for each in self.replicas}

    @cached_property
    def _gpus(self) -> dict[int, GpuReading]:
        return {each.index: each for each in self.gpus}

    @cached_property
    def first_token(self) -> Histogram:
        """Of all replicas."""
        return _all([each.traffic.first_token for each in self.replicas])

    @cached_property
    def duration(self) -> Histogram:
        """Of all replicas."""
        return _all([each.traffic.duration for each in self.replicas])


def _all(histograms: list[Histogram]) -> Histogram:
    whole = EMPTY
    for each in histograms:
        whole = whole.plus(each)
    return whole
