"""From the logs of two cuts of a model to the memory terms of a GPU. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from vlfleet.engine.launch import Value
from vlfleet.engine.vllm.learn import corrected
from vlfleet.plan.flags import graph_count
from vlfleet.plan.memory import case_of, memory
from vlfleet.plan.memory_calibration import Calibration
from vlfleet.plan.overheads import graph_pool_bytes
from vlfleet.plan.rank_memory import Request
from vlfleet.plan.terms import GIB


@dataclass(frozen=True)
class Start:
    """One start of an engine: what was asked for, and what its log said."""

    request: Request
    decisions: Mapping[str, Value]


def calibration(
    starts: Sequence[Start], ranks: Start | None, full_layers: int, session: str, start: Calibration | None = None
) -> Calibration:
    """What explains all of them: `starts` on one GPU, the deepest last, and `ranks` on two.

    A start that cannot have been of its request changes nothing, and is not counted in `starts`. Of `ranks` only what
    NCCL takes is used. `full_layers` are those of the whole model, for which graphs are to be right; `session` is what
    a plan says of where its terms are from.
    """
    known = start or Calibration()
    for each in starts:
        known = corrected(each.request, each.decisions, known) or known
    if len(starts) > 1:
        known = replace(known, graph_bytes=_graph_bytes(starts[0], starts[-1], full_layers, known))
    if ranks is not None:
        both = corrected(ranks.request, ranks.decisions, known) or known
        known = replace(both, **{name: getattr(known, name) for name in _OF_ONE_GPU})
    return replace(known, session=session, session_starts=known.starts)


_OF_ONE_GPU = (
    "context_bytes",
    "non_torch_bytes",
    "activation_fixed_bytes",
    "activation_scale",
    "vision_scale",
    "graph_bytes",
)


def _graph_bytes(shallow: Start, deep: Start, full_layers: int, known: Calibration) -> int:
    """Of one graph and layer, so that the whole model comes out: on the line through both cuts.

    What does not grow with layers is spread over those of the whole model. The log's hundredths of a GiB leave an error
    of (full - shallow) / (deep - shallow) times 5 MiB.
    """
    few, many = (each.request.shape.num_hidden_layers for each in (shallow, deep))
    if few == many or not all("graphs_gib" in each.decisions for each in (shallow, deep)):
        return known.graph_bytes
    low, high = (float(each.decisions["graphs_gib"]) * GIB - _pool(each.request, known) for each in (shallow, deep))
    count = graph_count(deep.request.flags, case_of(deep.request, known).settled)
    whole = high + (high - low) / (many - few) * (full_layers - many)
    return round(whole / (count * full_layers)) if count and whole > 0 else known.graph_bytes


def _pool(request: Request, known: Calibration) -> float:
    """Activations of the largest graph, which graphs share."""
    rank = memory(request, known).ranks[0].rank
    return graph_pool_bytes(request.shape, rank, request.flags, case_of(request, known).settled, known)


@dataclass(frozen=True)
class Check:
    """Available KV cache of a start: what its log said, and what a plan says with the calibration."""

    tensor_parallel_size: int
    layers: int
    seen_bytes: int
    predicted_bytes: int

    @property
    def off_bytes(self) -> int:
        return self.predicted_bytes - self.seen_bytes


def check(start: Start, known: Calibration) -> Check | None:
    """By the tokens of the KV cache, which are exact to a block; None where the log did not tell."""
    tokens, request = start.decisions.get("kv_cache_tokens"), start.request
    if tokens is None:
        return None
    plan = memory(request, known)
    seen = int(tokens) * plan.ranks[0].kv_bytes_per_token
    layers = request.shape.num_hidden_layers
    return Check(request.tensor_parallel_size, layers, seen, plan.available_kv_bytes)
