"""What runs, and what the plan said of it, out of a fleet's folder: what a report compares its figures with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from vlfleet.errors import VlfleetError
from vlfleet.fleet.chosen import kept
from vlfleet.fleet.folder import FleetFolder
from vlfleet.fleet.state import FleetState, load

_WEIGHTS = frozenset(
    {"language layers", "embedding", "head", "vision tower", "position tables", "allocator's rounding"}
)
"""The plan's terms that vLLM's "Model loading took" counts together (plan/weights.py, `weight_terms`)."""
_ENCODER = frozenset({"encoder cache", "vision tower at work"})


@dataclass(frozen=True)
class Planned:
    """What a plan predicted of a fleet under its workload; bytes are of the GPU that holds most."""

    workload: str = ""
    """For a person: "64 in flight, 1 picture each, answers of 200 tokens"."""
    weights_bytes: float | None = None
    kv_cache_bytes: float | None = None
    kv_cache_tokens: float | None = None
    """Of one replica."""
    encoder_bytes: float | None = None
    """What looking at pictures needs beside the weights."""
    requests_per_second: float | None = None
    images_per_second: float | None = None
    first_token_p50_seconds: float | None = None
    first_token_p95_seconds: float | None = None
    gpu_busy: float | None = None
    """Share of the time."""
    gpu_seconds_per_image: float | None = None
    """In which a GPU works."""


@dataclass(frozen=True)
class Setup:
    """A fleet as it was started."""

    model: str = ""
    """Its name for clients: a path says more of this machine than a colleague needs."""
    engine: str = ""
    layout: str = ""
    """As plans call it: 2 x TP1."""
    max_visual_tokens: int | None = None
    """Of one picture, by max_pixels."""
    pixels_per_token: int = 28 * 28
    decided: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """By replica: what its engine said when it started, by the names of `Replica.decisions`."""
    planned: Planned | None = None
    """None where no plan chose the layout."""


def read_setup(folder: FleetFolder) -> Setup:
    """What the folder tells; whatever is missing or damaged there is unknown. Raises nothing."""
    with suppress(OSError, ValueError):
        if state := load(folder):
            return _setup(state, kept(folder, state.spec))
    return Setup()


def _setup(state: FleetState, plan: Mapping[str, Any] | None) -> Setup:
    spec, planned = state.spec, None
    with suppress(ValueError, TypeError, LookupError, AttributeError):
        planned = planned_of(plan) if plan else None
    decided = {
        replica.name: {name: float(value) for name, value in replica.decisions.items() if not isinstance(value, str)}
        for replica in state.replicas
    }
    tokens, area = _largest(state)
    tp, pp = spec.tensor_parallel_size, spec.pipeline_parallel_size
    each = f"TP{tp}" + (f"xPP{pp}" if pp > 1 else "")
    layout = (
        f"{spec.replicas} x {each}" if spec.engine == "vllm" else f"{spec.replicas} replica{'s' * (spec.replicas != 1)}"
    )
    return Setup(spec.served_model_name, spec.engine, layout, tokens, area, decided, planned)


def _largest(state: FleetState) -> tuple[int | None, int]:
    """Visual tokens of the largest picture, and pixels of one."""
    from vlfleet.checkpoint import preflight

    try:
        info = preflight(state.spec.model, weights=False)
    except (VlfleetError, OSError, ValueError):
        return None, Setup.pixels_per_token
    area = info.family.factor**2
    return (state.spec.options.max_pixels or info.max_pixels) // area, area


def planned_of(facts: Mapping[str, Any]) -> Planned | None:
    """What `vlfleet plan --json` printed, or one fleet of it; None where nothing was chosen.

    Raises:
        LookupError, TypeError, ValueError, AttributeError: it is not of that form.
    """
    fleet = facts["fleets"][0] if "fleets" in facts else facts
    chosen = fleet["chosen"]
    if not chosen:
        return None
    memory, speed = chosen.get("memory") or {}, chosen.get("speed") or {}
    ranks = [{term["name"]: float(term["bytes"]) for term in rank} for rank in memory.get("ranks", ())]

    def most(names: frozenset[str]) -> float | None:
        return max((sum(rank.get(name, 0.0) for name in names) for rank in ranks), default=None)

    first = speed.get("ttft") or {}
    busy, images = (speed.get("busy") or {}).get("GPU"), speed.get("images_per_second")
    gpus = math.prod(chosen.get(name, 1) for name in ("replicas", "tensor_parallel_size", "pipeline_parallel_size"))
    return Planned(
        workload=_workload(fleet.get("workload") or {}),
        weights_bytes=most(_WEIGHTS),
        kv_cache_bytes=memory.get("available_kv_bytes"),
        kv_cache_tokens=memory.get("kv_cache_tokens"),
        encoder_bytes=most(_ENCODER),
        requests_per_second=speed.get("requests_per_second"),
        images_per_second=images,
        first_token_p50_seconds=first.get("p50"),
        first_token_p95_seconds=first.get("p95"),
        gpu_busy=busy,
        gpu_seconds_per_image=gpus * busy / images if busy and images else None,
    )


def _workload(facts: Mapping[str, Any]) -> str:
    words = []
    if facts.get("concurrency"):
        words.append(f"{facts['concurrency']} in flight")
    elif facts.get("request_rate"):
        words.append(f"{facts['request_rate']:g} requests/s")
    if facts.get("images_per_request") and facts.get("images"):
        each = facts["images_per_request"]
        words.append(f"{each} picture{'s' if each > 1 else ''} each")
    if facts.get("output_tokens"):
        words.append(f"answers of {facts['output_tokens']} tokens")
    return ", ".join(words)
