"""NVML as nvidia-ml-py gives it, on the machine that a dict tells of; structs, constants and errors are real."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pynvml  # type: ignore[import-untyped]
import pytest

from vlfleet.hardware.machine import Machine
from vlfleet.hardware.probe import probe

Facts = dict[str, Any]
"""driver, cuda; gpus: a list; ancestors, p2p: by pair of indices; errors: what a function raises, by its name."""


@dataclass(frozen=True)
class Handle:
    index: int


class FakeNvml:
    """Has the functions that `probe` calls, with the signatures of the real ones."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.started = 0

    def __getattr__(self, name: str) -> Any:
        assert not name.startswith("nvml") or name == "nvmlStructToFriendlyObject", f"the fake has no {name}"
        return getattr(pynvml, name)

    def _gpu(self, function: str, handle: Handle) -> Facts:
        """The GPU's facts, or the error that this function has on it."""
        self._fail(function)
        gpu: Facts = self.facts["gpus"][handle.index]
        if error := gpu.get("errors", {}).get(function):
            raise error
        return gpu

    def _fail(self, function: str) -> None:
        assert self.started == 1 or function == "nvmlInit"
        if error := self.facts.get("errors", {}).get(function):
            raise error

    def nvmlInit(self) -> None:  # noqa: N802
        self._fail("nvmlInit")
        self.started += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self._fail("nvmlShutdown")
        self.started -= 1

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        self._fail("nvmlSystemGetDriverVersion")
        return str(self.facts["driver"])

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:  # noqa: N802
        self._fail("nvmlSystemGetCudaDriverVersion_v2")
        return int(self.facts["cuda"])

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        self._fail("nvmlDeviceGetCount")
        return len(self.facts["gpus"])

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Handle:  # noqa: N802
        self._gpu("nvmlDeviceGetHandleByIndex", Handle(index))
        return Handle(index)

    def nvmlDeviceGetUUID(self, handle: Handle) -> str:  # noqa: N802
        return str(self._gpu("nvmlDeviceGetUUID", handle)["uuid"])

    def nvmlDeviceGetName(self, handle: Handle) -> str:  # noqa: N802
        return str(self._gpu("nvmlDeviceGetName", handle)["name"])

    def nvmlDeviceGetMemoryInfo(self, handle: Handle, version: int | None = None) -> Any:  # noqa: N802
        total, free = self._gpu("nvmlDeviceGetMemoryInfo", handle)["memory"]
        return pynvml.c_nvmlMemory_t(total=total, free=free, used=total - free)

    def nvmlDeviceGetCudaComputeCapability(self, handle: Handle) -> tuple[int, int]:  # noqa: N802
        major, minor = self._gpu("nvmlDeviceGetCudaComputeCapability", handle)["capability"]
        return major, minor

    def nvmlDeviceGetPciInfo(self, handle: Handle) -> Any:  # noqa: N802
        domain, bus, device = self._gpu("nvmlDeviceGetPciInfo", handle)["pci"]
        return pynvml.nvmlPciInfo_t(domain=domain, bus=bus, device=device)

    def nvmlDeviceGetMigMode(self, device: Handle) -> list[int]:  # noqa: N802
        mig = self._gpu("nvmlDeviceGetMigMode", device).get("mig")
        if mig is None:  # every GPU but the A100, H100 and their likes
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return [mig, mig]

    def nvmlDeviceGetComputeRunningProcesses(self, handle: Handle) -> list[Any]:  # noqa: N802
        return _processes(self._gpu("nvmlDeviceGetComputeRunningProcesses", handle).get("compute", {}))

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: Handle) -> list[Any]:  # noqa: N802
        return _processes(self._gpu("nvmlDeviceGetGraphicsRunningProcesses", handle).get("graphics", {}))

    def nvmlDeviceGetMPSComputeRunningProcesses(self, handle: Handle) -> list[Any]:  # noqa: N802
        return _processes(self._gpu("nvmlDeviceGetMPSComputeRunningProcesses", handle).get("mps", {}))

    def nvmlDeviceGetTopologyCommonAncestor(self, device1: Handle, device2: Handle) -> int:  # noqa: N802
        self._fail("nvmlDeviceGetTopologyCommonAncestor")
        return int(self.facts["ancestors"][device1.index, device2.index])

    def nvmlDeviceGetP2PStatus(self, device1: Handle, device2: Handle, p2pIndex: int) -> int:  # noqa: N802, N803
        self._fail("nvmlDeviceGetP2PStatus")
        if not isinstance(p2pIndex, int):  # as ctypes does
            raise ctypes.ArgumentError(f"argument 3: TypeError: Don't know how to convert parameter 3: {p2pIndex}")
        pair: dict[int, int] = self.facts["p2p"].get((device1.index, device2.index), {})
        return pair.get(p2pIndex, int(pynvml.NVML_P2P_STATUS_NOT_SUPPORTED))

    def nvmlDeviceGetNvLinkState(self, device: Handle, link: int) -> int:  # noqa: N802
        remotes = self._gpu("nvmlDeviceGetNvLinkState", device).get("nvlinks", [])
        if link >= len(remotes):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        return int(remotes[link] is not None)

    def nvmlDeviceGetNvLinkRemotePciInfo(self, device: Handle, link: int) -> Any:  # noqa: N802
        domain, bus, slot = self._gpu("nvmlDeviceGetNvLinkRemotePciInfo", device)["nvlinks"][link]
        return pynvml.nvmlPciInfo_t(domain=domain, bus=bus, device=slot)


def _processes(held: dict[int, int | None]) -> list[Any]:
    found = []
    for pid, memory_bytes in held.items():
        process = pynvml.nvmlStructToFriendlyObject(pynvml.c_nvmlProcessInfo_v3_t(pid=pid))
        process.usedGpuMemory = memory_bytes
        found.append(process)
    return found


def probed(facts: Facts, root: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """What `probe` makes of a machine with these facts; NVML must have been shut down again."""
    fake = FakeNvml(facts)
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    machine = probe(root)
    assert fake.started == ("nvmlShutdown" in facts.get("errors", {}))
    return machine
