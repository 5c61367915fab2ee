"""What the kernel and the container allow: shared memory, files, processes, locked memory."""

from __future__ import annotations

from vlfleet.checkup.check import Check, Finding, Group, fail, none, risk, well
from vlfleet.checkup.checks.host import replicas
from vlfleet.checkup.checks.when import gib
from vlfleet.checkup.facts.gpus import Gpus
from vlfleet.checkup.facts.host import UNLIMITED, Host
from vlfleet.checkup.facts.model import Model
from vlfleet.checkup.facts.packages import Packages
from vlfleet.checkup.known import Known
from vlfleet.plan.flags import GPU_MEMORY_UTILIZATION
from vlfleet.plan.host import QUEUE_BYTES

NCCL_BYTES = 32 << 20
"""Of a rank, for what NCCL passes through /dev/shm where GPUs are no peers: 9.6 MB a channel pair, a few of them
(NCCL_SHM, the sizes in vllm-project/vllm#1710)."""
GATEWAY_FILES = 2 * 16_384 + 64
"""Descriptors of a gateway with all of its connections (gateway/connection.py)."""
LEAST_FILES = 4096
"""1,000 requests at once and what else a process opens; vLLM's own advice is 65,535."""
PROCESSES_OF_REPLICA = 512
"""Threads and processes of an engine: assumed, of a machine with 64 cores."""


def _shared_memory(known: Known) -> Finding:
    host, gpus = known[Host], known[Gpus].whole
    if not host.shm_bytes:
        return none("there is no /dev/shm")
    saw = f"{gib(host.shm_bytes)} of shared memory (/dev/shm), {gib(host.shm_free_bytes)} free"
    numbers = {"bytes": host.shm_bytes, "free_bytes": host.shm_free_bytes}
    ranks = len(gpus)
    if ranks < 2:
        return well(f"{saw}; one rank needs next to none", **numbers)
    needed = QUEUE_BYTES * (ranks + 1) + NCCL_BYTES * ranks
    numbers["needed_bytes"] = needed
    if host.shm_bytes < needed:
        # with one GPU a replica nothing of it is used
        model, memory = known.get(Model), min(gpu.memory_bytes for gpu in gpus)
        certain = model is not None and model.bytes > GPU_MEMORY_UTILIZATION * memory
        return (fail if certain else risk)(
            f"{saw}; tensor parallelism over {ranks} GPUs needs {gib(needed)}", **numbers
        )
    if host.shm_free_bytes < needed:
        remedy = "ls -la /dev/shm: what crashed engines left (nccl-*, psm_*, vllm_*) may be removed when none runs"
        return risk(f"{saw}; tensor parallelism over {ranks} GPUs needs {gib(needed)}", remedy, **numbers)
    return well(saw, **numbers)


def _open_files(known: Known) -> Finding:
    limit = known[Host].nofile
    saw = f"{'any number of' if limit == UNLIMITED else f'{limit:,}'} open files a process"
    if limit != UNLIMITED and limit < LEAST_FILES:
        return risk(f"{saw}: {max(16, (limit - 64) // 2):,} connections of a gateway", nofile=limit)
    if limit != UNLIMITED and limit < GATEWAY_FILES:
        return well(f"{saw}: {(limit - 64) // 2:,} connections of a gateway at most", nofile=limit)
    return well(saw, nofile=limit)


def _processes(known: Known) -> Finding:
    host = known[Host]
    limits = [limit for limit in (host.nproc, host.pids_free) if limit is not None and limit != UNLIMITED]
    if not limits:
        return well("no limit of processes")
    left, wanted = min(limits), PROCESSES_OF_REPLICA * (replicas(known) if known[Packages].vllm else 1)
    saw = f"{left:,} processes and threads allowed"
    return (risk if left < wanted else well)(saw, allowed=left, wanted=wanted)


def _locked_memory(known: Known) -> Finding:
    host = known[Host]
    if not host.infiniband:
        return none("no RDMA device: nothing needs locked memory")
    if host.memlock_bytes == UNLIMITED:
        return well("locked memory without a limit, for RDMA")
    return risk(
        f"{gib(host.memlock_bytes)} of locked memory at most, and RDMA devices that need all",
        memlock=host.memlock_bytes,
    )


def _core_dumps(known: Known) -> Finding:
    host = known[Host]
    if host.core_bytes == 0:
        return well("no core dumps")
    where = host.core_pattern or "core"
    if host.core_pattern.startswith("|"):
        return well(f"core dumps go to {where.split()[0][1:]}")
    return risk(f"core dumps are written as {where}: an engine's can be as large as its memory", pattern=where)


CHECKS = (
    Check("shared-memory", Group.LIMITS, _shared_memory,
          "Ranks of tensor parallelism talk through /dev/shm; docker gives a container 64 MiB of it.",
          "docker run --ipc=host, or --shm-size=10g; in Kubernetes an emptyDir of medium Memory on /dev/shm",
          source="vllm-project/vllm#1710, #789; plan/host.py"),
    Check("open-files", Group.LIMITS, _open_files,
          "A request takes two descriptors of the gateway; without one it is refused.",
          "ulimit -n 65535, LimitNOFILE=65535 (systemd), --ulimit nofile=65535 (docker)",
          source="gateway/connection.py"),
    Check("processes", Group.LIMITS, _processes,
          "Where no thread can be made, engines die with `can't start new thread` or of OpenBLAS.",
          "--pids-limit -1 (docker), TasksMax=infinity (systemd), ulimit -u unlimited"),
    Check("locked-memory", Group.LIMITS, _locked_memory,
          "RDMA registers memory that may not move; NCCL between nodes fails with `ibv_reg_mr`.",
          "ulimit -l unlimited, LimitMEMLOCK=infinity (systemd), --ulimit memlock=-1 (docker)",
          source="NVIDIA NCCL user guide, troubleshooting"),
    Check("core-dumps", Group.LIMITS, _core_dumps,
          "A dump of an engine fills a disk and takes minutes, during which it cannot be started again.",
          "ulimit -c 0"),
)  # fmt: skip
