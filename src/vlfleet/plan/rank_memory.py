"""What one pipeline stage of a replica holds, and what vLLM leaves it for the KV cache. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from vlfleet.plan import activation, kv, overheads, vision
from vlfleet.plan.flags import Flags, Sizes
from vlfleet.plan.memory_calibration import Calibration
from vlfleet.plan.releases import Accounting, Release
from vlfleet.plan.shape import ModelShape
from vlfleet.plan.tensors import Rank
from vlfleet.plan.terms import Term, total
from vlfleet.plan.weights import Weights, weight_terms, weights


@dataclass(frozen=True)
class Device:
    """One GPU. All of a replica count as alike: give the smallest, and the one with the least free."""

    total_bytes: int
    """As CUDA counts: NVML's total without what it calls reserved."""
    free_bytes: int
    """Before the engine starts."""
    name: str = ""
    capability: tuple[int, int] = (9, 0)


@dataclass(frozen=True)
class Request:
    """What to start, and on what."""

    shape: ModelShape
    device: Device
    release: Release
    flags: Flags = field(default_factory=Flags)
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    max_pixels: int = 0
    """Of the checkpoint's processor; 0: of the family, 16,384 visual tokens."""


@dataclass(frozen=True)
class RankMemory:
    """One pipeline stage: each of its tensor-parallel ranks has the same."""

    rank: Rank
    terms: tuple[Term, ...]
    """Add up to the GPU's memory; the last, "free", is negative where it runs over."""
    available_kv_bytes: int
    """What vLLM will print as "Available KV cache memory"."""
    kv_bytes_per_token: int

    @property
    def free_bytes(self) -> int:
        return self.term("free").bytes

    def term(self, name: str) -> Term:
        """That one, or one of 0 bytes."""
        return next((term for term in self.terms if term.name == name), Term(name, 0))


@dataclass(frozen=True)
class Case:
    request: Request
    settled: Sizes
    budget: vision.Budget
    rules: Accounting
    calibration: Calibration

    @property
    def requested_bytes(self) -> int:
        """ceil(total * gpu_memory_utilization): v1/worker/utils.py::request_memory."""
        return math.ceil(self.request.device.total_bytes * self.request.flags.gpu_memory_utilization)


class Parts:
    """What one rank holds, before and after vLLM's decision."""

    def __init__(self, case: Case, rank: Rank) -> None:
        request, flags, shape, known = case.request, case.request.flags, case.request.shape, case.calibration
        self.case, self.rank = case, rank
        self.weights: Weights = weights(shape, rank, request.release, case.settled.max_num_batched_tokens)
        self.before = (
            Term("other processes", max(0, request.device.total_bytes - request.device.free_bytes)),
            overheads.context(known),
            overheads.collectives(rank, request.pipeline_parallel_size, flags, known),
        )
        self.buffers = overheads.buffers(shape, rank, case.settled, case.rules.runner)
        self.kernels = overheads.kernels(known)
        self.graphs = overheads.graphs(shape, rank, flags, case.settled, known)
        self.kv_bytes_per_token = kv.token_bytes(
            shape, rank.tensor_parallel_size, len(rank.layers), flags.kv_cache_dtype
        )
        self.activation = self._activation()
        self.encodes = rank.first and case.budget.tokens > 0

    @property
    def free_at_start_bytes(self) -> int:
        return self.case.request.device.total_bytes - total(self.before)

    def _activation(self) -> Term:
        request, settled, known = self.case.request, self.case.settled, self.case.calibration
        each = activation.token_bytes(request.shape, self.rank)
        step = round(settled.max_num_batched_tokens * each * known.activation_scale)
        logits = activation.profiled_logits_bytes(request.shape, self.rank, settled, self.case.rules.runner)
        fixed = overheads.cublas_workspace_bytes(request.device.capability) + known.activation_fixed_bytes
        return Term(
            "activations",
            max(step, logits) + fixed,
            "max(max_num_batched_tokens * bytes of a token, logits of max_num_seqs) + cuBLAS's workspace",
            (("tokens", settled.max_num_batched_tokens), ("token_bytes", each), ("logits_bytes", logits)),
            "plan/activation.py",
            known.source,
        )

    def vision_bytes(self, tokens: int, items: int) -> int:
        request = self.case.request
        found = vision.peak_bytes(request.shape, tokens, items, request.flags, request.tensor_parallel_size)
        return round(found * self.case.calibration.vision_scale)

    @property
    def profiled_bytes(self) -> int:
        """The peak that vLLM measures: max(tower, its outputs + activations), or activations alone."""
        case, found = self.case, self.case.budget
        looked = case.rules.profiles_encoder and not case.request.flags.skip_mm_profiling and found.tokens > 0
        if not looked or (case.rules.runner == 2 and not self.rank.first):
            return self.activation.bytes
        outputs = vision.cache_bytes(case.request.shape, found.profiled_tokens)
        return max(self.vision_bytes(found.profiled_tokens, found.items), outputs + self.activation.bytes)

    @property
    def available_kv_bytes(self) -> int:
        """determine_available_memory, or --kv-cache-memory-bytes, which goes before it."""
        case = self.case
        if case.request.flags.kv_cache_memory_bytes is not None:
            return case.request.flags.kv_cache_memory_bytes
        left = case.requested_bytes - self.kernels.bytes - self.profiled_bytes
        if case.rules.estimates_graphs:
            left -= self.graphs.bytes
        if case.rules.by_free_memory:
            return left - self.weights.reserved_bytes - self.buffers.bytes
        return left - self.weights.allocated_bytes

    def needed_beside_kv(self) -> tuple[Term, ...]:
        """While the largest pictures of a step are encoded and the cache is full, at any time after the start."""
        found: list[Term] = [*weight_terms(self.weights)]
        found.append(Term("allocator's reserve", self.weights.unused_bytes, source="plan/allocator.py"))
        found += [self.buffers, self.kernels, self.activation]
        if self.encodes:
            peak = self.vision_bytes(self.case.budget.tokens, max(1, self.case.budget.items))
            tower = Term(
                "vision tower at work",
                max(0, peak - self.activation.bytes),
                "budget * patches of a token * bytes of a patch, beyond activations: they take turns",
                (("budget", self.case.budget.tokens), ("peak_bytes", peak)),
                "plan/vision.py::patch_bytes",
            )
            found += [vision.cache_term(self.case.request.shape, self.case.budget), tower]
        return (*found, self.graphs)

    def ranked(self, blocks: int) -> RankMemory:
        """With `blocks` of KV cache, as many as the tightest rank can have."""
        size = blocks * kv.BLOCK_SIZE * self.kv_bytes_per_token
        cache = Term(
            "KV cache",
            size,
            "blocks * 16 * 2 * layers * key-value heads * head_dim * bytes of a number",
            (("blocks", blocks), ("bytes_per_token", self.kv_bytes_per_token)),
            "v1/core/kv_cache_utils.py",
        )
        taken = tuple(term for term in (*self.before, *self.needed_beside_kv(), cache) if term.bytes)
        free = Term("free", self.case.request.device.total_bytes - total(taken))
        return RankMemory(self.rank, (*taken, free), self.available_kv_bytes, self.kv_bytes_per_token)
