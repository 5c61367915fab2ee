"""GPUs and how they are joined, as on machines that people have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

from vlfleet.hardware.machine import Gpu, Link, Pair

GIB = 1 << 30
Model = tuple[str, int, tuple[int, int]]
"""Name, MiB as NVML tells them, compute capability."""
H200: Model = ("NVIDIA H200", 143771, (9, 0))
A100: Model = ("NVIDIA A100 80GB PCIe", 81920, (8, 0))
A100_SXM: Model = ("NVIDIA A100-SXM4-80GB", 81920, (8, 0))
"""As strong as the other A100, but not the same."""
RTX3090: Model = ("NVIDIA GeForce RTX 3090", 24576, (8, 6))
RTX4090: Model = ("NVIDIA GeForce RTX 4090", 24564, (8, 9))
GT1030: Model = ("NVIDIA GeForce GT 1030", 2048, (6, 1))


@dataclass(frozen=True)
class Board:
    gpus: tuple[Gpu, ...]
    links: dict[Pair, Link]

    def without(self, *indices: int) -> Board:
        """As if these GPUs were busy."""
        return Board(tuple(gpu for gpu in self.gpus if gpu.index not in indices), self.links)


def gpu(index: int, model: Model = H200, numa_node: int | None = None, free_share: float = 1.0) -> Gpu:
    name, mib, capability = model
    return Gpu(index, f"GPU-{index}", name, mib << 20, int((mib << 20) * free_share), capability, numa_node)


def board(
    models: Sequence[Model], link: Callable[[int, int], Link], node: Callable[[int], int | None] = lambda index: None
) -> Board:
    """`link` is asked with the lower index first."""
    gpus = tuple(gpu(index, model, node(index)) for index, model in enumerate(models))
    return Board(gpus, {frozenset(pair): link(*pair) for pair in combinations(range(len(models)), 2)})


def nvswitch(count: int = 8) -> Board:
    """DGX H100, H200; with 16 a DGX-2: every two GPUs joined, the halves on two sockets."""
    return board([H200] * count, lambda one, other: Link.NVLINK, lambda index: index // (count // 2))


def switches(count: int, size: int, model: Model = RTX4090) -> Board:
    """PCIe switches of `size` GPUs each, across sockets."""
    return board([model] * count, lambda one, other: Link.SWITCH if one // size == other // size else Link.SYSTEM)


def nvlink_pairs(count: int) -> Board:
    """A100 PCIe cards with bridges between neighbours, four cards a socket."""

    def link(one: int, other: int) -> Link:
        if one // 2 == other // 2:
            return Link.NVLINK
        return Link.NODE if one // 4 == other // 4 else Link.SYSTEM

    return board([A100] * count, link, lambda index: index // 4)


def four_3090() -> Board:
    """A workstation with bridges between 0 and 2, and 1 and 3: aikitoria/open-gpu-kernel-modules #18 has its map."""
    near = {(0, 2): Link.NVLINK, (1, 3): Link.NVLINK, (0, 1): Link.BRIDGE, (2, 3): Link.BRIDGE}
    return board([RTX3090] * 4, lambda one, other: near.get((one, other), Link.NODE), lambda index: 0)


def nvlink_path(count: int) -> Board:
    """Each joined to the next only."""
    return board([A100] * count, lambda one, other: Link.NVLINK if other - one == 1 else Link.BRIDGE)


def mixed(*models: Model) -> Board:
    """All under one host bridge."""
    return board(models, lambda one, other: Link.BRIDGE)


def islands(sizes: Sequence[int]) -> Board:
    """Disjoint NVLink islands of these sizes."""
    home = [island for island, size in enumerate(sizes) for _ in range(size)]
    return board([H200] * len(home), lambda one, other: Link.NVLINK if home[one] == home[other] else Link.SYSTEM)
