"""The one fleet that `vlfleet up` starts: the best plan that keeps to what a person has said. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vlfleet.hardware.machine import Gpu, Machine
from vlfleet.plan.judge import Bench, gpu_refusal
from vlfleet.plan.kinds import Kinds, on
from vlfleet.plan.plan import Inputs, Plan
from vlfleet.plan.search import FINALISTS, Layout, merit, rank, search, weigh

_IDLE_SHARE = 0.9
"""Of a GPU's memory. One that has less free makes all others do with as little, so a plan without it is made too."""


@dataclass(frozen=True)
class Wish:
    """What was said of the layout; None: nothing."""

    tensor_parallel_size: int | None = None
    pipeline_parallel_size: int | None = None
    replicas: int | None = None

    @property
    def sizes(self) -> tuple[int | None, int | None, int | None]:
        return self.tensor_parallel_size, self.pipeline_parallel_size, self.replicas

    @property
    def least_gpus(self) -> int:
        """That it needs."""
        tp, pp, replicas = (size or 1 for size in self.sizes)
        return tp * pp * replicas

    def admits(self, layout: Layout) -> bool:
        return all(said in (None, size) for said, size in zip(self.sizes, layout, strict=True))


def choose(inputs: Inputs, machine: Machine, kinds: Kinds, wish: Wish) -> Plan | None:
    """The best of the plans over GPUs of one kind; `inputs` is the question but for its GPUs, `kinds` is by index.

    Where nothing fits, the plan of most GPUs says why. None: no kind has GPUs enough for `wish`.
    """
    plans = [_plan(on(inputs, machine, gpus, kinds), wish) for gpus in _sets(machine.gpus, kinds, wish)]
    return max(plans, key=_worth, default=None)


def _worth(plan: Plan) -> tuple[bool, bool, float]:
    chosen = plan.chosen
    return (False, False, 0.0) if chosen is None else (True, chosen.in_time, merit(chosen, plan.inputs))


def _sets(gpus: Sequence[Gpu], kinds: Kinds, wish: Wish) -> Iterator[tuple[Gpu, ...]]:
    """All of a kind, then those of it that are idle; of the most numerous kind first."""
    names = [kinds[gpu.index].model.name for gpu in gpus]
    for name in sorted(dict.fromkeys(names), key=names.count, reverse=True):
        whole = tuple(gpu for gpu in gpus if kinds[gpu.index].model.name == name)
        idle = tuple(gpu for gpu in whole if gpu.free_bytes >= _IDLE_SHARE * gpu.memory_bytes)
        for found in dict.fromkeys((whole, idle)):
            if len(found) >= max(1, wish.least_gpus):
                yield found


def _plan(inputs: Inputs, wish: Wish) -> Plan:
    """The plan of `vlfleet plan` where nothing was said of the layout, else the best that keeps to it."""
    if wish == Wish() or gpu_refusal(inputs):
        return search(inputs)
    wanted = list(_layouts(len(inputs.machine.gpus), wish))
    # Stages only where nothing else fits, as the search has it.
    for only in ([layout for layout in wanted if layout[1] == 1], wanted):
        feasible, _ = weigh(Bench.of(inputs), only=only) if only else ([], ())
        if feasible:
            best = [judged.candidate for judged in rank(feasible, inputs, by_replicas=True)[:FINALISTS]]
            sizes = [(each.tensor_parallel_size, each.pipeline_parallel_size, each.replicas) for each in best]
            return search(inputs, only=tuple(dict.fromkeys(sizes)))
    return search(inputs, only=wanted)


def _layouts(gpus: int, wish: Wish) -> Iterator[Layout]:
    """Those that fit on so many GPUs."""
    for tp in range(1, gpus + 1):
        for pp in range(1, gpus // tp + 1):
            for replicas in range(1, gpus // (tp * pp) + 1):
                if wish.admits((tp, pp, replicas)):
                    yield tp, pp, replicas
