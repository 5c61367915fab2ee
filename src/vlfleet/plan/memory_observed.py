"""From one start of vLLM to a calibration: what its log said, against what was predicted. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from vlfleet.plan import activation, overheads, vision
from vlfleet.plan.flags import graph_count
from vlfleet.plan.kv import BLOCK_SIZE
from vlfleet.plan.memory import case_of, memory
from vlfleet.plan.memory_calibration import Calibration
from vlfleet.plan.rank_memory import Case, Parts, Request
from vlfleet.plan.terms import GIB

Value = int | float | str


def calibrated(request: Request, decisions: Mapping[str, Value], known: Calibration | None = None) -> Calibration:
    """The coefficients with which `memory(request)` says what the engine said.

    `decisions` are those that `engine.vllm.phases.observe` finds in a log: total_gib, free_gib, activation_gib,
    graphs_gib, kv_cache_gib, kv_cache_tokens; what is missing leaves its coefficient as it was in `known`. The log
    rounds to hundredths of a GiB, so one coefficient ("kernels and libraries") takes up the rest: the size of the KV
    cache is known to a block.

    Raises:
        VlfleetError: the model cannot be cut as `request` says.
    """
    known = known or Calibration()
    if "total_gib" in decisions and "free_gib" in decisions:
        known = _gone_before(request, known, round((_gib(decisions, "total_gib") - _gib(decisions, "free_gib")) * GIB))
    if "activation_gib" in decisions:
        known = _activation(request, known, _gib(decisions, "activation_gib") * GIB)
    if "graphs_gib" in decisions:
        known = _graphs(request, known, _gib(decisions, "graphs_gib") * GIB)
    known = _rest(request, known, decisions)
    return replace(known, gpu=request.device.name, release=request.release, starts=known.starts + 1)


def _gib(decisions: Mapping[str, Value], name: str) -> float:
    return float(decisions[name])


def _gone_before(request: Request, known: Calibration, gone_bytes: int) -> Calibration:
    """What was not free when vLLM looked: its context, and with several ranks the collectives on top."""
    gone = gone_bytes - max(0, request.device.total_bytes - request.device.free_bytes)
    if request.tensor_parallel_size * request.pipeline_parallel_size == 1:
        return replace(known, context_bytes=max(0, gone))
    rank = _first(request, known).rank
    nothing = replace(known, collectives_bytes=0)
    custom = overheads.collectives(rank, request.pipeline_parallel_size, request.flags, nothing).bytes
    return replace(known, collectives_bytes=max(0, gone - known.context_bytes - custom))


def _activation(request: Request, known: Calibration, seen_bytes: float) -> Calibration:
    """Scales whichever of tower and language model had the peak.

    Since 0.27 the line holds the transient part alone, since 0.29 the graphs' estimate too: left alone then.
    """
    case, part = case_of(request, known), _first(request, known)
    if case.rules.by_free_memory:
        return known
    if part.profiled_bytes > part.activation.bytes:
        found = case.budget
        peak = vision.peak_bytes(
            request.shape, found.profiled_tokens, found.items, request.flags, request.tensor_parallel_size
        )
        outputs = vision.cache_bytes(request.shape, found.profiled_tokens)
        if peak * known.vision_scale > outputs + part.activation.bytes:
            return replace(known, vision_scale=seen_bytes / peak)
        seen_bytes -= outputs
    fixed = overheads.cublas_workspace_bytes(request.device.capability) + known.activation_fixed_bytes
    step = case.settled.max_num_batched_tokens * activation.token_bytes(request.shape, part.rank)
    logits = activation.profiled_logits_bytes(request.shape, part.rank, case.settled, case.rules.runner)
    if logits > step or seen_bytes <= fixed:
        return known
    return replace(known, activation_scale=(seen_bytes - fixed) / step)


def _graphs(request: Request, known: Calibration, seen_bytes: float) -> Calibration:
    case, rank = case_of(request, known), _first(request, known).rank
    count = graph_count(request.flags, case.settled)
    pool = overheads.graph_pool_bytes(request.shape, rank, request.flags, case.settled, known)
    if not count or seen_bytes <= pool:
        return known
    return replace(known, graph_bytes=round((seen_bytes - pool) / (count * len(rank.layers))))


def _rest(request: Request, known: Calibration, decisions: Mapping[str, Value]) -> Calibration:
    """So that the available KV cache comes out: from its tokens to half a block, else from its GiB."""
    plan = memory(request, known)
    tightest = min(plan.ranks, key=lambda rank: rank.available_kv_bytes)
    if request.flags.kv_cache_memory_bytes is not None:
        return known
    if "kv_cache_tokens" in decisions:
        page = BLOCK_SIZE * tightest.kv_bytes_per_token
        length = plan.sizes.max_model_len
        blocks = round(float(decisions["kv_cache_tokens"]) / length * -(-length // BLOCK_SIZE))
        available = blocks * page + page // 2
    elif "kv_cache_gib" in decisions:
        available = round(_gib(decisions, "kv_cache_gib") * GIB)
    else:
        return known
    return replace(known, non_torch_bytes=max(0, known.non_torch_bytes + tightest.available_kv_bytes - available))


def _first(request: Request, known: Calibration) -> Parts:
    """The first stage: rank 0's log is the one that is read."""
    case: Case = case_of(request, known)
    return Parts(case, memory(request, known).ranks[0].rank)
