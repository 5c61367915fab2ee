"""What a machine has to compute with: plain facts, read once by `hardware.probe` and then only passed around."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

Pair = frozenset[int]
"""Two GPUs by their indices, in no order."""


class Link(enum.IntEnum):
    """How two GPUs are joined, nearest first; in brackets what `nvidia-smi topo -m` calls it."""

    NVLINK = 0
    """Directly by NVLink, or through NVSwitch (NV#)."""
    SWITCH = 1
    """Under one PCIe switch, so that traffic stays away from the CPU (PIX, PXB)."""
    BRIDGE = 2
    """Under one host bridge: through the CPU (PHB)."""
    NODE = 3
    """Under two host bridges of one NUMA node (NODE)."""
    SYSTEM = 4
    """Across sockets (SYS), or nobody knows."""

    @property
    def label(self) -> str:
        """For a person: "NVLink", "PCIe switch", ..."""
        return ("NVLink", "PCIe switch", "host bridge", "NUMA node", "across sockets")[self]


def link_of(links: Mapping[Pair, Link], one: int, other: int) -> Link:
    """How these two are joined; SYSTEM when `links` does not say."""
    return links.get(frozenset((one, other)), Link.SYSTEM)


@dataclass(frozen=True)
class GpuProcess:
    """A process that holds memory of a GPU."""

    pid: int
    name: str = ""
    """As `ps -o comm` shows it, at most 15 letters; empty when the process cannot be seen from here."""
    memory_bytes: int | None = None
    """None where the driver does not tell, as in WSL."""


@dataclass(frozen=True)
class Gpu:
    """One physical GPU."""

    index: int
    """In PCI order, as nvidia-smi counts."""
    uuid: str
    """As nvidia-smi -L prints it: GPU-8932f937-d72c-4106-c12f-20bd9faed9f6."""
    name: str
    memory_bytes: int
    """All of it, as NVML says, so some is the driver's: CUDA tells vLLM of a little less (H200: 140.4 and 139.8 GiB).
    Of a board that shares the CPU's memory (GB10, Thor): all of that."""
    free_bytes: int
    capability: tuple[int, int]
    """CUDA's compute capability: (9, 0) is Hopper. (0, 0) when unknown."""
    numa_node: int | None = None
    """The node of the CPU that this GPU hangs on; None when there is one only, or nobody knows."""
    pci_bus_id: str = ""
    """As in /sys/bus/pci/devices: 0000:1b:00.0."""
    mig: bool = False
    """Cut into MIG instances: CUDA can use the pieces, but no longer the whole."""
    processes: tuple[GpuProcess, ...] = ()
    """The one that holds most comes first."""
    fault: str = ""
    """Why the driver could not tell about this GPU, as "GPU is lost"; then the facts above are empty."""


@dataclass(frozen=True)
class Machine:
    """One host."""

    gpus: tuple[Gpu, ...] = ()
    """By index."""
    links: Mapping[Pair, Link] = field(default_factory=dict)
    peers: frozenset[Pair] = frozenset()
    """The pairs that can read and write each other's memory (P2P), as the driver says: no copy was made to prove it."""
    driver_version: str = ""
    """NVIDIA's, as 580.159.04; empty without GPUs."""
    cuda_version: str = ""
    """The newest CUDA that the driver runs, as 13.0."""
    host_memory_bytes: int = 0
    """What this machine or container may use, as far as the kernel says."""
    cores: int = 0
    """CPU cores that this process may use."""
