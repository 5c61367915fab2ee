"""What a plan is: the question, everything that was weighed, and what was chosen. Plain records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from vlfleet.hardware.catalogue_table import GpuModel
from vlfleet.hardware.machine import Link, Machine
from vlfleet.plan.demand import Workload
from vlfleet.plan.flags import Flags
from vlfleet.plan.memory import Device, MemoryPlan
from vlfleet.plan.memory_calibration import Calibration
from vlfleet.plan.model import Model
from vlfleet.plan.releases import Release
from vlfleet.plan.speed import Speed
from vlfleet.plan.speed_coefficients import Coefficients
from vlfleet.plan.terms import GIB

Goal = Literal["throughput", "latency", "memory"]
Quantise = Literal["auto", "none", "fp8", "any"]
"""--quantization of the search: as the checkpoint is unless only fp8 fits, as it is, fp8 as it loads, or the faster."""
IN_TIME = 0.95
"""Share of the requests that must be in time for a plan to meet its SLO: the SLO is told as a 95th percentile."""


@dataclass(frozen=True)
class Inputs:
    """What a plan is asked for: one model, GPUs of one kind, one demand."""

    model: Model
    gpu: GpuModel
    machine: Machine
    """With these GPUs alone, those that are free to use."""
    workload: Workload
    release: Release
    optimise: Goal = "throughput"
    quantise: Quantise = "auto"
    max_pixels: int | None = None
    max_model_len: int | None = None
    kv_cache_dtype: str = "auto"
    said: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of `Flags` that a person has decided: they stand in every candidate."""
    host_memory_bytes: int = 0
    """0: not known."""
    calibration: Calibration = field(default_factory=Calibration)
    coefficients: Coefficients | None = None

    @property
    def version(self) -> str:
        return ".".join(map(str, self.release))

    @property
    def device(self) -> Device:
        """The smallest of the GPUs, with the free memory of the fullest, as CUDA counts."""
        total = round(self.gpu.cuda_gib * GIB)
        free = min((gpu.free_bytes for gpu in self.machine.gpus), default=total)  # less the driver's reserve already
        return Device(total, min(total, free), self.gpu.name, self.gpu.capability)


@dataclass(frozen=True)
class Candidate:
    """Something that could be started."""

    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    replicas: int = 1
    quantization: str | None = None
    """--quantization; None: as the checkpoint is."""
    flags: Flags = field(default_factory=Flags)
    compile_mm_encoder: bool = False

    @property
    def world_size(self) -> int:
        """GPUs of one replica."""
        return self.tensor_parallel_size * self.pipeline_parallel_size

    @property
    def gpus(self) -> int:
        """Of all replicas."""
        return self.world_size * self.replicas

    @property
    def mode(self) -> str:
        """--mm-encoder-tp-mode; empty where nothing is cut."""
        return self.flags.mm_encoder_tp_mode if self.tensor_parallel_size > 1 else ""

    @property
    def layout(self) -> str:
        """In a word: "4 x TP1", "TP2 x PP2", "2 x TP4"."""
        sizes = f"TP{self.tensor_parallel_size}"
        sizes += f" x PP{self.pipeline_parallel_size}" if self.pipeline_parallel_size > 1 else ""
        return f"{self.replicas} x {sizes}" if self.replicas > 1 else sizes


@dataclass(frozen=True)
class Refusal:
    """Why something cannot be."""

    kind: Literal["gpu", "legality", "memory"]
    reason: str
    """In a few words."""
    error: str = ""
    """What vLLM or PyTorch would say, verbatim as far as known; empty where it says nothing."""
    change: str = ""
    """The nearest change with which it would work; empty where none is known."""


@dataclass(frozen=True)
class Judged:
    """A candidate, and what was found out about it."""

    candidate: Candidate
    refusal: Refusal | None = None
    memory: MemoryPlan | None = None
    """None where it never came to that."""
    speed: Speed | None = None
    """None where it was not predicted."""

    @property
    def goodput(self) -> float:
        """Requests a second in time; 0 where nothing was predicted."""
        return self.speed.goodput if self.speed else 0.0

    @property
    def in_time(self) -> bool:
        """Whether the SLO is met; true where there is none."""
        return self.speed is not None and self.speed.within_slo >= IN_TIME


@dataclass(frozen=True)
class Gain:
    """What one choice buys, against vLLM's default for it."""

    option: str
    """As it stands in the command: "--max-num-batched-tokens 65536"."""
    why: str
    """With numbers."""


@dataclass(frozen=True)
class Padded:
    """A layout that a padded checkpoint would make possible: see `padding`."""

    judged: Judged
    intermediate_size: int
    command: str
    """That pads it; then the plan is made for the new folder."""


@dataclass(frozen=True)
class Plan:
    """The answer for GPUs of one kind."""

    inputs: Inputs
    chosen: Judged | None
    """None: nothing fits."""
    runners_up: tuple[Judged, ...] = ()
    refused: tuple[Judged, ...] = ()
    padded: tuple[Padded, ...] = ()
    """What a padded checkpoint could do, the best first. Never chosen: it is not there yet."""
    gains: tuple[Gain, ...] = ()
    changes: tuple[str, ...] = ()
    """Where nothing fits: what would, the cheapest first."""
    placement: tuple[tuple[int, ...], ...] = ()
    """GPUs of each replica of the chosen one."""
    link: Link | None = None
    """Between the two farthest GPUs of a replica; None where each has one."""
    notes: tuple[str, ...] = ()
    considered: int = 0
    """Candidates whose speed was looked at."""
    proof: tuple[str, ...] = ()
    """What vLLM itself said, when it was asked."""
