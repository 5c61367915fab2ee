"""NVML with what the doctor asks beyond `probe`."""

from __future__ import annotations

from typing import Any

import pynvml  # type: ignore[import-untyped]

from tests.hardware.fake_nvml import Facts, FakeNvml, Handle

ASKED = {
    "nvmlDeviceGetCurrPcieLinkWidth": "width",
    "nvmlDeviceGetMaxPcieLinkWidth": "max_width",
    "nvmlDeviceGetMaxPcieLinkGeneration": "slot_generation",
    "nvmlDeviceGetGpuMaxPcieLinkGeneration": "gpu_generation",
    "nvmlDeviceGetPersistenceMode": "persistence",
    "nvmlDeviceGetComputeMode": "compute_mode",
    "nvmlDeviceGetTotalEccErrors": "ecc",
    "nvmlDeviceGetRemappedRows": "rows",
    "nvmlDeviceGetRetiredPagesPendingStatus": "retired_pending",
    "nvmlDeviceGetPowerManagementLimit": "power_limit",
    "nvmlDeviceGetPowerManagementDefaultLimit": "power_default",
    "nvmlDeviceGetApplicationsClock": "clock",
    "nvmlDeviceGetDefaultApplicationsClock": "clock_default",
    "nvmlDeviceGetCurrentClocksEventReasons": "reasons",
    "nvmlDeviceGetCurrentClocksThrottleReasons": "old_reasons",
    "nvmlDeviceGetTemperature": "temperature",
}


class DoctorNvml(FakeNvml):
    """Facts of a GPU are in its dict under `state`; what is not there is not supported."""

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        for function, fact in ASKED.items():
            setattr(self, function, self._answers(function, fact))

    def _answers(self, function: str, fact: str) -> Any:
        def answer(handle: Handle, *_: Any) -> Any:
            state: Facts = self._gpu(function, handle).get("state", {})
            if fact not in state:
                raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
            return state[fact]

        return answer

    def nvmlDeviceGetGpuFabricInfo(self, device: Handle, gpuFabricInfo: Any) -> int:  # noqa: N802, N803
        state = self._gpu("nvmlDeviceGetGpuFabricInfo", device).get("state", {})
        if "fabric" not in state:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        info = gpuFabricInfo._obj
        info.state, info.status = state["fabric"]
        return int(pynvml.NVML_SUCCESS)
