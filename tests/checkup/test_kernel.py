"""What /proc, /sys and the kernel's log tell."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlfleet.checkup.command import Ran
from vlfleet.checkup.facts import kernel
from vlfleet.checkup.facts.kernel import Kernel, acs_control, killed, xids
from vlfleet.checkup.known import Known
from vlfleet.checkup.scene import Scene

LOG = """\
[    9.1] nvidia-nvlink: Nvlink Core is being initialized, major device number 234
[  812.0] NVRM: Xid (PCI:0000:1b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.
[  813.0] NVRM: Xid (PCI:0000:1b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.
[  900.5] NVRM: Xid (PCI:0000:2b:00): 31, pid=88, name=python, Ch 00000008, intr 10000000. MMU Fault
[ 1000.0] oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),global_oom,task_memcg=/,task=python,pid=4711,uid=0
[ 1000.1] Out of memory: Killed process 4711 (VLLM::EngineCor) total-vm:88kB, anon-rss:77kB, UID:0 pgtables:1kB
[ 1002.0] Memory cgroup out of memory: Killed process 4712 (python3) total-vm:88kB
"""


DEVICES = (
    ("0000:00:01.0", "0x8086", "0x060400"),
    ("0000:1b:00.0", "0x10de", "0x030200"),
    ("0000:1b:00.1", "0x10de", "0x040300"),
    ("0000:0a:00.0", "0x10de", "0x068000"),
)
"""A bridge, a GPU, its sound card, an NVSwitch."""


def put(root: Path, path: str, text: str | bytes) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode() if isinstance(text, str) else text)


def space(control: int) -> bytes:
    """A configuration space whose second extended capability is ACS."""
    config = bytearray(4096)
    struct.pack_into("<I", config, 0x100, 0x0001 | 1 << 16 | 0x140 << 20)
    struct.pack_into("<IHH", config, 0x140, 0x000D | 1 << 16, 0, control)
    return bytes(config)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """One GPU behind one bridge, and an NVSwitch."""
    bridge = "sys/devices/pci0000:00/0000:00:01.0"
    put(tmp_path, f"{bridge}/config", space(0x1D))
    for address, vendor, kind in DEVICES:
        folder = bridge if address == "0000:00:01.0" else f"{bridge}/{address}"
        put(tmp_path, f"{folder}/vendor", vendor)
        put(tmp_path, f"{folder}/class", kind)
        link = tmp_path / "sys/bus/pci/devices" / address
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(tmp_path / folder)
    put(tmp_path, "proc/modules", "nvidia 1 2 - Live 0x0\nnouveau 1 2 - Live 0x0\n")
    version = (
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build\nGCC version: gcc 12\n"
    )
    put(tmp_path, "proc/driver/nvidia/version", version)
    put(tmp_path, "proc/77/comm", "nv-fabricmanage\n")
    put(tmp_path, "proc/cpuinfo", "processor : 0\nflags : fpu sse\n")
    put(tmp_path, "sys/kernel/iommu_groups/0/type", "DMA-FQ\n")
    for name in ("nvidia0", "nvidiactl", "nvidia-uvm", "kfd"):
        put(tmp_path, f"dev/{name}", "")
    return tmp_path


def gather(root: Path, monkeypatch: pytest.MonkeyPatch, log: str | None = LOG) -> Kernel:
    answers = {"dmesg": Ran(log or "", "", 0 if log else 1), "journalctl": Ran("", "", 1)}
    monkeypatch.setattr(kernel, "run", lambda argv, *, seconds: answers[argv[0]])
    return kernel.gather(Scene(root), Known())


def test_a_machine_with_a_gpu(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = gather(root, monkeypatch)
    assert found == Kernel(
        nvidia_devices=("0000:1b:00.0",),
        nvswitches=1,
        module="580.159.04",
        open_module=True,
        nouveau=True,
        device_nodes=("nvidia-uvm", "nvidia0", "nvidiactl"),
        kfd=True,
        fabric_manager=True,
        iommu="DMA-FQ",
        acs=("0000:00:01.0",),
        xids={"0000:1b:00": {79: 2}, "0000:2b:00": {31: 1}},
        killed=("VLLM::EngineCor", "python3"),
        log_read=True,
    )


def test_a_bridge_that_redirects_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = root / "sys/bus/pci/devices/0000:00:01.0/config"
    config.write_bytes(space(0x01))
    assert gather(root, monkeypatch).acs == ()
    config.write_bytes(space(0x1D)[:64])  # what anybody but root reads
    assert gather(root, monkeypatch).acs is None


def test_the_closed_driver_and_a_log_that_is_closed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(root, "proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5\n")
    put(root, "proc/cpuinfo", "flags : fpu hypervisor sse\n")
    found = gather(root, monkeypatch, log=None)
    assert (found.module, found.open_module, found.virtual) == ("550.54.15", False, True)
    assert (found.log_read, found.xids, found.killed) == (False, {}, ())


def test_an_empty_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert gather(tmp_path, monkeypatch, log=None) == Kernel()


def test_this_machine() -> None:
    found = kernel.gather(Scene(), Known())
    assert isinstance(found.virtual, bool)


@given(st.binary(max_size=600))
def test_no_configuration_space_makes_it_loop_or_fail(config: bytes) -> None:
    assert 0 <= acs_control(config) < 1 << 16


@given(st.lists(st.text(max_size=80), max_size=20))
def test_no_log_makes_it_fail(lines: list[str]) -> None:
    assert all(count > 0 for of in xids(lines).values() for count in of.values())
    assert all(isinstance(name, str) for name in killed(lines))
