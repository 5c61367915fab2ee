from __future__ import annotations

import random
import time
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plan.exhaustive import best, disjoint, in_islands, most_in_islands, score
from tests.plan.topologies import (
    A100,
    A100_SXM,
    GT1030,
    H200,
    RTX3090,
    RTX4090,
    Board,
    board,
    four_3090,
    gpu,
    islands,
    mixed,
    nvlink_pairs,
    nvlink_path,
    nvswitch,
    switches,
)
from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.hardware.machine import Gpu, Link
from vlfleet.plan.assignment import assign, describe

Shape = tuple[int, int, int]
"""Replicas, TP, PP."""


def assigned(on: Board, replicas: int, tensor: int, pipeline: int) -> tuple[tuple[int, ...], ...]:
    return assign(on.gpus, on.links, replicas, tensor, pipeline)


def groups_of(assignment: tuple[tuple[int, ...], ...], size: int) -> list[tuple[int, ...]]:
    return [ranks[at : at + size] for ranks in assignment for at in range(0, len(ranks), size)]


def any_case(chance: random.Random, most: int, most_stages: int = 8) -> tuple[Board, Shape]:
    """Any GPUs joined in any way, also ways that no machine has, and what they have room for."""
    count = chance.randint(1, most)
    models = chance.choice([[A100], [A100, A100_SXM], [A100, A100_SXM, RTX4090, RTX3090]])
    kinds = chance.sample(list(Link), chance.randint(1, 4))
    nodes = chance.randint(1, 2)
    on = board(
        [chance.choice(models) for _ in range(count)],
        lambda one, other: chance.choice(kinds),
        lambda index: chance.randrange(nodes),
    )
    tensor = chance.randint(1, count)
    pipeline = chance.randint(1, min(most_stages, count // tensor))
    return on, (chance.randint(1, count // (tensor * pipeline)), tensor, pipeline)


def cases(most: int) -> st.SearchStrategy[tuple[Board, Shape]]:
    return st.randoms(use_true_random=True).map(lambda chance: any_case(chance, most))


@given(cases(12))
def test_sets_are_disjoint_and_of_the_right_size(case: tuple[Board, Shape]) -> None:
    on, (replicas, tensor, pipeline) = case
    assignment = assigned(on, replicas, tensor, pipeline)
    taken = [index for ranks in assignment for index in ranks]
    assert [len(ranks) for ranks in assignment] == [tensor * pipeline] * replicas
    assert len(set(taken)) == len(taken)
    assert set(taken) <= {gpu.index for gpu in on.gpus}
    assert [min(ranks) for ranks in assignment] == sorted(min(ranks) for ranks in assignment)
    assert all(list(group) == sorted(group) for group in groups_of(assignment, tensor))


@pytest.mark.parametrize("seed", range(8))
def test_nothing_is_better_with_one_stage(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(150):
        on, shape = any_case(chance, 8, most_stages=1)
        assert score(on, assigned(on, *shape), shape[1]) == best(on, *shape), (on, shape)


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_better_with_stages(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(150):
        on, shape = any_case(chance, 6)
        assert score(on, assigned(on, *shape), shape[1]) == best(on, *shape), (on, shape)


@pytest.mark.parametrize("shape", [(2, 2, 2), (1, 2, 4), (1, 2, 3), (1, 4, 2), (1, 1, 5), (2, 1, 3)])
def test_nothing_is_better_with_stages_of_eight(shape: Shape) -> None:
    chance = random.Random(str(shape))
    for _ in range(2):
        on = board([A100] * 8, lambda one, other: chance.choice(list(Link)), lambda index: chance.randrange(2))
        assert score(on, assigned(on, *shape), shape[1]) == best(on, *shape), on


@given(cases(8), st.randoms(use_true_random=False))
def test_numbers_do_not_change_how_good_it_is(case: tuple[Board, Shape], chance: random.Random) -> None:
    """The same machine with its GPUs numbered otherwise; and the order in which they are given changes nothing."""
    on, shape = case
    numbers = list(range(len(on.gpus)))
    chance.shuffle(numbers)
    gpus = [Gpu(numbers[g.index], g.uuid, g.name, g.memory_bytes, 0, g.capability, g.numa_node) for g in on.gpus]
    other = Board(tuple(gpus), {frozenset(numbers[i] for i in pair): link for pair, link in on.links.items()})
    assert score(other, assigned(other, *shape), shape[1]) == score(on, assigned(on, *shape), shape[1])
    assert assign(gpus[::-1], other.links, *shape) == assigned(other, *shape)


@st.composite
def island_sizes(draw: st.DrawFn, most: int) -> list[int]:
    sizes: list[int] = []
    while sum(sizes) < most and (not sizes or draw(st.booleans())):
        sizes.append(draw(st.integers(1, most - sum(sizes))))
    return sizes


@given(island_sizes(8), st.integers(1, 8), st.data())
def test_islands_hold_as_many_groups_as_trying_all_finds(sizes: list[int], tensor: int, data: st.DataObject) -> None:
    on = islands(sizes)
    if tensor <= len(on.gpus):
        replicas = data.draw(st.integers(1, len(on.gpus) // tensor))
        assert in_islands(on, assigned(on, replicas, tensor, 1)) == most_in_islands(on, replicas, tensor)


@given(island_sizes(16), st.integers(1, 8), st.data())
def test_islands_of_large_machines_are_filled(sizes: list[int], tensor: int, data: st.DataObject) -> None:
    """More GPUs than `best` can try: an island holds as many groups as fit into its size."""
    on = islands(sizes)
    if tensor <= len(on.gpus):
        replicas = data.draw(st.integers(1, len(on.gpus) // tensor))
        assert in_islands(on, assigned(on, replicas, tensor, 1)) == min(replicas, sum(size // tensor for size in sizes))


def test_the_oracle_tries_all() -> None:
    assert len(list(disjoint(range(8), 4, 2))) == 105  # perfect matchings of 8
    assert len(list(disjoint(range(8), 2, 4))) == 35
    assert len(list(disjoint(range(5), 2, 2))) == 15
    assert sorted(disjoint(range(3), 1, 2)) == [((0, 1),), ((0, 2),), ((1, 2),)]


@pytest.mark.parametrize(
    ("on", "shape", "expected"),
    [
        pytest.param(nvswitch(), (4, 2, 1), ((0, 1), (2, 3), (4, 5), (6, 7)), id="dgx"),
        pytest.param(nvswitch(), (2, 4, 1), ((0, 1, 2, 3), (4, 5, 6, 7)), id="dgx"),
        pytest.param(nvswitch(), (1, 4, 2), ((0, 1, 2, 3, 4, 5, 6, 7),), id="dgx"),
        pytest.param(nvswitch(), (8, 1, 1), tuple((index,) for index in range(8)), id="dgx"),
        pytest.param(nvswitch().without(0), (1, 4, 1), ((4, 5, 6, 7),), id="dgx, 0 busy: one socket"),
        pytest.param(nvswitch().without(0), (1, 2, 2), ((4, 5, 6, 7),), id="dgx, 0 busy: stages on one socket"),
        pytest.param(switches(8, 4), (2, 4, 1), ((0, 1, 2, 3), (4, 5, 6, 7)), id="2 switches"),
        pytest.param(switches(8, 4), (2, 1, 1), ((0,), (1,)), id="2 switches: one is left whole"),
        pytest.param(switches(8, 4).without(0, 1), (1, 2, 1), ((2, 3),), id="2 switches: the whole one is left"),
        pytest.param(switches(8, 4).without(0), (3, 2, 1), ((1, 2), (4, 5), (6, 7)), id="2 switches, 0 busy"),
        pytest.param(four_3090(), (2, 2, 1), ((0, 2), (1, 3)), id="3090 pairs"),
        pytest.param(four_3090(), (1, 2, 2), ((0, 2, 1, 3),), id="3090 pairs"),
        pytest.param(four_3090(), (2, 1, 1), ((0,), (2,)), id="3090 pairs: one is left whole"),
        pytest.param(four_3090().without(2), (1, 2, 1), ((1, 3),), id="3090 pairs, 2 busy"),
        pytest.param(nvlink_pairs(4), (1, 4, 1), ((0, 1, 2, 3),), id="a100 pairs"),
        pytest.param(nvlink_pairs(8), (1, 1, 2), ((0, 1),), id="a100 pairs: stages share an island"),
        pytest.param(nvlink_pairs(8), (2, 2, 2), ((0, 1, 2, 3), (4, 5, 6, 7)), id="a100 pairs: stages share a socket"),
        pytest.param(nvlink_pairs(8).without(1), (1, 4, 1), ((4, 5, 6, 7),), id="a100 pairs: whole pairs in one group"),
        pytest.param(nvlink_path(4), (2, 2, 1), ((0, 1), (2, 3)), id="path: not 1 and 2"),
        pytest.param(nvlink_path(4).without(0), (1, 2, 1), ((1, 2),), id="path"),
        pytest.param(nvlink_path(5), (1, 2, 1), ((0, 1),), id="path: cut once"),
        pytest.param(nvlink_path(4), (1, 1, 4), ((0, 1, 2, 3),), id="path: stages in its order"),
        pytest.param(mixed(RTX4090, RTX3090, RTX4090, RTX3090), (2, 2, 1), ((0, 2), (1, 3)), id="one model a group"),
        pytest.param(mixed(RTX3090, RTX4090, RTX3090, RTX4090), (1, 2, 1), ((1, 3),), id="the newer model"),
        pytest.param(mixed(RTX4090, RTX3090, RTX4090, RTX3090), (2, 1, 2), ((0, 2), (1, 3)), id="one model a replica"),
        pytest.param(mixed(GT1030, RTX4090), (1, 1, 1), ((1,),), id="not the card for the screen"),
        pytest.param(mixed(GT1030, RTX4090, RTX3090), (1, 2, 1), ((1, 2),), id="mixed at last, but of one size"),
        pytest.param(islands([4, 2]), (1, 2, 1), ((4, 5),), id="the small island first"),
        pytest.param(islands([3, 3]), (2, 2, 1), ((0, 1), (3, 4)), id="two of three twice"),
    ],
)
def test_machines(on: Board, shape: Shape, expected: tuple[tuple[int, ...], ...]) -> None:
    assert assigned(on, *shape) == expected


def test_an_island_across_sockets_is_better_than_a_socket() -> None:
    link = {(0, 2): Link.NVLINK, (1, 3): Link.NVLINK, (0, 1): Link.SWITCH, (2, 3): Link.SWITCH}
    on = board([A100] * 4, lambda one, other: link.get((one, other), Link.SYSTEM), lambda index: index // 2)
    assert assigned(on, 2, 2, 1) == ((0, 2), (1, 3))
    assert assigned(on, 1, 2, 1) == ((0, 2),)


@pytest.mark.parametrize("on", [nvswitch(16), switches(16, 8), switches(16, 4), switches(16, 2), nvlink_pairs(16)])
def test_sixteen_gpus_are_quick(on: Board) -> None:
    """Processor time: other work on the machine is not counted."""
    spent = []
    for _ in range(3):
        start = time.process_time()
        assert assigned(on, 2, 8, 1) == (tuple(range(8)), tuple(range(8, 16)))
        spent.append(time.process_time() - start)
    assert min(spent) < 0.05


@pytest.mark.parametrize("shape", [(2, 8, 1), (4, 4, 1), (8, 2, 1), (16, 1, 1), (2, 4, 2), (1, 1, 16)])
def test_no_machine_takes_long(shape: Shape) -> None:
    """Sixteen GPUs of which no two are alike, joined at random."""
    chance = random.Random(7)
    on = board([H200] * 16, lambda one, other: chance.choice(list(Link)), lambda index: index // 8)
    start = time.process_time()
    taken = [index for ranks in assigned(on, *shape) for index in ranks]
    assert sorted(taken) == list(range(16))
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("shape", "count", "cause", "remedy"),
    [
        (
            (2, 2, 2),
            4,
            "2 replicas of TP 2 x PP 2 need 8 GPUs, 4 are free",
            "--replicas 1, or --pipeline-parallel-size 1",
        ),
        ((2, 8, 1), 8, "2 replicas of TP 8 need 16 GPUs, 8 are free", "--replicas 1, or --tensor-parallel-size 4"),
        ((1, 4, 1), 3, "1 replica of TP 4 needs 4 GPUs, 3 are free", "--tensor-parallel-size 2"),
        (
            (1, 4, 2),
            1,
            "1 replica of TP 4 x PP 2 needs 8 GPUs, 1 is free",
            "--tensor-parallel-size 1 --pipeline-parallel-size 1",
        ),
        ((1, 1, 3), 2, "1 replica of PP 3 needs 3 GPUs, 2 are free", "--pipeline-parallel-size 2"),
        ((9, 1, 1), 8, "9 replicas need 9 GPUs, 8 are free", "--replicas 8"),
        ((1, 1, 1), 0, "1 replica needs 1 GPU, 0 are free", "use a machine with more GPUs"),
    ],
)
def test_too_few(shape: Shape, count: int, cause: str, remedy: str) -> None:
    with pytest.raises(VlfleetError) as caught:
        assign([gpu(index) for index in range(count)], {}, *shape)
    assert (caught.value.cause, caught.value.remedy) == (cause, remedy)
    assert caught.value.exit_code is ExitCode.DOES_NOT_FIT


@given(st.integers(0, 16), st.integers(1, 8), st.integers(1, 8), st.integers(1, 4))
@settings(max_examples=200)
def test_every_remedy_fits(count: int, replicas: int, tensor: int, pipeline: int) -> None:
    gpus = [gpu(index) for index in range(count)]
    links = {frozenset(pair): Link.NVLINK for pair in combinations(range(count), 2)}
    try:
        assign(gpus, links, replicas, tensor, pipeline)
    except VlfleetError as error:
        for remedy in error.remedy.split(", or "):
            words = remedy.split()
            said = {name: int(value) for name, value in zip(words[::2], words[1::2], strict=False) if name[0] == "-"}
            less = (
                said.get("--replicas", replicas),
                said.get("--tensor-parallel-size", tensor),
                said.get("--pipeline-parallel-size", pipeline),
            )
            assert said or count < replicas
            assert not said or len(assign(gpus, links, *less)) == less[0]


@pytest.mark.parametrize(
    ("on", "shape", "lines"),
    [
        (nvswitch(), (1, 2, 1), ["r0  GPU 0 1 (NVLink)  NVIDIA H200 140.4 GiB each"]),
        (nvswitch(), (1, 2, 2), ["r0  GPU 0 1 (NVLink) | 2 3 (NVLink)  NVIDIA H200 140.4 GiB each"]),
        (nvswitch(), (2, 1, 1), ["r0  GPU 0  NVIDIA H200 140.4 GiB", "r1  GPU 1  NVIDIA H200 140.4 GiB"]),
        (nvswitch(), (1, 1, 2), ["r0  GPU 0 | 1  NVIDIA H200 140.4 GiB each"]),
        (nvlink_pairs(8), (1, 8, 1), ["r0  GPU 0 1 2 3 4 5 6 7 (across sockets)  NVIDIA A100 80GB PCIe 80.0 GiB each"]),
        (
            mixed(RTX4090, RTX3090),
            (1, 2, 1),
            ["r0  GPU 0 1 (host bridge)  NVIDIA GeForce RTX 4090 24.0 GiB + NVIDIA GeForce RTX 3090 24.0 GiB"],
        ),
    ],
)
def test_the_map(on: Board, shape: Shape, lines: list[str]) -> None:
    assert list(describe(assigned(on, *shape), on.gpus, on.links, shape[1])) == lines
