"""How fast something that could run would be: what runs, and what is found out about it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from vlfleet.families import KNOWN_FAMILIES, Family
from vlfleet.hardware.catalogue_table import GpuModel
from vlfleet.hardware.machine import Link
from vlfleet.plan.demand import Picture, Workload, pictures
from vlfleet.plan.flags import MM_PROCESSOR_CACHE_GB
from vlfleet.plan.operators import Clock, Operator, wire_of
from vlfleet.plan.shape import ModelShape
from vlfleet.plan.simulate_step import Limits
from vlfleet.plan.speed_coefficients import Coefficients, coefficients_of
from vlfleet.plan.speed_step import StepClock
from vlfleet.plan.speed_work import Cut, Work

GPU = "GPU"
API_SERVER = "API server"
PREPROCESSING = "preprocessing"
TRANSFER = "pixels to the engine"
_NO_TIME_LEFT = 0.9
"""Share of the time; what waits then is ten times what is served."""


@dataclass(frozen=True)
class Setup:
    """A fleet of equal replicas of one model, as it could be started."""

    shape: ModelShape
    cut: Cut
    gpu: GpuModel
    kv_cache_tokens: int
    """Of one replica, as vLLM's log says."""
    link: Link = Link.NVLINK
    """Between the GPUs of a replica that are farthest from each other."""
    replicas: int = 1
    max_num_batched_tokens: int = 8192
    max_num_seqs: int = 1024
    max_pixels: int | None = None
    mm_processor_cache_gb: float = MM_PROCESSOR_CACHE_GB
    api_server_count: int = 1
    coefficients: Coefficients | None = None
    """Of a calibration; None: the defaults of this GPU."""

    @property
    def family(self) -> Family:
        """Of the model."""
        return KNOWN_FAMILIES[self.shape.model_type]

    def step_clock(self) -> StepClock:
        """What tells how long a step takes."""
        ranks = self.cut.tensor_parallel_size
        clock = Clock(self.gpu, self.coefficients or coefficients_of(self.gpu))
        return StepClock(Work(self.shape, self.cut), clock, wire_of(self.gpu, ranks, self.link))

    def pictures(self, workload: Workload) -> tuple[Picture, ...]:
        """What the pictures of a workload cost here."""
        return pictures(workload, self.family, self.max_pixels) if workload.media else ()

    def limits(self) -> Limits:
        """What bounds one replica; the largest image the processor makes always fits the encoder."""
        area = self.family.factor**2
        largest = (self.max_pixels or self.family.max_pixels) // area
        return Limits(
            max_num_batched_tokens=self.max_num_batched_tokens,
            max_num_seqs=self.max_num_seqs,
            encoder_tokens=max(self.max_num_batched_tokens, largest),
            kv_cache_tokens=self.kv_cache_tokens,
        )


@dataclass(frozen=True)
class Percentiles:
    """Of one kind of latency, in seconds."""

    p50: float
    p95: float
    p99: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Percentiles:
        """Nearest rank; zeros of nothing."""
        ordered = sorted(values)
        if not ordered:
            return cls(0.0, 0.0, 0.0)
        return cls(*(ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.5, 0.95, 0.99)))


@dataclass(frozen=True)
class Speed:
    """What a fleet does for its workload."""

    requests_per_second: float
    images_per_second: float
    output_tokens_per_second: float
    ttft: Percentiles
    tpot: Percentiles
    within_slo: float
    """Share of the requests that meet the workload's TTFT and TPOT; 1 where none is asked."""
    busy: dict[str, float]
    """Share of the time in which each of GPU, API server, preprocessing and transfer works."""
    operators: tuple[Operator, ...]
    """GPU seconds of one request by what they are spent on, the longest first."""
    running: float
    """Requests in one engine at once, on average."""
    encoder_hits: float
    """Share of the pictures of requests whose output the encoder still had."""
    prefix_hits: float
    """Share of the prompt tokens that were found in the KV cache."""
    preemptions: int = 0
    simulated: bool = False
    notes: tuple[str, ...] = field(default=())

    @property
    def goodput(self) -> float:
        """Requests a second that are answered in time."""
        return self.requests_per_second * self.within_slo

    @property
    def bottleneck(self) -> str:
        """The part that is busiest; of the GPU, the operator that takes most of its time.

        A GPU with anything to do is busy, and would do more at once if it came: what serves one after the other and has
        no time left is named before it.
        """
        part = max((name for name in self.busy if name != GPU), key=lambda name: self.busy[name])
        if self.busy[part] < _NO_TIME_LEFT and self.busy[part] <= self.busy[GPU]:
            part = GPU
        return f"{part}: {self.operators[0].name}" if part == GPU and self.operators else part
