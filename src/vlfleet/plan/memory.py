"""Memory of each GPU of one vLLM replica, term by term, and how its start ends. Pure.

The way of a start (v1/worker/gpu_worker.py): context and collectives; "how much is free?"; weights; a measured step;
what is left of gpu_memory_utilization becomes the KV cache; CUDA graphs; the first picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from vlfleet.plan import kv, vision
from vlfleet.plan.flags import Flags, Sizes, sizes
from vlfleet.plan.memory_calibration import Calibration
from vlfleet.plan.rank_memory import Case, Device, Parts, RankMemory, Request
from vlfleet.plan.releases import accounting
from vlfleet.plan.weights import ranks

__all__ = ["Device", "Flags", "MemoryPlan", "RankMemory", "Request", "best_utilization", "case_of", "memory"]


@dataclass(frozen=True)
class MemoryPlan:
    """Whether it fits, and why."""

    ranks: tuple[RankMemory, ...]
    """One for each pipeline stage."""
    sizes: Sizes
    budget: vision.Budget
    kv_cache: kv.KvCache
    stage: str = ""
    """Where the start fails: "check", "load", "profile", "kv cache", "graphs", "first picture"; empty: it fits."""
    error: str = ""
    """In vLLM's words, or PyTorch's."""
    shortfall_bytes: int = 0
    """What the tightest rank lacks."""

    @property
    def fits(self) -> bool:
        return not self.stage

    @property
    def kv_tokens(self) -> int:
        return self.kv_cache.tokens

    @property
    def max_concurrency(self) -> float:
        return self.kv_cache.max_concurrency

    @property
    def available_kv_bytes(self) -> int:
        """Of the rank with the least."""
        return min(rank.available_kv_bytes for rank in self.ranks)


def memory(request: Request, calibration: Calibration | None = None) -> MemoryPlan:
    """The plan of one replica. `calibration` is that of the GPU model and release; the built-in one otherwise.

    Raises:
        VlfleetError: the model cannot be cut so; `plan.legality` has vLLM's own words.
    """
    case = case_of(request, calibration)
    flags = request.flags
    stages = ranks(
        request.shape,
        request.tensor_parallel_size,
        request.pipeline_parallel_size,
        data_mode=flags.mm_encoder_tp_mode == "data",
        expert_parallel=flags.enable_expert_parallel,
        partition=flags.layer_partition,
    )
    parts = [Parts(case, rank) for rank in stages]
    each = [part.kv_bytes_per_token for part in parts]
    least = min(kv.blocks(part.available_kv_bytes, size) for part, size in zip(parts, each, strict=True))
    plan = MemoryPlan(
        ranks=tuple(part.ranked(least) for part in parts),
        sizes=case.settled,
        budget=case.budget,
        kv_cache=kv.KvCache(least, case.settled.max_model_len),
    )
    stage, error, shortfall = _outcome(case, parts, plan)
    return replace(plan, stage=stage, error=error, shortfall_bytes=shortfall)


def case_of(request: Request, calibration: Calibration | None = None) -> Case:
    """A request with everything settled that vLLM settles before it looks at a GPU."""
    flags, shape, device = request.flags, request.shape, request.device
    settled = sizes(flags, shape, device.total_bytes, device.name, request.release)
    pixels = request.max_pixels or 16384 * shape.vision.token_side_pixels**2
    found = vision.budget(shape, flags, settled, pixels)
    rules = accounting(request.release, moe=bool(shape.num_experts), runner=flags.runner)
    return Case(request, settled, found, rules, calibration or Calibration())


def _outcome(case: Case, parts: Sequence[Parts], plan: MemoryPlan) -> tuple[str, str, int]:
    """Stage, error and shortfall of the first thing that goes wrong; empty if nothing does."""
    device, flags = case.request.device, case.request.flags
    for number, part in enumerate(parts):
        free, asked = part.free_at_start_bytes, case.requested_bytes
        where = f"cuda:{number * case.request.tensor_parallel_size}"
        error = kv.startup_error(free, device.total_bytes, asked, flags.gpu_memory_utilization, where)
        if error:
            return "check", error, asked - free
    for part in parts:
        left = part.free_at_start_bytes - part.weights.reserved_bytes
        if left < 0:
            return "load", _OUT_OF_MEMORY, -left
        left -= part.buffers.bytes + part.kernels.bytes + part.profiled_bytes
        if left < 0:
            return "profile", _OUT_OF_MEMORY, -left
    available = [part.available_kv_bytes for part in parts]
    each = [part.kv_bytes_per_token for part in parts]
    error = kv.error(available, each, plan.sizes.max_model_len, case.request.release)
    if error:
        needed = [kv.needed_bytes(plan.sizes.max_model_len, size) for size in each]
        return "kv cache", error, max(need - has for need, has in zip(needed, available, strict=True))
    for part, ranked in zip(parts, plan.ranks, strict=True):
        held = part.weights.reserved_bytes + part.buffers.bytes + part.kernels.bytes + part.activation.bytes
        left = part.free_at_start_bytes - held - ranked.term("KV cache").bytes - part.graphs.bytes
        if left < 0:
            return "graphs", _OUT_OF_MEMORY, -left
        if ranked.free_bytes < 0:
            return "first picture", _OUT_OF_MEMORY, -ranked.free_bytes
    return "", "", 0


_OUT_OF_MEMORY = "torch.OutOfMemoryError: CUDA out of memory."
"""How PyTorch's message begins; the sizes in it depend on which tensor came last."""


def best_utilization(request: Request, calibration: Calibration | None = None) -> float:
    """The largest gpu_memory_utilization, in hundredths, with which everything that vLLM does not measure still fits.

    0 when it fits with none: too little memory even without a KV cache. What the KV cache needs is not asked.
    """
    for hundredth in range(99, 0, -1):
        tried = replace(request, flags=replace(request.flags, gpu_memory_utilization=hundredth / 100))
        plan = memory(tried, calibration)
        # A KV cache that is too short for one request stops before the picture is asked for.
        if plan.stage in ("", "kv cache") and all(rank.free_bytes >= 0 for rank in plan.ranks):
            return hundredth / 100
    return 0.0
