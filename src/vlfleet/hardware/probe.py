"""Asks NVIDIA's management library (NVML) and the kernel what this machine has."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from itertools import combinations
from pathlib import Path
from typing import Any

from vlfleet.errors import VlfleetError
from vlfleet.hardware.machine import Gpu, GpuProcess, Link, Machine, Pair

_P2P_READ, _P2P_WRITE, _P2P_NVLINK = 0, 1, 2
"""nvmlGpuP2PCapsIndex_t. nvidia-ml-py has a stray comma after READ, so its constant is a tuple that ctypes refuses."""


def probe(root: Path = Path("/")) -> Machine:
    """This machine; without GPUs where there is no GPU, no driver or no NVML. `root` holds dev, proc and sys.

    A few hundred questions to the driver, none of which waits for a program on the GPU; the driver may first have to
    wake its GPUs, which persistence mode (nvidia-smi -pm 1) avoids.

    Raises:
        VlfleetError: there are GPUs, but the driver cannot be used.
    """
    host_memory_bytes, cores = _host_memory_bytes(root), _cores()
    nvml = _start(root)
    if nvml is None:
        return Machine(host_memory_bytes=host_memory_bytes, cores=cores)
    try:
        gpus, handles = _gpus(nvml, root)
        links: dict[Pair, Link] = {}
        peers = set()
        for (one, a), (other, b) in combinations(handles.items(), 2):
            pair = frozenset((one, other))
            links[pair] = _link(nvml, (gpus[one], a), (gpus[other], b))
            if _are_peers(nvml, a, b, links[pair]):
                peers.add(pair)
        cuda = _ask(nvml, 0, nvml.nvmlSystemGetCudaDriverVersion_v2)
        return Machine(
            gpus=gpus,
            links=links,
            peers=frozenset(peers),
            driver_version=_ask(nvml, "", nvml.nvmlSystemGetDriverVersion),
            cuda_version=f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else "",
            host_memory_bytes=host_memory_bytes,
            cores=cores,
        )
    finally:
        with suppress(nvml.NVMLError):
            nvml.nvmlShutdown()


def _start(root: Path) -> Any | None:
    """NVML, ready to be asked, or None where there is nothing to ask about."""
    try:
        import pynvml  # type: ignore[import-untyped]
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError_LibRmVersionMismatch:
        cause = "the NVIDIA driver that runs and its libraries are of different versions"
        reload = "sudo rmmod nvidia_uvm nvidia_drm nvidia_modeset nvidia && sudo modprobe nvidia_uvm"
        raise VlfleetError(cause, f"reboot, or end what uses the GPUs and reload it: {reload}") from None
    except pynvml.NVMLError_LibraryNotFound:
        return None
    except pynvml.NVMLError as error:
        if not any((root / "dev").glob("nvidia*")):
            return None
        if isinstance(error, pynvml.NVMLError_DriverNotLoaded):
            cause = "/dev has NVIDIA devices, but the driver is not loaded"
            raise VlfleetError(cause, "sudo modprobe nvidia_uvm, or reboot; then nvidia-smi must work") from None
        cause = f"the NVIDIA driver cannot be asked: {error}"
        raise VlfleetError(cause, "see what nvidia-smi says as this user, and `sudo dmesg | grep NVRM`") from None
    return pynvml


def _ask(nvml: Any, default: Any, question: Callable[..., Any], *args: Any) -> Any:
    """The answer, or `default` where this GPU, driver or user gets none."""
    try:
        return question(*args)
    except (nvml.NVMLError, nvml.NVMLLibraryMismatchError):
        return default


def _gpus(nvml: Any, root: Path) -> tuple[tuple[Gpu, ...], dict[int, Any]]:
    """All GPUs, and NVML's handles of those that answer, by index."""
    gpus, handles = [], {}
    for index in range(_ask(nvml, 0, nvml.nvmlDeviceGetCount)):
        try:
            handles[index] = nvml.nvmlDeviceGetHandleByIndex(index)
        except nvml.NVMLError as error:
            gpus.append(Gpu(index, "", "NVIDIA GPU", 0, 0, (0, 0), fault=str(error)))
        else:
            gpus.append(_gpu(nvml, index, handles[index], root))
    return tuple(gpus), handles


def _gpu(nvml: Any, index: int, handle: Any, root: Path) -> Gpu:
    memory_bytes, free_bytes, fault = _memory(nvml, handle)
    pci = _ask(nvml, None, nvml.nvmlDeviceGetPciInfo, handle)
    pci_bus_id = _bus_id(pci) if pci else ""
    current_mig, _ = _ask(nvml, (0, 0), nvml.nvmlDeviceGetMigMode, handle)
    return Gpu(
        index=index,
        uuid=_ask(nvml, "", nvml.nvmlDeviceGetUUID, handle),
        name=_ask(nvml, "NVIDIA GPU", nvml.nvmlDeviceGetName, handle),
        memory_bytes=memory_bytes,
        free_bytes=free_bytes,
        capability=_ask(nvml, (0, 0), nvml.nvmlDeviceGetCudaComputeCapability, handle),
        numa_node=_numa_node(root, pci_bus_id),
        pci_bus_id=pci_bus_id,
        mig=current_mig == nvml.NVML_DEVICE_MIG_ENABLE,
        processes=_processes(nvml, handle, root),
        fault=fault,
    )


