"""A child of the doctor: asks NVML and CUDA, prints one line of JSON, and may hang or die without harm.

    python -m vlfleet.checkup.facts.gpus_inside [--no-cuda]

cuInit opens the driver and makes no context: it takes no memory of a GPU.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vlfleet.errors import VlfleetError
from vlfleet.hardware.machine import Machine
from vlfleet.hardware.probe import probe
from vlfleet.hardware.reading import THROTTLE_REASONS


def read(root: Path = Path("/"), *, cuda: bool = True) -> dict[str, Any]:
    """What `gpus.parse` takes."""
    try:
        machine = probe(root)
    except VlfleetError as error:
        return {"fault": error.cause, "remedy": error.remedy}
    answer = {"fault": "", "remedy": "", "machine": _plain(machine), "states": _states() if machine.gpus else []}
    asked = cuda and bool(machine.gpus)
    return {**answer, **(_cuda() if asked else {"cuda_init": None, "libcuda": None})}


def _plain(machine: Machine) -> dict[str, Any]:
    facts = {field.name: getattr(machine, field.name) for field in dataclasses.fields(machine)}
    return {
        **facts,
        "gpus": [dataclasses.asdict(gpu) for gpu in machine.gpus],
        "links": [(*sorted(pair), int(link)) for pair, link in machine.links.items()],
        "peers": [sorted(pair) for pair in machine.peers],
    }


def _states() -> list[dict[str, Any]]:
    import pynvml  # type: ignore[import-untyped]

    pynvml.nvmlInit()
    try:
        found = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            with contextlib.suppress(pynvml.NVMLError):
                found.append(_state(pynvml, index, pynvml.nvmlDeviceGetHandleByIndex(index)))
        return found
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def _state(nvml: Any, index: int, handle: Any) -> dict[str, Any]:
    def ask(name: str, *args: Any) -> Any:
        """None where this library, driver, GPU or user gets no answer."""
        try:
            question: Callable[..., Any] = getattr(nvml, name)
            return question(handle, *args)
        except (nvml.NVMLError, nvml.NVMLLibraryMismatchError, AttributeError):
            return None

    def watts(name: str) -> float | None:
        milliwatts = ask(name)
        return milliwatts / 1000 if milliwatts else None

    def flag(name: str) -> bool | None:
        answer = ask(name)
        return None if answer is None else bool(answer)

    rows = ask("nvmlDeviceGetRemappedRows")
    bits = ask("nvmlDeviceGetCurrentClocksEventReasons") or ask("nvmlDeviceGetCurrentClocksThrottleReasons") or 0
    state, status = _fabric(nvml, handle)
    return {
        "index": index,
        "pcie_width": ask("nvmlDeviceGetCurrPcieLinkWidth"),
        "pcie_max_width": ask("nvmlDeviceGetMaxPcieLinkWidth"),
        "pcie_slot_generation": ask("nvmlDeviceGetMaxPcieLinkGeneration"),
        "pcie_gpu_generation": ask("nvmlDeviceGetGpuMaxPcieLinkGeneration"),
        "persistence": flag("nvmlDeviceGetPersistenceMode"),
        "compute_mode": ask("nvmlDeviceGetComputeMode"),
        "ecc_uncorrected": ask(
            "nvmlDeviceGetTotalEccErrors", nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
        ),
        "remap_pending": bool(rows[2]) if rows else None,
        "remap_failed": bool(rows[3]) if rows else None,
        "retired_pending": flag("nvmlDeviceGetRetiredPagesPendingStatus"),
        "power_limit_watts": watts("nvmlDeviceGetPowerManagementLimit"),
        "power_default_watts": watts("nvmlDeviceGetPowerManagementDefaultLimit"),
        "clock_mhz": ask("nvmlDeviceGetApplicationsClock", nvml.NVML_CLOCK_SM),
        "clock_default_mhz": ask("nvmlDeviceGetDefaultApplicationsClock", nvml.NVML_CLOCK_SM),
        "slowdowns": [name for bit, name in THROTTLE_REASONS.items() if bits & bit],
        "fabric_state": state,
        "fabric_status": status,
        "nvlinks": _nvlinks(nvml, ask),
        "temperature_celsius": ask("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU),
    }


def _fabric(nvml: Any, handle: Any) -> tuple[int | None, int | None]:
    info = nvml.c_nvmlGpuFabricInfo_t()
    try:
        nvml.nvmlDeviceGetGpuFabricInfo(handle, ctypes.byref(info))
    except (nvml.NVMLError, nvml.NVMLLibraryMismatchError, AttributeError):
        return None, None
    return int(info.state), int(info.status)


def _nvlinks(nvml: Any, ask: Callable[..., Any]) -> list[bool]:
    found = []
    for link in range(nvml.NVML_NVLINK_MAX_LINKS):
        state = ask("nvmlDeviceGetNvLinkState", link)
        if state is None:  # no such link
            break
        found.append(state == nvml.NVML_FEATURE_ENABLED)
    return found


def _cuda() -> dict[str, Any]:
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return {"cuda_init": None, "libcuda": False}
    return {"cuda_init": int(library.cuInit(0)), "libcuda": True}


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):
        said = read(cuda="--no-cuda" not in sys.argv[1:])
    print(json.dumps(said))
