"""Memory, cores and limits, as the kernel and control groups tell them."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlfleet.checkup.facts.host import Host, cores_of, gather
from vlfleet.checkup.known import Known
from vlfleet.checkup.scene import Scene


def put(root: Path, files: dict[str, str]) -> Host:
    for path, text in files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    return gather(Scene(root, {}), Known())


def test_this_machine() -> None:
    found = gather(Scene(), Known())
    assert 0 < found.available_bytes <= found.memory_bytes <= psutil.virtual_memory().total
    assert 1 <= found.cores <= found.machine_cores
    assert abs(found.clock_seconds - time.time()) < 60
    assert found.shm_bytes >= found.shm_free_bytes >= 0
    assert found.nofile == -1 or found.nofile > 100


def test_a_container_of_control_groups_2(tmp_path: Path) -> None:
    group = "sys/fs/cgroup"
    files = {
        "memory.max": "1000000000",
        "memory.current": "700000000",
        "memory.stat": "anon 5\ninactive_file 200000000",
        "cpu.max": "150000 100000",
        "pids.max": "1000",
        "pids.current": "123",
    }
    found = put(tmp_path, {f"{group}/{name}": text for name, text in files.items()})
    assert (found.memory_bytes, found.available_bytes, found.limited) == (1_000_000_000, 500_000_000, True)
    assert (found.quota_cores, found.pids_free) == (1.5, 877)


def test_a_container_of_control_groups_1(tmp_path: Path) -> None:
    group = "sys/fs/cgroup"
    files = {"memory/memory.limit_in_bytes": "1000000000", "memory/memory.usage_in_bytes": "700000000",
             "memory/memory.stat": "total_inactive_file 100000000", "cpu/cpu.cfs_quota_us": "400000",
             "cpu/cpu.cfs_period_us": "100000", "pids/pids.max": "50", "pids/pids.current": "10"}  # fmt: skip
    found = put(tmp_path, {f"{group}/{name}": text for name, text in files.items()})
    assert (found.memory_bytes, found.available_bytes) == (1_000_000_000, 400_000_000)
    assert (found.quota_cores, found.pids_free) == (4.0, 40)


def test_limits_that_are_none(tmp_path: Path) -> None:
    files = {"memory.max": "max", "cpu.max": "max 100000", "pids.max": "max"}
    found = put(tmp_path, {f"sys/fs/cgroup/{name}": text for name, text in files.items()})
    assert (found.limited, found.quota_cores, found.pids_free) == (False, None, None)
    assert put(tmp_path, {"sys/fs/cgroup/memory.max": str(1 << 60)}).limited is False


def test_numa_and_clocks(tmp_path: Path) -> None:
    cpu = "sys/devices/system/cpu/cpu0/cpufreq"
    found = put(
        tmp_path,
        {
            "sys/devices/system/node/node0/cpulist": "0-3,8-11",
            "sys/devices/system/node/node1/cpulist": "4-7",
            f"{cpu}/scaling_governor": "powersave",
            f"{cpu}/scaling_driver": "acpi-cpufreq",
            "proc/sys/kernel/core_pattern": "|/usr/bin/apport",
            ".dockerenv": "",
        },
    )
    assert found.numa_cores == {0: frozenset({0, 1, 2, 3, 8, 9, 10, 11}), 1: frozenset({4, 5, 6, 7})}
    assert (found.numa_nodes, found.governor, found.governor_driver) == (2, "powersave", "acpi-cpufreq")
    assert (found.core_pattern, found.container) == ("|/usr/bin/apport", "docker")


@pytest.mark.parametrize(("env", "container"), [({"KUBERNETES_SERVICE_HOST": "x"}, "kubernetes"), ({}, "")])
def test_the_container(env: dict[str, str], container: str, tmp_path: Path) -> None:
    assert gather(Scene(tmp_path, env), Known()).container == container


@given(st.sets(st.integers(0, 300)))
def test_lists_of_cores(cores: set[int]) -> None:
    assert cores_of(",".join(map(str, sorted(cores)))) == cores
    runs: list[list[int]] = []
    for core in sorted(cores):
        if runs and runs[-1][1] == core - 1:
            runs[-1][1] = core
        else:
            runs.append([core, core])
    assert cores_of(",".join(f"{first}-{last}" for first, last in runs)) == cores
