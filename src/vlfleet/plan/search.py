"""Every way to run a model on GPUs of one kind, and the best of them. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from vlfleet.plan.advice import CHANGES, nearest_change, what_would_fit
from vlfleet.plan.candidates import batched_tokens, filled, layouts, needs, quantisations
from vlfleet.plan.explain_gains import gains
from vlfleet.plan.explain_notes import notes
from vlfleet.plan.judge import Bench, Predict, gpu_refusal, legal
from vlfleet.plan.limits import roomy, tight
from vlfleet.plan.padding import command, wider
from vlfleet.plan.plan import Candidate, Inputs, Judged, Padded, Plan
from vlfleet.plan.simulate import simulate
from vlfleet.plan.speed_steady import steady

Layout = tuple[int, int, int]
"""Tensor-parallel size, pipeline-parallel size, replicas."""
FINALISTS, CLOSE = 3, 0.75
"""Layouts that are simulated at most, and the share of the best figure that one must have in closed form for that."""
LEAST_REQUESTS, MOST_REQUESTS, SIMULATED_STEPS = 20, 200, 10_000
"""Of one simulation: a 95th percentile wants 20 requests; a step takes 20 microseconds."""
NEAR, SAME = 0.97, 0.995
"""Of the best figure: between layouts, what is nearer than the models are good is decided by simplicity; within one,
only what is as good as equal."""
_SHOWN = 6


def search(inputs: Inputs, *, finalists: int = FINALISTS, only: Sequence[Layout] = ()) -> Plan:
    """The plan: what was chosen, what comes next, and what was refused and why.

    The `finalists` best layouts are simulated. `only` names the layouts to weigh; empty: all.
    """
    bench = Bench.of(inputs)
    if refusal := gpu_refusal(inputs):
        return Plan(inputs, None, refused=(Judged(Candidate(), refusal),), changes=(refusal.change,))
    feasible, refused = weigh(bench, only=only)
    wide = padded(inputs, only)
    if not feasible:
        first = tuple(f"{each.command}, then {each.judged.candidate.layout}" for each in wide[:1])
        changes = (*first, *what_would_fit(inputs))[:CHANGES]
        return Plan(inputs, None, refused=refused, padded=wide, changes=changes)
    ranked = rank(feasible, inputs, by_replicas=bool(only))
    finalists = max(finalists, len(only))
    best = merit(ranked[0], inputs)
    leading = [each for each in ranked[: max(1, finalists)] if only or merit(each, inputs) >= CLOSE * best]
    rest = [roomy(bench, each) for each in [one for one in ranked if one not in leading][:_SHOWN]]
    leading = [roomy(bench, each) for each in leading]
    if finalists:
        leading = rank([simulated(bench, judged) for judged in leading], inputs, by_replicas=True)
    chosen = leading[0]
    runners = (*leading[1:], *rest)
    worst, _ = bench.farthest(chosen.candidate)
    return Plan(
        inputs,
        chosen,
        runners_up=runners[:_SHOWN],
        refused=refused,
        padded=wide,
        gains=gains(bench, chosen),
        placement=bench.placement(chosen.candidate),
        link=worst if chosen.candidate.tensor_parallel_size > 1 else None,
        notes=notes(inputs, chosen),
        considered=len(feasible),
    )


def weigh(
    bench: Bench, predict: Predict | None = steady, only: Sequence[Layout] = ()
) -> tuple[list[Judged], tuple[Judged, ...]]:
    """Everything that fits, with its speed; and one refusal for each layout of which nothing does."""
    inputs = bench.inputs
    feasible: list[Judged] = []
    refused: list[Judged] = []
    for quantization in quantisations(inputs):
        if feasible and quantization and inputs.quantise == "auto":
            break  # numbers change with it, so it is taken unasked only where nothing else fits
        smallest = 0  # GPUs of the smallest replica without pipeline stages that fits
        for layout in layouts(inputs, quantization):
            if only and not _numbers(layout, only):
                continue
            legal_layout, refusal = legal(bench, layout)
            if refusal:
                refused.append(Judged(layout, refusal))
                continue
            if (
                not only
                and layout.pipeline_parallel_size > 1
                and smallest
                and not _stages_may_help(bench, layout, smallest)
            ):
                continue
            found = list(_sized(bench, legal_layout, predict, _numbers(layout, only)))
            fits = [judged for judged in found if judged.refusal is None]
            feasible += fits
            if fits and layout.pipeline_parallel_size == 1:
                smallest = smallest or layout.world_size
            if not fits and found:
                refused.append(found[0])
    return feasible, _told_once(bench, refused)


def padded(inputs: Inputs, only: Sequence[Layout] = ()) -> tuple[Padded, ...]:
    """The best layout of each size of tensor parallelism that padding makes legal, simulated, the best first."""
    found = []
    for tp in range(2, len(inputs.machine.gpus) + 1):
        wide = wider(inputs, tp)
        every = [(tp, 1, replicas) for replicas in range(1, len(inputs.machine.gpus) // tp + 1)]
        wanted = [layout for layout in every if not only or layout in only]
        if wide is None or not wanted:
            continue
        bench = Bench.of(wide)
        if feasible := weigh(bench, only=wanted)[0]:
            best = simulated(bench, roomy(bench, rank(feasible, wide)[0]))
            found.append(Padded(best, wide.model.shape.intermediate_size, command(inputs.model.name, tp)))
    return tuple(sorted(found, key=lambda each: -merit(each.judged, inputs)))


def _numbers(layout: Candidate, only: Sequence[Layout]) -> tuple[int, ...]:
    """Numbers of replicas of this layout that are asked for."""
    sizes = (layout.tensor_parallel_size, layout.pipeline_parallel_size)
    return tuple(sorted({replicas for *cut, replicas in only if tuple(cut) == sizes}))


def _sized(bench: Bench, layout: Candidate, predict: Predict | None, numbers: Sequence[int]) -> Iterable[Judged]:
    """The layout with every number of replicas and every size of a step; the smallest one comes first."""
    inputs, wanted = bench.inputs, needs(bench.inputs)
    for replicas in numbers or range(1, len(inputs.machine.gpus) // layout.world_size + 1):
        for tokens in batched_tokens(inputs, wanted, replicas):
            judged = tight(bench, filled(inputs, layout, wanted, replicas, tokens), wanted, predict)
            yield judged
            if judged.refusal:
                break  # a larger step takes more of everything


def _stages_may_help(bench: Bench, layout: Candidate, smallest: int) -> bool:
    """Pipeline stages instead of tensor parallelism where a replica must be so large and its GPUs are joined slowly."""
    return layout.world_size == smallest and bench.farthest(layout)[0] > 0


def simulated(bench: Bench, judged: Judged) -> Judged:
    """The same with a simulation in place of the closed form: the same every time, and bounded in its steps."""
    if judged.memory is None or judged.speed is None or math.isinf(judged.speed.ttft.p95):
        return judged  # more comes than is answered: the queue grows as long as one simulates
    answer = bench.inputs.workload.output_tokens
    requests = round(SIMULATED_STEPS * max(1.0, judged.speed.running) / answer)
    requests = max(LEAST_REQUESTS, min(MOST_REQUESTS, requests))
    found = simulate(bench.setup(judged.candidate, judged.memory), bench.inputs.workload, requests)
    return replace(judged, speed=found)


def rank(feasible: Sequence[Judged], inputs: Inputs, *, by_replicas: bool = False) -> list[Judged]:
    """The best of each layout, the best first; of nearly equal ones the simplest."""
    best: dict[object, list[Judged]] = {}
    for judged in feasible:
        c = judged.candidate
        replicas = c.replicas if by_replicas else 0
        best.setdefault((c.quantization, c.tensor_parallel_size, c.pipeline_parallel_size, replicas), []).append(judged)
    ordered = [_best(group, inputs, SAME) for group in best.values()]
    ranked = []
    while ordered:
        first = _best(ordered, inputs, NEAR)
        ordered.remove(first)
        ranked.append(first)
    return ranked


def _best(group: Sequence[Judged], inputs: Inputs, near: float) -> Judged:
    """The one with the best figure among those in time, or the simplest of those that come near to it."""
    in_time = [judged for judged in group if judged.in_time] or list(group)
    if inputs.optimise == "memory":
        least = min(judged.candidate.gpus for judged in in_time)
        in_time = [judged for judged in in_time if judged.candidate.gpus == least]
    figure = max(merit(judged, inputs) for judged in in_time)
    alike = [judged for judged in in_time if merit(judged, inputs) >= near * figure]
    return min(alike, key=simplicity)


def merit(judged: Judged, inputs: Inputs) -> float:
    """What is to be large: requests a second in time, or one over the seconds of a request."""
    if inputs.optimise == "latency" and judged.speed:
        return 1 / (judged.speed.ttft.p50 + (inputs.workload.output_tokens - 1) * judged.speed.tpot.p50)
    return judged.goodput


def simplicity(judged: Judged) -> tuple[object, ...]:
    """Small is simple: weights as they are, replicas before tensor parallelism, small steps."""
    c, flags = judged.candidate, judged.candidate.flags
    return (
        c.quantization is not None,
        c.world_size,
        c.pipeline_parallel_size,
        flags.enable_expert_parallel,
        -c.replicas,
        flags.max_num_batched_tokens or 0,
        flags.mm_encoder_tp_mode == "data",
    )


def _told_once(bench: Bench, refused: Iterable[Judged]) -> tuple[Judged, ...]:
    """One for each size and reason, each with the nearest change; sizes that nobody tries (3, 5, 6, ...) come last."""
    seen: dict[object, Judged] = {}
    for judged in refused:
        assert judged.refusal is not None
        c = judged.candidate
        key = (c.quantization, c.tensor_parallel_size, c.pipeline_parallel_size)
        if judged.refusal.kind == "legality":
            key = (None, c.tensor_parallel_size, 0)
        seen.setdefault(key, judged)
    told = sorted(seen.values(), key=lambda judged: judged.candidate.tensor_parallel_size.bit_count() > 1)
    return tuple(nearest_change(bench, judged) for judged in told)
