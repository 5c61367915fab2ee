"""How good an assignment is, and the best there is by trying them all: the rules of `assign` once more, naively."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise, permutations, product

from tests.plan.topologies import Board
from vlfleet.hardware.machine import Gpu, Link, link_of

Score = tuple[int | tuple[int, ...], ...]
"""The less the better, first figures first."""


def score(board: Board, assignment: Sequence[Sequence[int]], tensor_parallel_size: int) -> Score:
    gpus = {gpu.index: gpu for gpu in board.gpus}
    replicas = [
        [tuple(ranks[at : at + tensor_parallel_size]) for at in range(0, len(ranks), tensor_parallel_size)]
        for ranks in assignment
    ]
    groups = [group for replica in replicas for group in replica]
    steps = [two for replica in replicas for two in pairwise(replica)]
    taken = {index for group in groups for index in group}
    inside = [[link_of(board.links, *two) for two in combinations(group, 2)] for group in groups]
    between = [[link_of(board.links, *two) for two in product(one, other)] for one, other in steps]
    cut = [link_of(board.links, one, other) for one in taken for other in gpus if other not in taken]
    strengths = sorted({_strength(gpu) for gpu in board.gpus}, reverse=True)
    return (
        sum(len({_model(gpus[index]) for index in group}) > 1 for group in groups),
        _beyond([max(links) for links in inside if links]),
        _beyond([link for links in inside for link in links]),
        sum(max(strengths.index(_strength(gpus[index])) for index in group) for group in groups),
        sum(len({_model(gpus[index]) for index in one + other}) > 1 for one, other in steps),
        _beyond([link for links in between for link in links]),
        sum(len({gpus[index].numa_node for index in some}) - 1 for some in [*groups, *(a + b for a, b in steps)]),
        tuple(cut.count(level) for level in Link if level is not Link.SYSTEM),
    )


def best(board: Board, replicas: int, tensor_parallel_size: int, pipeline_parallel_size: int) -> Score:
    """Over all assignments; seconds from 8 GPUs with stages on."""
    found: Score | None = None
    indices = [gpu.index for gpu in board.gpus]
    for groups in disjoint(indices, replicas * pipeline_parallel_size, tensor_parallel_size):
        for order in permutations(groups) if pipeline_parallel_size > 1 else [groups]:
            ranks = [index for group in order for index in group]
            world = tensor_parallel_size * pipeline_parallel_size
            one = score(board, [ranks[at : at + world] for at in range(0, len(ranks), world)], tensor_parallel_size)
            found = one if found is None else min(found, one)
    assert found is not None
    return found


def most_in_islands(board: Board, groups: int, tensor_parallel_size: int) -> int:
    """The most of `groups` disjoint groups that can lie within an island."""
    indices = [gpu.index for gpu in board.gpus]
    return max(in_islands(board, tried) for tried in disjoint(indices, groups, tensor_parallel_size))


def in_islands(board: Board, groups: Sequence[Sequence[int]]) -> int:
    """Groups in which every two GPUs are joined by NVLink."""
    joined = [[link_of(board.links, *pair) for pair in combinations(group, 2)] for group in groups]
    return sum(all(link is Link.NVLINK for link in links) for links in joined)


def disjoint(indices: Sequence[int], count: int, size: int) -> Iterator[tuple[tuple[int, ...], ...]]:
    """All choices of `count` groups of `size`, each choice once."""
    if count == 0:
        yield ()
        return
    for at in range(len(indices) - count * size + 1):
        first, rest = indices[at], indices[at + 1 :]
        for others in combinations(rest, size - 1):
            for groups in disjoint([index for index in rest if index not in others], count - 1, size):
                yield ((first, *others), *groups)


def _beyond(links: Sequence[Link]) -> tuple[int, ...]:
    return tuple(sum(link > level for link in links) for level in Link if level is not Link.SYSTEM)


def _model(gpu: Gpu) -> tuple[str, int]:
    return gpu.name, round(gpu.memory_bytes / 2**30)


def _strength(gpu: Gpu) -> tuple[int, tuple[int, int]]:
    return round(gpu.memory_bytes / 2**30), gpu.capability
