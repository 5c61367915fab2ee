"""Machines as NVML tells of them, for `FakeNvml`."""

from __future__ import annotations

from itertools import combinations

import pynvml  # type: ignore[import-untyped]

from tests.hardware.fake_nvml import Facts

GIB = 1 << 30
MIB = 1 << 20
READ, WRITE, NVLINK = 0, 1, 2
OK = pynvml.NVML_P2P_STATUS_OK
REFUSED = pynvml.NVML_P2P_STATUS_GPU_NOT_SUPPORTED
ALL_OK = {READ: OK, WRITE: OK, NVLINK: OK}


def gpu(index: int, name: str, total_mib: int, capability: tuple[int, int], **more: object) -> Facts:
    """An idle one: as on a real H200, the driver keeps 613 MiB."""
    facts = {
        "uuid": f"GPU-{index:08x}-d72c-4106-c12f-20bd9faed9f6",
        "name": name,
        "memory": (total_mib * MIB, (total_mib - 613) * MIB),
        "capability": capability,
        "pci": (0, 0x1B + 0x10 * index, 0),
    }
    return facts | more


def machine(gpus: list[Facts], ancestor: int = pynvml.NVML_TOPOLOGY_SYSTEM) -> Facts:
    pairs = list(combinations(range(len(gpus)), 2))
    return {
        "driver": "580.159.04",
        "cuda": 13000,
        "gpus": gpus,
        "ancestors": dict.fromkeys(pairs, ancestor),
        "p2p": {},
    }


def laptop() -> Facts:
    return machine([gpu(0, "NVIDIA GeForce RTX 4070 Laptop GPU", 8188, (8, 9), graphics={812: 210 * MIB})])


def two_4090() -> Facts:
    """GeForce drivers refuse P2P: nvidia-smi topo -p2p rw shows GNS."""
    gpus = [gpu(index, "NVIDIA GeForce RTX 4090", 24564, (8, 9)) for index in range(2)]
    facts = machine(gpus, pynvml.NVML_TOPOLOGY_HOSTBRIDGE)
    return facts | {"p2p": {(0, 1): {READ: REFUSED, WRITE: REFUSED, NVLINK: REFUSED}}}


def eight_h200() -> Facts:
    """Every NVLink goes to an NVSwitch, so only the P2P status tells that two GPUs are joined."""
    switches = [(0, bus, 0) for bus in (0x07, 0x08, 0x09, 0x0A)]
    gpus = [
        gpu(i, "NVIDIA H200", 143771, (9, 0), mig=0, nvlinks=[switches[at % 4] for at in range(18)]) for i in range(8)
    ]
    facts = machine(gpus, pynvml.NVML_TOPOLOGY_NODE)
    facts["ancestors"] |= {(one, other): pynvml.NVML_TOPOLOGY_SYSTEM for one in range(4) for other in range(4, 8)}
    return facts | {"p2p": dict.fromkeys(combinations(range(8), 2), ALL_OK)}


def four_a100() -> Facts:
    """PCIe cards with NVLink bridges between 0 and 1, and 2 and 3; a pair for each socket."""
    buses = {index: (0, 0x1B + 0x10 * index, 0) for index in range(4)}
    mates = {0: 1, 1: 0, 2: 3, 3: 2}
    gpus = [gpu(i, "NVIDIA A100 80GB PCIe", 81920, (8, 0), mig=0, nvlinks=[buses[mates[i]]] * 12) for i in range(4)]
    facts = machine(gpus)
    facts["ancestors"] |= {(0, 1): pynvml.NVML_TOPOLOGY_NODE, (2, 3): pynvml.NVML_TOPOLOGY_MULTIPLE}
    return facts | {"p2p": {(0, 1): ALL_OK, (2, 3): ALL_OK, (0, 2): {READ: OK, WRITE: OK}}}


def gb10() -> Facts:
    """Shares the CPU's memory, so NVML tells of none (driver 580.173.02)."""
    error = pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
    board = gpu(0, "NVIDIA GB10", 0, (12, 1), pci=(0xF, 1, 0), errors={"nvmlDeviceGetMemoryInfo": error})
    return machine([board])
