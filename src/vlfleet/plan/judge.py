"""Whether one candidate is legal, fits, and how fast it would be. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from vlfleet.checkpoint.quantization import Format, Scheme, Strategy
from vlfleet.errors import VlfleetError
from vlfleet.hardware.machine import Link, link_of
from vlfleet.plan import legality
from vlfleet.plan.assignment import assign
from vlfleet.plan.demand import Workload
from vlfleet.plan.flags import GPU_MEMORY_UTILIZATION
from vlfleet.plan.legality_rules import EXPERTS
from vlfleet.plan.memory import MemoryPlan, Request, memory
from vlfleet.plan.plan import Candidate, Inputs, Judged, Refusal
from vlfleet.plan.shape import ModelShape
from vlfleet.plan.speed import Setup, Speed
from vlfleet.plan.speed_steady import steady
from vlfleet.plan.speed_work import Cut
from vlfleet.plan.terms import GIB, MIB, gib

Predict = Callable[[Setup, Workload], Speed]
MARGIN_BYTES, CALIBRATED_MARGIN_BYTES = 256 * MIB, 64 * MIB
"""Left free beyond what is counted: how far the memory of a GPU may be off before and after it was calibrated."""
OLDEST: tuple[int, int] = (7, 5)
"""Compute capability: the wheels of vLLM 0.20 and newer hold no code for older GPUs (V100 is 7.0)."""
_ONLINE_FP8 = Scheme(Format.FP8, 8, Strategy.TENSOR)


@dataclass(frozen=True)
class Bench:
    """What all candidates of one search share, and the answers that several of them need."""

    inputs: Inputs
    shapes: dict[str | None, ModelShape]
    rules: legality.Shape
    placements: dict[tuple[int, int, int], tuple[tuple[int, ...], ...]]
    """GPUs of each replica, by replicas, tensor- and pipeline-parallel size."""
    shares: dict[tuple[str | None, int, int], int]
    """gpu_memory_utilization, in hundredths, that the last candidate of a layout came to: the next is near to it."""

    @staticmethod
    def of(inputs: Inputs) -> Bench:
        shapes: dict[str | None, ModelShape] = {None: inputs.model.shape}
        if inputs.model.shape.quantized is None:
            shapes["fp8"] = inputs.model.shaped("fp8")
        return Bench(inputs, shapes, inputs.model.rules, {}, {})

    def placement(self, candidate: Candidate) -> tuple[tuple[int, ...], ...]:
        """GPUs of each replica."""
        key = (candidate.replicas, candidate.tensor_parallel_size, candidate.pipeline_parallel_size)
        if key not in self.placements:
            self.placements[key] = assign(self.inputs.machine.gpus, self.inputs.machine.links, *key)
        return self.placements[key]

    def farthest(self, candidate: Candidate) -> tuple[Link, bool]:
        """The slowest link within a tensor-parallel group, and whether all GPUs of each group are peers."""
        machine, tp = self.inputs.machine, candidate.tensor_parallel_size
        worst, peers = Link.NVLINK, True
        for indices in self.placement(candidate):
            for start in range(0, len(indices), tp):
                for one, other in combinations(indices[start : start + tp], 2):
                    worst = max(worst, link_of(machine.links, one, other))
                    peers = peers and frozenset((one, other)) in machine.peers
        return worst, peers

    def request(self, candidate: Candidate) -> Request:
        """The question to the memory model."""
        return Request(
            shape=self.shapes[candidate.quantization],
            device=self.inputs.device,
            release=self.inputs.release,
            flags=candidate.flags,
            tensor_parallel_size=candidate.tensor_parallel_size,
            pipeline_parallel_size=candidate.pipeline_parallel_size,
            max_pixels=self.inputs.model.max_pixels,
        )

    def setup(self, candidate: Candidate, found: MemoryPlan) -> Setup:
        """The question to the speed model."""
        flags = candidate.flags
        mode: legality.Mode = "data" if flags.mm_encoder_tp_mode == "data" else "weights"
        return Setup(
            shape=self.shapes[candidate.quantization],
            cut=Cut(
                candidate.tensor_parallel_size,
                candidate.pipeline_parallel_size,
                mode,
                flags.kv_cache_dtype,
                candidate.compile_mm_encoder,
            ),
            gpu=self.inputs.gpu,
            kv_cache_tokens=found.kv_tokens,
            link=self.farthest(candidate)[0],
            replicas=candidate.replicas,
            max_num_batched_tokens=found.sizes.max_num_batched_tokens,
            max_num_seqs=found.sizes.max_num_seqs,
            max_pixels=flags.max_pixels or self.inputs.model.max_pixels,
            mm_processor_cache_gb=flags.mm_processor_cache_gb,
            coefficients=self.inputs.coefficients,
        )


def gpu_refusal(inputs: Inputs) -> Refusal | None:
    """Why no layout can run on these GPUs, if so."""
    gpu = inputs.gpu
    if gpu.capability < OLDEST:
        have = ".".join(map(str, gpu.capability))
        return Refusal(
            "gpu",
            f"{gpu.name} has compute capability {have}; vLLM's wheels hold code for 7.5 and newer",
            "RuntimeError: CUDA error: no kernel image is available for execution on the device",
            f"--engine embedded runs it, or a vLLM that was built for {have}",
        )
    return None


def legal(bench: Bench, layout: Candidate) -> tuple[Candidate, Refusal | None]:
    """The layout, with expert parallelism where that makes it legal; or why vLLM would refuse it."""
    inputs, tp = bench.inputs, layout.tensor_parallel_size
    layout = as_said(layout, inputs.said)
    scheme = _ONLINE_FP8 if layout.quantization == "fp8" else inputs.model.scheme
    mode: legality.Mode = "data" if layout.flags.mm_encoder_tp_mode == "data" else "weights"
    found = legality.verdict(
        bench.rules,
        scheme,
        tp,
        mode,
        inputs.release[:2],
        stages=layout.pipeline_parallel_size,
        capability=inputs.gpu.capability,
    )
    if found.legal:
        return layout, None
    if bench.rules.experts and found.code in EXPERTS:
        return replace(layout, flags=replace(layout.flags, enable_expert_parallel=True)), None
    return layout, Refusal("legality", found.reason, found.told, found.remedy)


def as_said(candidate: Candidate, said: Mapping[str, Any]) -> Candidate:
    """With what a person decided; a step gets a token for each sequence, or vLLM refuses both."""
    if not said:
        return candidate
    flags = replace(candidate.flags, **said)
    tokens, sequences = flags.max_num_batched_tokens or 0, flags.max_num_seqs or 0
    if 0 < tokens < sequences and "max_num_batched_tokens" not in said:
        flags = replace(flags, max_num_batched_tokens=sequences)
    elif 0 < tokens < sequences and "max_num_seqs" not in said:
        flags = replace(flags, max_num_seqs=tokens)
    return replace(candidate, flags=flags)


def fitted(bench: Bench, candidate: Candidate) -> tuple[Candidate, MemoryPlan]:
    """The candidate with the largest gpu_memory_utilization that leaves a margin, unless it was said, and its memory.

    Where it does not fit at all, the memory plan says at which stage it ends, and in which words.

    Raises:
        VlfleetError: the model cannot be cut so.
    """
    calibration, request = bench.inputs.calibration, bench.request(candidate)
    if "gpu_memory_utilization" in bench.inputs.said:
        return candidate, memory(request, calibration)

    def at(hundredths: int) -> MemoryPlan:
        flags = replace(request.flags, gpu_memory_utilization=hundredths / 100)
        return memory(replace(request, flags=flags), calibration)

    layout = (candidate.quantization, candidate.tensor_parallel_size, candidate.pipeline_parallel_size)
    low = _largest(lambda share: at(share).stage in ("", "kv cache"), bench.shares.get(layout, 0))
    bench.shares[layout] = low
    margin = CALIBRATED_MARGIN_BYTES if calibration.gpu else MARGIN_BYTES
    # Where nothing fits, vLLM's default tells at which stage it ends.
    share = low - math.ceil(100 * margin / request.device.total_bytes) if low else round(100 * GPU_MEMORY_UTILIZATION)
    share = max(1, share)
    plan = at(share)
    return replace(candidate, flags=replace(candidate.flags, gpu_memory_utilization=share / 100)), plan


def _largest(fits: Callable[[int], bool], guess: int) -> int:
    """The largest number up to 99 that fits, where every smaller one does too; 0: none. A near guess is quick."""
    low, high, step = 0, 99, 1
    if guess and fits(guess):
        low = guess
        while low < high and fits(min(high, low + step)):
            low, step = min(high, low + step), 2 * step
        high = min(high, low + step - 1)
    elif guess:
        high = guess - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def judge(bench: Bench, candidate: Candidate, predict: Predict | None = steady) -> Judged:
    """Memory of a legal candidate, then its speed (None: not asked)."""
    candidate = as_said(candidate, bench.inputs.said)
    if candidate.tensor_parallel_size > 1 and not bench.farthest(candidate)[1]:
        candidate = replace(candidate, flags=replace(candidate.flags, disable_custom_all_reduce=True))
    try:
        candidate, plan = fitted(bench, candidate)
    except VlfleetError as error:
        return Judged(candidate, Refusal("legality", error.cause, change=error.remedy))
    if not plan.fits:
        return Judged(candidate, too_large(plan), plan)
    return Judged(
        candidate, None, plan, predict(bench.setup(candidate, plan), bench.inputs.workload) if predict else None
    )


def too_large(plan: MemoryPlan) -> Refusal:
    """What does not fit, with the two terms that take most."""
    terms = sorted(
        (term for term in plan.ranks[0].terms if term.name not in ("free", "KV cache")), key=lambda t: -t.bytes
    )
    most = ", ".join(f"{term.name} {term.bytes / GIB:.1f}" for term in terms[:2])
    where = {"load": "loading", "profile": "profiling", "kv cache": "sizing the KV cache", "check": "the first check"}
    reason = f"{gib(plan.shortfall_bytes)} GiB short a GPU at {where.get(plan.stage, plan.stage)} ({most} GiB)"
    return Refusal("memory", reason, plan.error)
