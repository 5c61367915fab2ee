"""amdsmi 7.0 on GPUs that dicts tell of: its functions by their names, with what they return; "N/A" as it has it."""

from __future__ import annotations

import enum
from types import ModuleType
from typing import Any

Facts = dict[str, Any]
MI300X: Facts = {
    "asic": {"market_name": "AMD Instinct MI300X", "vendor_name": "Advanced Micro Devices Inc. [AMD/ATI]"},
    "activity": {"gfx_activity": 93, "umc_activity": 40, "mm_activity": "N/A"},
    "vram": {"vram_total": 196_592, "vram_used": 180_000},
    "power": {"socket_power": 640, "current_socket_power": 640, "average_socket_power": "N/A", "power_limit": 750},
    "cap": {"power_cap": 750_000_000, "max_power_cap": 750_000_000},
    "clock": {"clk": 2100, "min_clk": 132, "max_clk": 2100},
    "ecc": {"correctable_count": 3, "uncorrectable_count": 0, "deferred_count": 0},
    "violation": {"active_prochot_thrm": False, "active_ppt_pwr": True, "active_socket_thrm": "N/A"},
    "temperature": {"HOTSPOT": 78, "EDGE": 61},
    "hip": 0,
}


class AmdSmiException(Exception):  # noqa: N818  (its name)
    pass


class AmdSmiLibraryException(AmdSmiException):
    pass


class AmdSmiRetryException(AmdSmiLibraryException):
    pass


class AmdSmiTimeoutException(AmdSmiLibraryException):
    pass


class AmdSmiClkType(enum.IntEnum):
    SYS = 0
    GFX = 0


class AmdSmiTemperatureType(enum.IntEnum):
    EDGE = 0
    HOTSPOT = 1


class AmdSmiTemperatureMetric(enum.IntEnum):
    CURRENT = 0


_ANSWERS = {
    "amdsmi_get_gpu_asic_info": "asic",
    "amdsmi_get_gpu_activity": "activity",
    "amdsmi_get_gpu_vram_usage": "vram",
    "amdsmi_get_power_info": "power",
    "amdsmi_get_power_cap_info": "cap",
    "amdsmi_get_clock_info": "clock",
    "amdsmi_get_gpu_total_ecc_count": "ecc",
    "amdsmi_get_violation_status": "violation",
}


class FakeAmdSmi(ModuleType):
    """Handles are numbers. A fact that is an exception is raised; one that is missing is not supported."""

    def __init__(self, *gpus: Facts, error: Exception | None = None) -> None:
        super().__init__("amdsmi")
        self.gpus, self.error, self.started, self.asked = gpus, error, 0, list[str]()
        for name in (AmdSmiException, AmdSmiRetryException, AmdSmiTimeoutException, AmdSmiLibraryException):
            setattr(self, name.__name__, name)
        for kind in (AmdSmiClkType, AmdSmiTemperatureType, AmdSmiTemperatureMetric):
            setattr(self, kind.__name__, kind)
        for function, fact in _ANSWERS.items():
            setattr(self, function, self._answers(function, fact))

    def amdsmi_init(self, flag: int = 2) -> None:
        if self.error:
            raise self.error
        self.started += 1

    def amdsmi_shut_down(self) -> None:
        self.started -= 1

    def amdsmi_get_processor_handles(self) -> list[int]:
        return list(range(len(self.gpus)))

    def amdsmi_get_gpu_enumeration_info(self, handle: int) -> Facts:
        return {"drm_card": handle, "hip_id": self._fact("amdsmi_get_gpu_enumeration_info", handle, "hip")}

    def amdsmi_get_temp_metric(self, handle: int, kind: AmdSmiTemperatureType, metric: AmdSmiTemperatureMetric) -> int:
        temperatures = self._fact("amdsmi_get_temp_metric", handle, "temperature")
        if kind.name not in temperatures:
            raise AmdSmiLibraryException(2)
        return int(temperatures[kind.name])

    def _answers(self, function: str, fact: str) -> Any:
        return lambda handle, *_: self._fact(function, handle, fact)

    def _fact(self, function: str, handle: int, fact: str) -> Any:
        self.asked.append(function)
        found = self.gpus[handle].get(fact, AmdSmiLibraryException(2))
        if isinstance(found, Exception):
            raise found
        return found
