"""The fake NVML with what `GpuReader` asks: a GPU's `live` facts tell what it answers; what is not there it refuses."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pynvml  # type: ignore[import-untyped]

from tests.hardware.fake_nvml import Facts, FakeNvml, Handle

BUSY: Facts = {
    "utilization": (97, 41),
    "temperature": 71,
    "power": 612_300,
    "power_limit": 700_000,
    "clock": 1755,
    "reasons": 0x4,
    "ecc": 0,
    "energy": 2_808_028,
    "rows": (0, 0, 0, 0),
    "fields": {197: 5_000, 198: 7_000, 138: 3, 139: 4},
}
"""An H200 at work."""


class LiveNvml(FakeNvml):
    """Counts what it is asked in `asked`."""

    nvmlEventTypeXidCriticalError = pynvml.nvmlEventTypeXidCriticalError  # noqa: N815

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self.asked: list[str] = []
        self.xids: list[tuple[int, int]] = []
        """Events to come: the GPU's index and the code."""
        self.heard: set[int] = set()
        self.sets = 0
        self.nvmlDeviceGetTotalEnergyConsumption = self._answers("nvmlDeviceGetTotalEnergyConsumption", "energy")
        self.nvmlDeviceGetUtilizationRates = self._answers("nvmlDeviceGetUtilizationRates", "utilization", _rates)
        self.nvmlDeviceGetTemperature = self._answers("nvmlDeviceGetTemperature", "temperature")
        self.nvmlDeviceGetPowerUsage = self._answers("nvmlDeviceGetPowerUsage", "power")
        self.nvmlDeviceGetEnforcedPowerLimit = self._answers("nvmlDeviceGetEnforcedPowerLimit", "power_limit")
        self.nvmlDeviceGetClockInfo = self._answers("nvmlDeviceGetClockInfo", "clock")
        self.nvmlDeviceGetCurrentClocksEventReasons = self._answers("nvmlDeviceGetCurrentClocksEventReasons", "reasons")
        self.nvmlDeviceGetCurrentClocksThrottleReasons = self._answers(
            "nvmlDeviceGetCurrentClocksThrottleReasons", "old_reasons"
        )
        self.nvmlDeviceGetTotalEccErrors = self._answers("nvmlDeviceGetTotalEccErrors", "ecc")
        self.nvmlDeviceGetRemappedRows = self._answers("nvmlDeviceGetRemappedRows", "rows")

    def _answers(self, function: str, fact: str, shape: Any = lambda value: value) -> Any:
        def answer(handle: Handle, *_: Any) -> Any:
            self.asked.append(function)
            live: Facts = self._gpu(function, handle).get("live", {})
            if fact not in live:
                raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
            return shape(live[fact])

        return answer

    def nvmlDeviceGetFieldValues(self, handle: Handle, fields: list[tuple[int, int]]) -> Any:  # noqa: N802
        self.asked.append("nvmlDeviceGetFieldValues")
        live: Facts = self._gpu("nvmlDeviceGetFieldValues", handle).get("live", {})
        known, types = live.get("fields"), live.get("field_types", {})
        if known is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
        return [_field(known.get(number), types.get(number, 3)) for number, _ in fields]

    def nvmlEventSetCreate(self) -> str:  # noqa: N802
        self._fail("nvmlEventSetCreate")
        self.sets += 1
        return "set"

    def nvmlDeviceRegisterEvents(self, handle: Handle, types: int, made: str) -> None:  # noqa: N802
        self._gpu("nvmlDeviceRegisterEvents", handle)
        assert (types, made) == (8, "set")
        self.heard.add(handle.index)

    def nvmlEventSetWait_v2(self, made: str, milliseconds: int) -> Any:  # noqa: N802
        self._fail("nvmlEventSetWait_v2")
        assert (made, milliseconds) == ("set", 0), "it must not wait"
        while self.xids:
            index, code = self.xids.pop(0)
            if index in self.heard:
                return SimpleNamespace(device=Handle(index), eventType=8, eventData=code)
        raise pynvml.NVMLError(pynvml.NVML_ERROR_TIMEOUT)

    def nvmlEventSetFree(self, made: str) -> None:  # noqa: N802
        self.sets -= 1

    def nvmlDeviceGetIndex(self, handle: Handle) -> int:  # noqa: N802
        return handle.index


def _rates(shares: tuple[int, int]) -> Any:
    return SimpleNamespace(gpu=shares[0], memory=shares[1])


def _field(value: int | None, kind: int) -> Any:
    """`kind` is NVML's type: 1 has 32 bits, as PCIe's counters on an H200; 3 has 64."""
    field = pynvml.c_nvmlFieldValue_t()
    field.nvmlReturn = pynvml.NVML_SUCCESS if value is not None else pynvml.NVML_ERROR_NOT_SUPPORTED
    field.valueType = kind
    if kind == pynvml.NVML_VALUE_TYPE_UNSIGNED_INT:
        field.value.uiVal = value or 0
    else:
        field.value.ullVal = value or 0
    return field
