"""Machines as facts, for checks: one with four H200, and a laptop without a GPU."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

from vlfleet.checkup.check import Finding
from vlfleet.checkup.checks import CHECKS
from vlfleet.checkup.examine import judge
from vlfleet.checkup.facts.disk import Disks, Folder
from vlfleet.checkup.facts.environment import Environment
from vlfleet.checkup.facts.gpus import Gpus, GpuState
from vlfleet.checkup.facts.host import Host
from vlfleet.checkup.facts.kernel import Kernel
from vlfleet.checkup.facts.model import Model
from vlfleet.checkup.facts.network import Network
from vlfleet.checkup.facts.nodes import Node, Nodes
from vlfleet.checkup.facts.packages import Imports, Packages
from vlfleet.checkup.facts.traffic import Copy, HostCopy, Reduction, Reductions, Transfers
from vlfleet.checkup.known import Known, Missing
from vlfleet.hardware.machine import Gpu, Link, Machine

GIB = 1 << 30
PAIRS = [frozenset(pair) for pair in combinations(range(4), 2)]
H200 = Gpu(0, "GPU-0", "NVIDIA H200", 140 * GIB, 139 * GIB, (9, 0), numa_node=0, pci_bus_id="0000:1b:00.0")
STATE = GpuState(
    0, pcie_width=16, pcie_max_width=16, pcie_slot_generation=5, pcie_gpu_generation=5, persistence=True,
    compute_mode=0, ecc_uncorrected=0, remap_pending=False, remap_failed=False, power_limit_watts=700,
    power_default_watts=700,
    clock_mhz=1980, clock_default_mhz=1980, fabric_state=3, fabric_status=0, nvlinks=(True,) * 18,
    temperature_celsius=34,
)  # fmt: skip
MACHINE = Machine(
    gpus=tuple(replace(H200, index=index, uuid=f"GPU-{index}") for index in range(4)),
    links=dict.fromkeys(PAIRS, Link.NVLINK),
    peers=frozenset(PAIRS),
    driver_version="580.159.04",
    cuda_version="13.0",
    host_memory_bytes=512 * GIB,
    cores=64,
)
GPUS = Gpus(MACHINE, tuple(replace(STATE, index=index) for index in range(4)), cuda_init=0, libcuda=True)
KERNEL = Kernel(
    nvidia_devices=("0000:1b:00.0",), module="580.159.04", open_module=True, log_read=True, acs=(),
    device_nodes=("nvidia-uvm", "nvidia0", "nvidia1", "nvidia2", "nvidia3", "nvidiactl"),
)  # fmt: skip
PACKAGES = Packages(
    "/opt/vllm/bin/python", (3, 12), "0.26.0", vllm_variables=frozenset({"VLLM_PORT", "VLLM_HOST_IP"}),
    versions={"vllm": "0.26.0", "torch": "2.11.0", "transformers": "5.17.0", "numpy": "2.3.5"},
)  # fmt: skip
IMPORTS = Imports(cuda="13.0", archs=("sm_75", "sm_80", "sm_90", "sm_120", "compute_120"), nccl="2.28.9", devices=4)
HOST = Host(
    memory_bytes=512 * GIB, available_bytes=500 * GIB, cores=64, machine_cores=64, shm_bytes=256 * GIB,
    shm_free_bytes=256 * GIB, nofile=1 << 20, numa_nodes=2, affinity=frozenset(range(64)),
    numa_cores={0: frozenset(range(32)), 1: frozenset(range(32, 64))}, governor="performance",
    governor_driver="acpi-cpufreq", clock_seconds=1_795_000_000.0, clock_synchronised=True, core_pattern="core",
    infiniband=True,
)  # fmt: skip


def folder(path: str, **changes: Any) -> Folder:
    return replace(
        Folder("x", path, free_bytes=900 * GIB, total_bytes=1000 * GIB, free_files=10**6, kind="ext4"), **changes
    )


DISKS = Disks(*(folder(path) for path in ("/hub", "/state", "/scratch", "/scratch", "/cache")))
NETWORK = Network(ephemeral=(32768, 60999), localhost=("127.0.0.1",), addresses=frozenset({"127.0.0.1", "10.0.0.5"}))
MODEL = Model(
    "/m", folder="/m", model_type="qwen2_5_vl", bytes=16 * GIB, largest_shard_bytes=4 * GIB, max_pixels=12845056,
    pixels_per_token=784, max_model_len=128000, kind="ext4", free_bytes=100 * GIB, read_gb_s=3.0,
)  # fmt: skip
NODES = Nodes((Node("b:8000", "10.0.0.6", milliseconds=0.3, clock_seconds=0.2, vlfleet="0.1.0"),))
COPIES = tuple(Copy(a, b, True, 0, -1, 400.0) for a in range(4) for b in range(4) if a != b)
TRANSFERS = Transfers(COPIES, tuple(HostCopy(index, 0, 50.0, 50.0) for index in range(4)))
REDUCTIONS = Reductions(
    4, (Reduction(8192, 3e-5, 0.4, 0), Reduction(64 << 20, 4e-4, 250.0, 0)), transports={"P2P/CUMEM": 24}
)
ALL = (*(GPUS, KERNEL, PACKAGES, IMPORTS, HOST, DISKS, NETWORK, Environment({}), MODEL, NODES, TRANSFERS, REDUCTIONS),)
BY_NAME = {check.name: check for check in CHECKS}
NO_GPU = Missing("there is no GPU")


def server(*facts: object, without: tuple[type, ...] = ()) -> Known:
    """Four H200 on which all is well, but for `facts`; kinds in `without` are missing."""
    own = {type(fact): fact for fact in (*ALL, *facts) if type(fact) not in without}
    return Known(*own.values(), missing={kind: Missing("no answer within 5 s") for kind in without})


def laptop(*facts: object) -> Known:
    """No GPU, no vLLM; what is well there."""
    packages = Packages("/venv/bin/python", (3, 11), "", "vLLM is not installed", {"torch": "2.13.0+cpu"})
    host = replace(HOST, memory_bytes=16 * GIB, available_bytes=9 * GIB, cores=8, machine_cores=8, numa_nodes=1,
                   shm_bytes=8 * GIB, shm_free_bytes=8 * GIB, governor="powersave", governor_driver="intel_pstate",
                   infiniband=False, clock_synchronised=None)  # fmt: skip
    own = (Gpus(), Kernel(log_read=False), packages, Imports(), host, DISKS, NETWORK, Environment({}))
    missing = {Transfers: NO_GPU, Reductions: NO_GPU, Model: Missing("no --model was given", skipped=True),
               Nodes: Missing("no --nodes were given", skipped=True)}  # fmt: skip
    return Known(*own, *facts, missing=missing)


def env(**variables: str) -> Environment:
    return Environment(variables)


def copies(**changes: Any) -> Transfers:
    """Of the server, one copy changed."""
    return replace(TRANSFERS, copies=(replace(COPIES[0], **changes), *COPIES[1:]))


def gpus(index: int = 0, **changes: Any) -> Gpus:
    """Of the server, one GPU's state changed."""
    states = tuple(replace(each, **changes) if each.index == index else each for each in GPUS.states)
    return replace(GPUS, states=states)


def whole(index: int = 0, **changes: Any) -> Gpus:
    """Of the server, one GPU itself changed."""
    changed = tuple(replace(each, **changes) if each.index == index else each for each in MACHINE.gpus)
    return replace(GPUS, machine=replace(MACHINE, gpus=changed))


def pcie(**changes: Any) -> Gpus:
    """Four RTX 4090 under one host bridge."""
    cards = tuple(replace(each, name="NVIDIA GeForce RTX 4090", capability=(8, 9)) for each in MACHINE.gpus)
    machine = replace(MACHINE, gpus=cards, links=dict.fromkeys(PAIRS, Link.BRIDGE), peers=frozenset())
    states = tuple(replace(each, nvlinks=(), pcie_slot_generation=4, pcie_gpu_generation=4) for each in GPUS.states)
    return replace(GPUS, machine=replace(machine, **changes), states=states)


def finding(name: str, known: Known) -> Finding:
    """What the check of that name says."""
    (outcome,) = judge(known, [BY_NAME[name]])
    return outcome.finding
