"""Which replica gets which GPUs: a pure function of the GPUs and how they are joined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.hardware.machine import Gpu, Link, Pair, link_of
from vlfleet.plan.board import Board, GpuSet, places_of

_State = tuple[GpuSet, GpuSet]
"""The GPUs that are free, and the last stage of the replica that is not complete."""
_Way = tuple[int, tuple[GpuSet, ...]]
"""The cost of the tensor-parallel groups that were taken, and these; each is one pipeline stage."""

_KEPT, _KEPT_OF_MANY = 512, 64
"""Partial assignments that are carried on, with up to 8 GPUs and with more. Of 8 there are never more (420 at TP 2 and
PP 4 with no two GPUs alike), so the answer is the best there is. Of 10 to 16 GPUs joined at random, 64 found as
good ones as 512 in 66 of 66 trials; a real machine has equal GPUs, which keep the number small."""


def assign(
    gpus: Sequence[Gpu],
    links: Mapping[Pair, Link],
    replicas: int,
    tensor_parallel_size: int,
    pipeline_parallel_size: int,
) -> tuple[tuple[int, ...], ...]:
    """For each replica the indices of its GPUs by rank: all of stage 0, then of stage 1, ...; no GPU twice.

    In this order of importance:

    1. a tensor-parallel group has GPUs of one model;
    2. as many groups as possible lie within one NVLink island (every two GPUs joined, as vLLM's all-reduce asks), then
       within one PCIe switch, one host bridge, one NUMA node; then each has as many near pairs as possible;
    3. the larger and newer GPUs are taken;
    4. a replica's stages are of one model and near to their neighbours; groups and neighbours share a NUMA node;
    5. islands, then switches, are left whole: the fewest links are cut between GPUs that are taken and that stay free;
    6. indices are low, and r0 has the lowest.

    The order of `gpus` does not matter.

    Raises:
        VlfleetError: exit code 3, there are too few GPUs.
    """
    if len(gpus) < replicas * tensor_parallel_size * pipeline_parallel_size:
        cause, remedies = too_few(replicas, tensor_parallel_size, pipeline_parallel_size, len(gpus))
        raise VlfleetError(cause, ", or ".join(remedies), ExitCode.DOES_NOT_FIT)
    board = Board(sorted(gpus, key=lambda gpu: gpu.index), links, tensor_parallel_size)
    stages = _search(board, replicas, pipeline_parallel_size)
    ranks = [board.gpus[place].index for stage in stages for place in places_of(stage)]
    world = tensor_parallel_size * pipeline_parallel_size
    return tuple(sorted((tuple(ranks[at : at + world]) for at in range(0, len(ranks), world)), key=min))


def _search(board: Board, replicas: int, pipeline_parallel_size: int) -> tuple[GpuSet, ...]:
    """The cheapest groups, one stage after the other; of equal ones those with low places.

    Ways that leave the same GPUs free and end in the same stage have the same future: only the best goes on.
    """
    kept = _KEPT if len(board.gpus) <= 8 else _KEPT_OF_MANY
    states: dict[_State, _Way] = {((1 << len(board.gpus)) - 1, 0): (0, ())}
    for stage in range(1, replicas * pipeline_parallel_size + 1):
        grown: dict[_State, _Way] = {}
        for (free, before), (cost, groups) in states.items():
            for group in board.groups(free):
                state = free ^ group, group if stage % pipeline_parallel_size else 0
                way = cost + board.group_cost(group) + board.step_cost(before, group), (*groups, group)
                if state not in grown or way < grown[state]:
                    grown[state] = way
        states = _cheapest(grown, board, kept if stage < replicas * pipeline_parallel_size else 1)
    return next(iter(states.values()))[1]


def _cheapest(states: dict[_State, _Way], board: Board, count: int) -> dict[_State, _Way]:
    """The best `count`; what they cut is looked at only where it decides."""
    if len(states) <= count:
        return states
    limit = sorted(cost for cost, _ in states.values())[count - 1]
    tied = [state for state, (cost, _) in states.items() if cost <= limit]
    tied.sort(key=lambda state: (states[state][0] + board.cut_cost(state[0]), states[state][1]))
    return {state: states[state] for state in tied[:count]}


def describe(
    assignment: Sequence[Sequence[int]], gpus: Sequence[Gpu], links: Mapping[Pair, Link], tensor_parallel_size: int
) -> tuple[str, ...]:
    """The map for a person, one line a replica; stages are parted by |, and the farthest link of each is in brackets.

    r0  GPU 0 1 (NVLink) | 2 3 (NVLink)  NVIDIA H200 140.4 GiB each
    """
    known = {gpu.index: gpu for gpu in gpus}
    lines = []
    for number, indices in enumerate(assignment):
        stages = []
        for start in range(0, len(indices), tensor_parallel_size):
            group = indices[start : start + tensor_parallel_size]
            joined = [link_of(links, one, other) for one, other in combinations(group, 2)]
            stages.append(" ".join(map(str, group)) + (f" ({max(joined).label})" if joined else ""))
        models = dict.fromkeys(f"{known[i].name} {known[i].memory_bytes / 2**30:.1f} GiB" for i in indices)
        each = " each" if len(indices) > 1 and len(models) == 1 else ""
        lines.append(f"r{number}  GPU {' | '.join(stages)}  {' + '.join(models)}{each}")
    return tuple(lines)


def too_few(
    replicas: int, tensor_parallel_size: int, pipeline_parallel_size: int, free: int
) -> tuple[str, tuple[str, ...]]:
    """What is missing when `free` GPUs are not enough, and each thing that would do instead."""
    world = tensor_parallel_size * pipeline_parallel_size
    sizes = [
        f"{name} {size}" for name, size in (("TP", tensor_parallel_size), ("PP", pipeline_parallel_size)) if size > 1
    ]
    what = f"{replicas} replica{'s' * (replicas > 1)}" + (f" of {' x '.join(sizes)}" if sizes else "")
    need = f"need{'s' * (replicas == 1)} {replicas * world} GPU{'s' * (replicas * world > 1)}"
    cause = f"{what} {need}, {free} {'is' if free == 1 else 'are'} free"
    remedies = [f"--replicas {free // world}"] if free >= world else []
    each = free // replicas
    if world > 1 and each:
        tensor = max(
            size for size in range(1, tensor_parallel_size + 1) if not tensor_parallel_size % size and size <= each
        )
        pipeline = max(size for size in range(1, pipeline_parallel_size + 1) if size * tensor <= each)
        flags = [f"--tensor-parallel-size {tensor}"] if tensor != tensor_parallel_size else []
        flags += [f"--pipeline-parallel-size {pipeline}"] if pipeline != pipeline_parallel_size else []
        remedies.append(" ".join(flags))
    return cause, tuple(remedies) or ("use a machine with more GPUs",)
