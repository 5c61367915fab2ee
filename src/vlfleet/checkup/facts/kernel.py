"""What the kernel says of NVIDIA's driver, of the PCI bus, and of errors that GPUs reported."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vlfleet.checkup.command import run
from vlfleet.checkup.known import Known
from vlfleet.checkup.scene import Scene

_NVIDIA, _AMD = "0x10de", "0x1002"
_DISPLAY, _ACCELERATOR, _BRIDGE, _SWITCH = "0x03", "0x12", "0x0604", "0x0680"
"""Beginnings of PCI classes: display controller, processing accelerator, PCI bridge, other bridge (NVSwitch)."""
_ACS = 0x000D
"""PCIe extended capability: access control services (PCI Express base specification, 7.7.11)."""
_REDIRECT = 0x04 | 0x08
"""ACS control: P2P request redirect and completion redirect: what GPUs say to each other goes up to the root."""
_XID = re.compile(r"NVRM: Xid \(PCI:([0-9a-fA-F:.]+)\): (\d+)")
_OOM = re.compile(r"[Oo]ut of memory: Killed process \d+ \(([^)]*)\)")
"""Of the machine, and of a control group."""
_LOG_SECONDS = 3.0


@dataclass(frozen=True)
class Kernel:
    """Facts of /proc, /sys, /dev and the kernel's log."""

    nvidia_devices: tuple[str, ...] = ()
    """PCI addresses of NVIDIA's GPUs, whether or not a driver has them."""
    amd_devices: tuple[str, ...] = ()
    nvswitches: int = 0
    """NVSwitches that this machine sees: in a virtual machine they mostly stay with its host."""
    module: str = ""
    """Version of the NVIDIA kernel module that is loaded; empty: none."""
    open_module: bool = False
    nouveau: bool = False
    device_nodes: tuple[str, ...] = ()
    """nvidia0, nvidiactl, nvidia-uvm, ... in /dev."""
    kfd: bool = False
    """AMD's /dev/kfd."""
    fabric_manager: bool = False
    """Whether a process of this name runs."""
    iommu: str = ""
    """Of the first group: "DMA" or "DMA-FQ" translate, "identity" does not; empty: no IOMMU in use."""
    virtual: bool = False
    """A virtual machine: what its PCI tree says of P2P is its host's affair."""
    acs: tuple[str, ...] | None = None
    """Bridges above GPUs that redirect what GPUs say to each other; None: it could not be read (not root)."""
    xids: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    """By PCI address: how often each Xid was logged since the start of the machine."""
    killed: tuple[str, ...] = ()
    """Processes that the kernel ended for want of memory."""
    log_read: bool = False
    """Whether the kernel's log could be read."""


def gather(scene: Scene, _: Known) -> Kernel:
    """Files, and the kernel's log by `dmesg`, else `journalctl`."""
    devices = _devices(scene)
    gpus = [address for address, vendor, kind in devices if vendor == _NVIDIA and kind.startswith(_DISPLAY)]
    amd = [a for a, vendor, kind in devices if vendor == _AMD and kind.startswith((_DISPLAY, _ACCELERATOR))]
    log = _log()
    modules = {line.split()[0] for line in scene.read("proc/modules").splitlines() if line}
    version = scene.read("proc/driver/nvidia/version")
    number = re.search(r"(?:Kernel Module(?: for \S+)?)\s+(\d[\d.]*)", version)
    return Kernel(
        nvidia_devices=tuple(gpus),
        amd_devices=tuple(amd),
        nvswitches=sum(vendor == _NVIDIA and kind.startswith(_SWITCH) for _, vendor, kind in devices),
        module=number[1] if number else scene.read("sys/module/nvidia/version"),
        open_module="Open Kernel Module" in version,
        nouveau="nouveau" in modules,
        device_nodes=tuple(sorted(node.name for node in (scene.root / "dev").glob("nvidia*"))),
        kfd=(scene.root / "dev/kfd").exists(),
        fabric_manager=_runs(scene, "nv-fabricmanage"),
        iommu=_iommu(scene),
        virtual="hypervisor" in scene.read("proc/cpuinfo").partition("\n\n")[0],
        acs=_acs(scene, gpus),
        xids=xids(log or ()),
        killed=killed(log or ()),
        log_read=log is not None,
    )


def _devices(scene: Scene) -> list[tuple[str, str, str]]:
    """Address, vendor and class of everything on the PCI bus."""
    folder = scene.root / "sys/bus/pci/devices"
    names = sorted(each.name for each in folder.iterdir()) if folder.is_dir() else []
    base = "sys/bus/pci/devices"
    return [(name, scene.read(f"{base}/{name}/vendor"), scene.read(f"{base}/{name}/class")) for name in names]


def _runs(scene: Scene, comm: str) -> bool:
    return any(_comm(file) == comm for file in (scene.root / "proc").glob("[0-9]*/comm"))


def _comm(file: Path) -> str:
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return ""


def _iommu(scene: Scene) -> str:
    groups = scene.root / "sys/kernel/iommu_groups"
    first = min((each.name for each in groups.iterdir()), key=int, default="") if groups.is_dir() else ""
    return (scene.read(f"sys/kernel/iommu_groups/{first}/type") or "DMA") if first else ""


def _acs(scene: Scene, gpus: Iterable[str]) -> tuple[str, ...] | None:
    """Reads the configuration space of every bridge above a GPU; only root sees more than its first 64 bytes."""
    found, read = [], 0
    for bridge in sorted({bridge for gpu in gpus for bridge in _bridges(scene, gpu)}):
        try:
            config = (scene.root / "sys/bus/pci/devices" / bridge / "config").read_bytes()
        except OSError:
            continue
        if len(config) > 256:
            read += 1
            if acs_control(config) & _REDIRECT:
                found.append(bridge)
    return tuple(found) if read else None


def _bridges(scene: Scene, gpu: str) -> list[str]:
    """The PCI addresses on the way from the root to this GPU."""
    try:
        path = (scene.root / "sys/bus/pci/devices" / gpu).resolve()
    except OSError:
        return []
    return [part for part in path.parts[:-1] if re.fullmatch(r"[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.\d", part)]


def acs_control(config: bytes) -> int:
    """The ACS control register of a PCIe configuration space of 4096 bytes; 0 where there is none."""
    at = 0x100
    for _ in range(64):
        if at < 0x100 or at + 8 > len(config):
            return 0
        (header,) = struct.unpack_from("<I", config, at)
        if header & 0xFFFF == _ACS:
            return int(struct.unpack_from("<H", config, at + 6)[0])
        at = header >> 20
    return 0


def _log() -> list[str] | None:
    """The kernel's log since the start; None where this user may not read it."""
    for argv in (["dmesg", "--color=never"], ["journalctl", "-k", "-b", "--no-pager", "-q", "-o", "cat"]):
        done = run(argv, seconds=_LOG_SECONDS)
        if done.code == 0 and done.out.strip():
            return done.out.splitlines()
    return None


def xids(lines: Iterable[str]) -> dict[str, dict[int, int]]:
    """How often each GPU (by its PCI address) reported each Xid."""
    found: dict[str, dict[int, int]] = {}
    for line in lines:
        if match := _XID.search(line):
            of = found.setdefault(match[1], {})
            of[int(match[2])] = of.get(int(match[2]), 0) + 1
    return found


def killed(lines: Iterable[str]) -> tuple[str, ...]:
    """Names of what the kernel ended for want of memory, each time it did."""
    return tuple(match[1] for line in lines if (match := _OOM.search(line)))
