"""The host: memory, processors, clock."""

from __future__ import annotations

import math
import time

from vlfleet.checkup.check import Check, Finding, Group, fail, none, risk, slow, unknown, well
from vlfleet.checkup.checks.when import gib, named, times, with_gpus
from vlfleet.checkup.facts.gpus import Gpus
from vlfleet.checkup.facts.host import Host
from vlfleet.checkup.facts.kernel import Kernel
from vlfleet.checkup.facts.nodes import Nodes
from vlfleet.checkup.facts.packages import Packages
from vlfleet.checkup.known import Known
from vlfleet.plan.flags import MM_PROCESSOR_CACHE_GB, Flags, Sizes
from vlfleet.plan.host import host_memory

_SIZES = Sizes(max_model_len=32768, max_num_seqs=256, max_num_batched_tokens=8192)
"""Of an engine whose host memory is estimated; the plan of a real one knows its own."""
CORES_OF_REPLICA = 2
"""Its API server and its engine core are each busy on one (both loops spin while requests run)."""
CORES_OF_GATEWAY = 1
BUILT = time.mktime((2026, 1, 1, 0, 0, 0, 0, 1, 0))
"""No clock that is right shows an earlier time."""
_SWAPPED = 0.1
_ENGINES = ("python", "vllm", "pt_main_thread", "ray::")
"""Beginnings of the names under which the kernel knows engines; what else it ended is another program's affair."""
_PSTATE = ("intel_pstate", "amd-pstate", "amd-pstate-epp", "intel_cpufreq")
"""Drivers whose `powersave` still raises the clocks under load."""


def replicas(known: Known) -> int:
    """One for each GPU; on a CPU what `vlfleet up` starts with vLLM."""
    gpus = known.get(Gpus)
    return len(gpus.whole) if gpus and gpus.whole else 2


def _memory(known: Known) -> Finding:
    host = known[Host]
    where = "container" if host.limited else "host"
    saw = f"{gib(host.available_bytes)} of {gib(host.memory_bytes)} free in this {where}"
    numbers = {"available_bytes": host.available_bytes, "memory_bytes": host.memory_bytes}
    if not known[Packages].vllm:
        return well(saw, **numbers)
    count = replicas(known)
    terms = {term.name: count * term.bytes for term in host_memory(Flags(), _SIZES)}
    needed, caches = sum(terms.values()), terms.get("processor cache", 0)
    numbers |= {"replicas": count, "needed_bytes": needed, "caches_bytes": caches}
    saw += f"; {count} replicas take {gib(needed - caches)}, and {gib(caches)} of caches once they are full"
    if needed - caches > host.available_bytes:
        return fail(saw, "fewer replicas, or a container with more memory", **numbers)
    if needed > host.available_bytes:
        each = (host.available_bytes - (needed - caches)) / count / 2 / 2**30
        fits = max(0.0, min(MM_PROCESSOR_CACHE_GB, math.floor(each * 10) / 10))
        return risk(saw, f"--mm-processor-cache-gb {fits:g}: each replica keeps two such caches", **numbers)
    return well(saw, **numbers)


def _swap(known: Known) -> Finding:
    host = known[Host]
    if not host.swap_bytes:
        return well("no swap")
    saw = f"{gib(host.swap_used_bytes)} of {gib(host.swap_bytes)} of swap in use"
    used = host.swap_used_bytes > _SWAPPED * host.memory_bytes
    return (slow if used else well)(saw, swap_used_bytes=host.swap_used_bytes)


def _killed(known: Known) -> Finding:
    kernel = known[Kernel]
    if not kernel.log_read:
        return unknown("the kernel's log may not be read by this user (sudo dmesg)")
    if not kernel.killed:
        return well("the kernel has ended nothing for want of memory since the start")
    engines = [name for name in kernel.killed if name.lower().startswith(_ENGINES)]
    names = ", ".join(f"{name} ({times(kernel.killed.count(name))})" for name in dict.fromkeys(kernel.killed))
    saw = f"since the start the kernel has ended for want of memory: {names[:200]}"
    return (risk if engines else well)(saw, killed=list(kernel.killed))