def _memory(nvml: Any, handle: Any) -> tuple[int, int, str]:
    """All, free, and why it is not known.

    A board that shares the CPU's memory has none of its own to tell about (GB10: NVML_ERROR_NOT_SUPPORTED).
    """
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        if memory.total:
            return int(memory.total), int(memory.free), ""
    except nvml.NVMLError_NotSupported:
        pass
    except nvml.NVMLError as error:
        return 0, 0, str(error)
    import psutil

    host = psutil.virtual_memory()
    return host.total, host.available, ""


def _processes(nvml: Any, handle: Any, root: Path) -> tuple[GpuProcess, ...]:
    """Who holds memory: for computing, for a screen, and through CUDA's multi-process service.

    In a container the driver may hide those of others, or tell their pids as the host counts.
    """
    held: dict[int, int | None] = {}
    for question in (
        nvml.nvmlDeviceGetComputeRunningProcesses,
        nvml.nvmlDeviceGetGraphicsRunningProcesses,
        nvml.nvmlDeviceGetMPSComputeRunningProcesses,
    ):
        for process in _ask(nvml, (), question, handle):
            held[process.pid] = max((held.get(process.pid), process.usedGpuMemory), key=lambda known: known or 0)
    most_first = sorted(held.items(), key=lambda item: (-(item[1] or 0), item[0]))
    return tuple(GpuProcess(pid, _process_name(root, pid), memory_bytes) for pid, memory_bytes in most_first)


def _process_name(root: Path, pid: int) -> str:
    """From the kernel's `comm`: psutil also reads longer names' command lines, which blocks on a process that hangs."""
    try:
        return (root / "proc" / str(pid) / "comm").read_text(errors="replace").strip()
    except OSError:
        return ""


def _bus_id(pci: Any) -> str:
    return f"{pci.domain:04x}:{pci.bus:02x}:{pci.device:02x}.0"


def _numa_node(root: Path, pci_bus_id: str) -> int | None:
    """The kernel's answer; -1, which a machine with one node or an incomplete BIOS gives, is None."""
    try:
        node = int((root / "sys/bus/pci/devices" / pci_bus_id / "numa_node").read_text())
    except (OSError, ValueError):
        return None
    return node if node >= 0 else None


def _link(nvml: Any, one: tuple[Gpu, Any], other: tuple[Gpu, Any]) -> Link:
    """NVLink as vLLM sees it (`is_fully_connected` in platforms/cuda.py), else how near they are on PCIe."""
    (gpu, handle), (other_gpu, other_handle) = one, other
    nvlink = _p2p(nvml, handle, other_handle, _P2P_NVLINK)
    if nvlink is None:
        nvlink = other_gpu.pci_bus_id in _nvlink_neighbours(nvml, handle)
    if nvlink:
        return Link.NVLINK
    unknown = Link.NODE if gpu.numa_node is not None and gpu.numa_node == other_gpu.numa_node else Link.SYSTEM
    nearest = {
        nvml.NVML_TOPOLOGY_INTERNAL: Link.SWITCH,
        nvml.NVML_TOPOLOGY_SINGLE: Link.SWITCH,
        nvml.NVML_TOPOLOGY_MULTIPLE: Link.SWITCH,
        nvml.NVML_TOPOLOGY_HOSTBRIDGE: Link.BRIDGE,
        nvml.NVML_TOPOLOGY_NODE: Link.NODE,
        nvml.NVML_TOPOLOGY_SYSTEM: Link.SYSTEM,
    }
    return nearest.get(_ask(nvml, None, nvml.nvmlDeviceGetTopologyCommonAncestor, handle, other_handle), unknown)


def _are_peers(nvml: Any, handle: Any, other: Any, link: Link) -> bool:
    """Whether both can be read and written; where the driver does not say, NVLink is taken for a yes."""
    answers = [_p2p(nvml, handle, other, what) for what in (_P2P_READ, _P2P_WRITE)]
    return all(link is Link.NVLINK if answer is None else answer for answer in answers)


def _p2p(nvml: Any, handle: Any, other: Any, what: int) -> bool | None:
    """Whether the driver lets these two do `what`; None when it does not say."""
    status = _ask(nvml, nvml.NVML_P2P_STATUS_UNKNOWN, nvml.nvmlDeviceGetP2PStatus, handle, other, what)
    return None if status == nvml.NVML_P2P_STATUS_UNKNOWN else bool(status == nvml.NVML_P2P_STATUS_OK)


def _nvlink_neighbours(nvml: Any, handle: Any) -> set[str]:
    """PCI bus ids of what hangs on this GPU's active NVLinks; behind NVSwitch these are the switches, not the GPUs."""
    found = set()
    for link in range(nvml.NVML_NVLINK_MAX_LINKS):
        state = _ask(nvml, None, nvml.nvmlDeviceGetNvLinkState, handle, link)
        if state is None:  # no such link
            break
        if state == nvml.NVML_FEATURE_ENABLED:
            remote = _ask(nvml, None, nvml.nvmlDeviceGetNvLinkRemotePciInfo, handle, link)
            found |= {_bus_id(remote)} if remote else set()
    return found


def _host_memory_bytes(root: Path) -> int:
    """The machine's memory, or the limit of the container's control group where that is lower."""
    import psutil

    limits = [int(psutil.virtual_memory().total)]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # absent, or "max"
            limits.append(int((root / "sys/fs/cgroup" / name).read_text()))
    return min(limits)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
