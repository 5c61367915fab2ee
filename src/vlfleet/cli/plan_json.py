"""Plans for programs: plain values, and the section "run" that `vlfleet render` reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from vlfleet.cli import plan_values

if TYPE_CHECKING:
    from vlfleet.plan.plan import Judged, Plan
    from vlfleet.plan.speed import Speed

FORMAT = 1


def facts(plans: Sequence[Plan]) -> dict[str, Any]:
    """What --json prints."""
    return {"format": FORMAT, "fits": any(plan.chosen for plan in plans), "fleets": [_fleet(plan) for plan in plans]}


def _fleet(plan: Plan) -> dict[str, Any]:
    inputs = plan.inputs
    return {
        "model": {
            "name": inputs.model.name,
            "family": inputs.model.family.name,
            "parameters": inputs.model.shape.parameters,
            "weights": inputs.model.quantised,
            "source": inputs.model.source,
        },
        "gpu": inputs.gpu.name,
        "gpus": [gpu.index for gpu in inputs.machine.gpus],
        "gpu_memory_bytes": inputs.device.total_bytes,
        "vllm": inputs.version,
        "optimise": inputs.optimise,
        "workload": asdict(inputs.workload),
        "chosen": judged_facts(plan.chosen) if plan.chosen else None,
        "runners_up": [judged_facts(each) for each in plan.runners_up],
        "refused": [judged_facts(each) for each in plan.refused],
        "padded": [
            {"command": each.command, "intermediate_size": each.intermediate_size, **judged_facts(each.judged)}
            for each in plan.padded
        ],
        "gains": [asdict(gain) for gain in plan.gains],
        "changes": list(plan.changes),
        "notes": list(plan.notes),
        "proof": list(plan.proof),
        "considered": plan.considered,
        "run": plan_values.facts(plan) if plan.chosen else None,
    }


def judged_facts(judged: Judged) -> dict[str, Any]:
    """One candidate."""
    c, refusal = judged.candidate, judged.refusal
    return {
        "layout": c.layout,
        "tensor_parallel_size": c.tensor_parallel_size,
        "pipeline_parallel_size": c.pipeline_parallel_size,
        "replicas": c.replicas,
        "quantization": c.quantization,
        "flags": {name: value for name, value in asdict(c.flags).items() if value is not None},
        "compile_mm_encoder": c.compile_mm_encoder,
        "refusal": asdict(refusal) if refusal else None,
        "memory": _memory(judged),
        "speed": speed_facts(judged.speed) if judged.speed else None,
    }


def speed_facts(speed: Speed) -> dict[str, Any]:
    """Seconds and requests a second."""
    found = asdict(speed)
    found["operators"] = dict(speed.operators)
    return {**_finite(found), "goodput": speed.goodput, "bottleneck": speed.bottleneck}


def _finite(value: Any) -> Any:
    """Without infinities, which JSON does not have: null."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return None if isinstance(value, float) and value in (float("inf"), float("-inf")) else value


def _memory(judged: Judged) -> dict[str, Any] | None:
    plan = judged.memory
    if plan is None:
        return None
    return {
        "fits": plan.fits,
        "stage": plan.stage,
        "error": plan.error,
        "shortfall_bytes": plan.shortfall_bytes,
        "kv_cache_tokens": plan.kv_tokens,
        "max_concurrency": plan.max_concurrency,
        "available_kv_bytes": plan.available_kv_bytes,
        "sizes": asdict(plan.sizes),
        "ranks": [[asdict(term) for term in rank.terms] for rank in plan.ranks],
    }
