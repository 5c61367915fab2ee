"""What a choice of GPUs costs: the rules of `plan.assignment` as one number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vlfleet.hardware.machine import Gpu, Link, Pair, link_of

GpuSet = int
"""GPUs as a bit mask of their places in the order of their indices."""

_LEVELS = tuple(Link)[: Link.SYSTEM]
_NONE = (0,) * len(_LEVELS)
_DIGIT = 16
"""Bits of one figure of a cost: more than the pairs of 256 GPUs."""


class Board:
    """What choices cost: one number, whose digits are the rules of `assign`, so that the first unequal one decides."""

    def __init__(self, gpus: Sequence[Gpu], links: Mapping[Pair, Link], group_size: int) -> None:
        self.gpus = gpus
        self._group_size = group_size
        joined = [[link_of(links, one.index, other.index) for other in gpus] for one in gpus]
        self._near = [
            [sum(1 << at for at, link in enumerate(row) if link <= level and at != place) for level in _LEVELS]
            for place, row in enumerate(joined)
        ]
        self._models = [(round(gpu.memory_bytes / 2**30), gpu.capability, gpu.name) for gpu in gpus]
        strengths = sorted({model[:2] for model in self._models}, reverse=True)
        self._weakness = [strengths.index(model[:2]) for model in self._models]
        self._equals = self._equal_places()
        self._groups: dict[GpuSet, list[GpuSet]] = {}
        self._group_costs: dict[GpuSet, int] = {}
        self._step_costs: dict[tuple[GpuSet, GpuSet], int] = {}

    def groups(self, free: GpuSet) -> list[GpuSet]:
        """All ways to take one group of the free GPUs; of equal GPUs always the first ones."""
        if free not in self._groups:
            found = [(0, self._group_size)]
            for places in self._equals:
                firsts = [0]
                for place in places:
                    if free >> place & 1:
                        firsts.append(firsts[-1] | 1 << place)
                found = [
                    (some | firsts[n], rest - n) for some, rest in found for n in range(min(len(firsts), rest + 1))
                ]
            self._groups[free] = [group for group, rest in found if not rest]
        return self._groups[free]

    def group_cost(self, group: GpuSet) -> int:
        """Rules 1 to 4, of one group by itself."""
        if group not in self._group_costs:
            places = places_of(group)
            pairs = [far // 2 for far in self._far(places, group, self._group_size - 1)]
            self._group_costs[group] = _cost(
                mixed=len({self._models[place] for place in places}) > 1,
                groups=[far > 0 for far in pairs],
                pairs=pairs,
                weakness=max(self._weakness[place] for place in places),
                nodes=self._more_nodes(places),
            )
        return self._group_costs[group]

    def step_cost(self, before: GpuSet, group: GpuSet) -> int:
        """Rule 4, between the neighbouring stages of a replica; nothing before its first."""
        if before and (before, group) not in self._step_costs:
            places = places_of(before | group)
            self._step_costs[before, group] = _cost(
                mixed_steps=len({self._models[place] for place in places}) > 1,
                steps=self._far(places_of(before), group, self._group_size),
                nodes=self._more_nodes(places),
            )
        return self._step_costs[before, group] if before else 0

    def cut_cost(self, free: GpuSet) -> int:
        """Rule 5: the links between taken and free GPUs, nearest first."""
        taken = (1 << len(self.gpus)) - 1 ^ free
        return _cost(cuts=[-far for far in self._far(places_of(free), taken, 0)])

    def _far(self, places: Sequence[int], others: GpuSet, most: int) -> list[int]:
        """For each level, how many of the `most` links of each place to `others` are not within it."""
        return [sum(most - (self._near[place][level] & others).bit_count() for place in places) for level in _LEVELS]

    def _more_nodes(self, places: Sequence[int]) -> int:
        """NUMA nodes beyond the first."""
        return len({self.gpus[place].numa_node for place in places}) - 1

    def _equal_places(self) -> list[list[int]]:
        """GPUs that may change places without anybody noticing: same model, node and links to all others."""
        equals: list[list[int]] = []
        for place, gpu in enumerate(self.gpus):
            for others in equals:
                first = others[0]
                both = ~(1 << first | 1 << place)
                if (
                    self._models[first] == self._models[place]
                    and self.gpus[first].numa_node == gpu.numa_node
                    and all(a & both == b & both for a, b in zip(self._near[first], self._near[place], strict=True))
                ):
                    others.append(place)
                    break
            else:
                equals.append([place])
        return equals


def places_of(group: GpuSet) -> list[int]:
    """Ascending."""
    return [place for place in range(group.bit_length()) if group >> place & 1]


def _cost(
    *,
    mixed: int = 0,
    groups: Sequence[int] = _NONE,
    pairs: Sequence[int] = _NONE,
    weakness: int = 0,
    mixed_steps: int = 0,
    steps: Sequence[int] = _NONE,
    nodes: int = 0,
    cuts: Sequence[int] = _NONE,
) -> int:
    """One number with these as its digits, most important first; costs add up digit by digit."""
    number = 0
    for digit in (mixed, *groups, *pairs, weakness, mixed_steps, *steps, nodes, *cuts):
        number = (number << _DIGIT) + digit
    return number
