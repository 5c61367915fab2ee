"""From the GPUs that there are to one plan for each kind of them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vlfleet.hardware.machine import Machine
from vlfleet.plan.demand import Workload
from vlfleet.plan.judge import Bench, gpu_refusal
from vlfleet.plan.kinds import Kinds, on
from vlfleet.plan.plan import Inputs, Plan
from vlfleet.plan.search import FINALISTS, Layout, search, weigh


def fleets(
    inputs: Inputs, machine: Machine, kinds: Kinds, *, only: Sequence[Layout] = (), finalists: int = FINALISTS
) -> tuple[Plan, ...]:
    """One plan for each kind of GPU in `machine`, no GPU in two of them; `inputs` is the question but for its GPUs.

    GPUs of different kinds never share a replica: the slowest would set the pace, the smallest the memory. Each fleet
    gets the share of the load that it can answer.
    """
    names = dict.fromkeys(kind.model.name for kind in kinds.values())
    sets = (tuple(gpu for gpu in machine.gpus if kinds[gpu.index].model.name == name) for name in names)
    parts = [on(inputs, machine, gpus, kinds) for gpus in sets]
    if len(parts) > 1:
        able = [_capacity(part) for part in parts]
        whole = sum(able) or 1.0
        parts = [
            replace(part, workload=shared(part.workload, capacity / whole)) if capacity else part
            for part, capacity in zip(parts, able, strict=True)
        ]
    return tuple(search(part, finalists=finalists, only=only) for part in parts)


def _capacity(inputs: Inputs) -> float:
    """Requests a second of these GPUs, if they had the whole load; 0 where nothing fits."""
    if gpu_refusal(inputs):
        return 0.0
    feasible, _ = weigh(Bench.of(inputs))
    return max((judged.goodput for judged in feasible), default=0.0)


def shared(workload: Workload, share: float) -> Workload:
    """That part of the load; its pictures stay with it."""
    concurrency, rate = workload.concurrency, workload.request_rate
    return replace(
        workload,
        concurrency=None if concurrency is None else max(1, round(share * concurrency)),
        request_rate=None if rate is None else share * rate,
        working_set=-(-round(share * workload.working_set * 1000) // 1000) or min(1, workload.working_set),
    )
