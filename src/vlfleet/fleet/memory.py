"""Whether the kernel killed something for want of memory: SIGKILL alone does not say who sent it."""

from __future__ import annotations

from pathlib import Path

_CGROUP_EVENTS = Path("/sys/fs/cgroup/memory.events")
_VMSTAT = Path("/proc/vmstat")


def oom_kills(files: tuple[Path, ...] = (_CGROUP_EVENTS, _VMSTAT)) -> int:
    """How many processes the kernel has killed so far because memory ran out, here or on the machine.

    The count matters only against an earlier one; 0 where the kernel does not tell.
    """
    total = 0
    for file in files:
        try:
            lines = file.read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    return total