def _processors(known: Known) -> Finding:
    host, packages = known[Host], known[Packages]
    usable = min(host.cores, host.quota_cores or host.cores)
    limits = []
    if host.cores < host.machine_cores:
        limits.append(f"{host.cores} by affinity")
    if host.quota_cores and host.quota_cores < host.cores:
        limits.append(f"{host.quota_cores:g} by the container's quota")
    saw = f"{host.machine_cores} cores" + (f", of which {' and '.join(limits)}" if limits else "")
    gpus = len(known[Gpus].whole)
    if not gpus or not packages.vllm:
        return well(saw, cores=usable)
    wanted = gpus * CORES_OF_REPLICA + CORES_OF_GATEWAY
    numbers = {"cores": usable, "wanted": wanted}
    if usable < wanted:
        saw += f"; {gpus} replicas and a gateway want {wanted}"
        return slow(saw, "more cores for this container, or fewer replicas: pictures are read on the CPU", **numbers)
    return well(saw, **numbers)


def _governor(known: Known) -> Finding:
    host = known[Host]
    if not host.governor:
        return none("the clocks are not set from here (a virtual machine, or fixed)")
    if host.governor == "powersave" and host.governor_driver not in _PSTATE:
        return slow(f"governor powersave ({host.governor_driver}): the clocks stay at their lowest")
    return well(f"governor {host.governor} ({host.governor_driver})")


@with_gpus()
def _numa(known: Known) -> Finding:
    host, gpus = known[Host], known[Gpus].whole
    if host.numa_nodes < 2:
        return well("one NUMA node")
    away = [
        gpu.index for gpu in gpus
        if gpu.numa_node is not None and not host.numa_cores.get(gpu.numa_node, frozenset()) & host.affinity
    ]  # fmt: skip
    nodes = {gpu.index: gpu.numa_node for gpu in gpus}
    if away:
        return slow(f"{named(away)} on a NUMA node none of whose cores this process may use", nodes=nodes)
    return well(f"{host.numa_nodes} NUMA nodes, each with cores for its GPUs", nodes=nodes)


def _clock(known: Known) -> Finding:
    host = known[Host]
    day = time.strftime("%Y-%m-%d", time.gmtime(host.clock_seconds))
    if host.clock_seconds < BUILT:
        return fail(f"the clock says {day}", "sudo timedatectl set-ntp true, or set it: certificates are refused")
    if host.clock_synchronised is False:
        saw = f"nothing steers the clock ({day} UTC)"
        if known.get(Nodes) is None:
            return well(f"{saw}; it matters between nodes alone", synchronised=False)
        return risk(saw, synchronised=False)
    return well(
        f"{'synchronised' if host.clock_synchronised else 'set'}, {day} UTC", synchronised=host.clock_synchronised
    )


CHECKS = (
    Check("host-memory", Group.HOST, _memory,
          "Each replica keeps pictures in host memory (mm_processor_cache_gb, twice) beside its processes; without"
          " room the kernel ends one.",
          "--mm-processor-cache-gb less, or fewer replicas", source="plan/host.py; vllm-project/vllm#35191, PR #15357"),
    Check("swap", Group.HOST, _swap,
          "An engine that is swapped out answers in seconds instead of milliseconds.",
          "free memory, then sudo swapoff -a && sudo swapon -a"),
    Check("killed-for-memory", Group.HOST, _killed,
          "An engine that the kernel ends leaves no line in its log.",
          "`sudo dmesg -T | grep -i 'out of memory'` tells when; --mm-processor-cache-gb less, or fewer replicas"),
    Check("processors", Group.HOST, _processors,
          "Pictures are decoded and resized on the CPU: without a core for it the GPU waits.",
          "more cores for this container", source="vllm-project/vllm#15869, #21873, #9238"),
    Check("governor", Group.HOST, _governor,
          "Between two steps of a GPU the CPU must answer at once.",
          "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"),
    Check("numa", Group.HOST, _numa,
          "Pictures and weights that come from the other socket's memory arrive slower.",
          "give this process cores of that node (numactl, the container's cpuset)"),
    Check("clock", Group.HOST, _clock,
          "Certificates, keys that end, and figures of several nodes need the right time.",
          "sudo timedatectl set-ntp true, or chrony"),
)  # fmt: skip
