"""The host or container: memory, processors, limits, clock."""

from __future__ import annotations

import ctypes
import os
import resource
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vlfleet.checkup.known import Known
from vlfleet.checkup.scene import Scene

UNLIMITED = -1
_UNSYNCHRONISED = 0x0040
"""STA_UNSYNC of adjtimex(2)."""


@dataclass(frozen=True)
class Host:
    """Bytes, counts and what the kernel is set to."""

    memory_bytes: int = 0
    """Of this machine, or the control group's limit where that is lower."""
    available_bytes: int = 0
    limited: bool = False
    """Whether it is a control group that limits the memory."""
    swap_bytes: int = 0
    swap_used_bytes: int = 0
    cores: int = 0
    """That this process may run on."""
    machine_cores: int = 0
    quota_cores: float | None = None
    """CPU time that the control group allows, in cores; None: no limit."""
    numa_nodes: int = 1
    numa_cores: Mapping[int, frozenset[int]] = field(default_factory=dict)
    affinity: frozenset[int] = frozenset()
    governor: str = ""
    governor_driver: str = ""
    pids_free: int | None = None
    """Processes and threads that the control group still allows; None: no limit."""
    shm_bytes: int = 0
    """Size of /dev/shm; 0: there is none."""
    shm_free_bytes: int = 0
    nofile: int = UNLIMITED
    """The hard limit of open files: whoever needs more than the soft one raises it up to there."""
    nproc: int = UNLIMITED
    memlock_bytes: int = UNLIMITED
    core_bytes: int = 0
    core_pattern: str = ""
    infiniband: bool = False
    """Whether there are RDMA devices."""
    container: str = ""
    """"docker", "kubernetes", ...; empty: none that shows."""
    clock_seconds: float = 0.0
    """Since 1970."""
    clock_synchronised: bool | None = None
    """Whether something steers the kernel's clock (NTP, PTP); None: it does not say."""


def gather(scene: Scene, _: Known) -> Host:
    """What the kernel says."""
    import psutil

    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    limit, used = _group_memory(scene)
    limited = limit is not None and limit < memory.total
    shm_bytes, shm_free = _space(scene.root / "dev/shm")
    nodes = _nodes(scene)
    cpu = "sys/devices/system/cpu/cpu0/cpufreq"
    affinity = frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else frozenset()
    return Host(
        memory_bytes=limit if limited and limit is not None else memory.total,
        available_bytes=min(memory.available, max(0, limit - used))
        if limited and limit is not None
        else memory.available,
        limited=limited,
        swap_bytes=swap.total,
        swap_used_bytes=swap.used,
        cores=len(affinity) or os.cpu_count() or 1,
        machine_cores=os.cpu_count() or 1,
        quota_cores=_quota(scene),
        numa_nodes=max(1, len(nodes)),
        numa_cores=nodes,
        affinity=affinity,
        governor=scene.read(f"{cpu}/scaling_governor"),
        governor_driver=scene.read(f"{cpu}/scaling_driver"),
        pids_free=_pids_free(scene),
        shm_bytes=shm_bytes,
        shm_free_bytes=shm_free,
        nofile=_limit(resource.RLIMIT_NOFILE),
        nproc=_limit(resource.RLIMIT_NPROC),
        memlock_bytes=_limit(resource.RLIMIT_MEMLOCK),
        core_bytes=_limit(resource.RLIMIT_CORE, soft=True),
        core_pattern=scene.read("proc/sys/kernel/core_pattern"),
        infiniband=(scene.root / "sys/class/infiniband").is_dir(),
        container=_container(scene),
        clock_seconds=time.time(),
        clock_synchronised=_synchronised(),
    )


def _group_memory(scene: Scene) -> tuple[int | None, int]:
    """The control group's limit and what is used of it, without cache that can be dropped."""
    for limit, used, cache in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        if (bytes_ := scene.number(f"sys/fs/cgroup/{limit}")) is not None:
            folder = f"sys/fs/cgroup/{limit.rpartition('/')[0]}".rstrip("/")
            lines = scene.read(f"{folder}/memory.stat").splitlines()
            dropped = next((int(line.split()[1]) for line in lines if line.startswith(f"{cache} ")), 0)
            return bytes_, max(0, (scene.number(f"sys/fs/cgroup/{used}") or 0) - dropped)
    return None, 0


def _quota(scene: Scene) -> float | None:
    words = scene.read("sys/fs/cgroup/cpu.max").split()
    if len(words) == 2 and words[0].isdecimal():
        return int(words[0]) / int(words[1])
    quota, period = (scene.number(f"sys/fs/cgroup/cpu/cpu.cfs_{name}_us") for name in ("quota", "period"))
    return quota / period if quota and period and quota > 0 else None


def _pids_free(scene: Scene) -> int | None:
    for folder in ("sys/fs/cgroup", "sys/fs/cgroup/pids"):
        if (most := scene.number(f"{folder}/pids.max")) is not None:
            return most - (scene.number(f"{folder}/pids.current") or 0)
    return None


def _nodes(scene: Scene) -> dict[int, frozenset[int]]:
    """The cores of each NUMA node."""
    folders = (scene.root / "sys/devices/system/node").glob("node[0-9]*")
    return {
        int(folder.name[4:]): cores_of(scene.read(f"sys/devices/system/node/{folder.name}/cpulist"))
        for folder in sorted(folders)
    }


def cores_of(text: str) -> frozenset[int]:
    """The kernel's lists: "0-3,8" is 0, 1, 2, 3, 8."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return frozenset(found)


def _limit(which: int, *, soft: bool = False) -> int:
    limits = resource.getrlimit(which)
    value = limits[0 if soft else 1]
    return UNLIMITED if value == resource.RLIM_INFINITY else value


def _space(folder: Path) -> tuple[int, int]:
    """Size and free bytes of the file system there; zeros where there is none."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return 0, 0
    return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize


def _container(scene: Scene) -> str:
    if scene.env.get("KUBERNETES_SERVICE_HOST"):
        return "kubernetes"
    if (scene.root / ".dockerenv").exists():
        return "docker"
    return "podman" if (scene.root / "run/.containerenv").exists() else scene.env.get("container", "")


class _Timex(ctypes.Structure):
    """struct timex of sys/timex.h, up to `status`; the rest is room."""

    _fields_ = (("modes", ctypes.c_uint), ("offset", ctypes.c_long), ("freq", ctypes.c_long),
                ("maxerror", ctypes.c_long), ("esterror", ctypes.c_long), ("status", ctypes.c_int),
                ("rest", ctypes.c_byte * 256))  # fmt: skip


def _synchronised() -> bool | None:
    """By adjtimex(2), which asks and changes nothing here."""
    try:
        timex = _Timex()
        state = ctypes.CDLL(None).adjtimex(ctypes.byref(timex))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else not timex.status & _UNSYNCHRONISED
