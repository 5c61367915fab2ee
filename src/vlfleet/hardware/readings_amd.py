"""Asks AMD's management library (amdsmi, which comes with ROCm) again and again what the GPUs do."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from vlfleet.hardware.reading import GpuReading

RETRY_SECONDS = 300.0
"""As for NVML."""
_MICROWATTS = 1e6
_MIB = 1 << 20
"""`amdsmi_get_gpu_vram_usage` counts in MiB (amdsmi.h: "in MB", and it divides by 1024 * 1024)."""
_UNKNOWN_WATTS = 0xFFFF
"""What stands for unknown is left in by some releases."""
_THROTTLED = {
    "active_prochot_thrm": "hw_thermal",
    "active_socket_thrm": "sw_thermal",
    "active_vr_thrm": "hw_thermal",
    "active_hbm_thrm": "hw_thermal",
    "active_ppt_pwr": "sw_power_cap",
}
"""Of `amdsmi_get_violation_status`, by the names that NVML's reasons have here; MI300 and later answer it."""


class AmdReader:
    """The AMD GPUs of this machine, written to the API of amdsmi 7.0; it has not been run on one."""

    def __init__(self, device: Path = Path("/dev/kfd")) -> None:
        self._device = device
        self._smi: Any = None
        self._handles: dict[int, Any] = {}
        self._fixed: dict[int, tuple[str, float | None]] = {}
        """Name and power limit."""
        self._dumb: dict[tuple[int, str], float] = {}
        """Questions that found no answer, and until when they are not asked."""
        self._opened_at = 0.0

    def read(self) -> tuple[GpuReading, ...]:
        """All GPUs by index; none where there is no GPU, no driver or no amdsmi. Raises nothing."""
        if self._smi is None and not self._open():
            return ()
        return tuple(self._gpu(index) for index in sorted(self._handles))

    def close(self) -> None:
        """The library is let go of."""
        if self._smi is not None:
            with suppress(self._smi.AmdSmiException):
                self._smi.amdsmi_shut_down()
        self._smi, self._handles = None, {}

    def _open(self) -> bool:
        now = time.monotonic()
        if self._opened_at and now - self._opened_at < RETRY_SECONDS:
            return False
        self._opened_at = now
        if not self._device.exists():  # of the driver; amdsmi prints to stdout where its library is not there
            return False
        try:
            import amdsmi  # type: ignore[import-not-found]

            amdsmi.amdsmi_init()
        except Exception:  # its import loads libamd_smi.so, and says in many ways that it is not there
            return False
        self._smi = amdsmi
        try:
            handles = amdsmi.amdsmi_get_processor_handles()
        except amdsmi.AmdSmiException:
            handles = []
        self._handles = dict(enumerate(handles))
        order = [_number(self._ask(each, "amdsmi_get_gpu_enumeration_info"), "hip_id") for each in self._handles]
        known = [int(each) for each in order if each is not None]
        if len(set(known)) == len(handles):
            self._handles = dict(zip(known, handles, strict=True))
        return True

    def _ask(self, index: int, name: str, *args: Any) -> Any:
        """The answer, or None where this library, driver, GPU or user has none."""
        key = (index, name)
        if (until := self._dumb.get(key)) is not None and time.monotonic() < until:
            return None
        smi = self._smi
        try:
            return getattr(smi, name)(self._handles[index], *args)
        except (smi.AmdSmiRetryException, smi.AmdSmiTimeoutException):
            return None  # it may know next time
        except (smi.AmdSmiException, AttributeError, UnicodeDecodeError):
            self._dumb[key] = time.monotonic() + RETRY_SECONDS
        return None

    def _gpu(self, index: int) -> GpuReading:
        smi = self._smi
        if index not in self._fixed:
            name = (self._ask(index, "amdsmi_get_gpu_asic_info") or {}).get("market_name")
            limit = _number(self._ask(index, "amdsmi_get_power_cap_info"), "power_cap")
            self._fixed[index] = (name if name not in (None, "", "N/A") else "AMD GPU", limit and limit / _MICROWATTS)
        name, power_limit = self._fixed[index]
        activity = self._ask(index, "amdsmi_get_gpu_activity")
        memory = self._ask(index, "amdsmi_get_gpu_vram_usage")
        power = self._ask(index, "amdsmi_get_power_info")
        clock = _number(self._ask(index, "amdsmi_get_clock_info", smi.AmdSmiClkType.GFX), "clk")
        errors = _number(self._ask(index, "amdsmi_get_gpu_total_ecc_count"), "uncorrectable_count")
        busy, used, all_memory = _number(activity, "gfx_activity"), *_memory(memory)
        memory_busy = _number(activity, "umc_activity")
        return GpuReading(
            index=index,
            name=name,
            utilization=None if busy is None else busy / 100,
            memory_utilization=None if memory_busy is None else memory_busy / 100,
            memory_bytes=all_memory,
            used_bytes=used,
            temperature_celsius=self._temperature(index),
            power_watts=_power(power),
            power_limit_watts=power_limit,
            sm_clock_mhz=None if clock is None else int(clock),
            throttle=self._throttle(index),
            ecc_uncorrected=None if errors is None else int(errors),
        )

    def _temperature(self, index: int) -> int | None:
        """Of the hottest place, which is what throttles; of the edge on boards that tell no other."""
        kinds, now = self._smi.AmdSmiTemperatureType, self._smi.AmdSmiTemperatureMetric.CURRENT
        for kind in (kinds.HOTSPOT, kinds.EDGE):
            with suppress(self._smi.AmdSmiException):
                return int(self._smi.amdsmi_get_temp_metric(self._handles[index], kind, now))
        return None

    def _throttle(self, index: int) -> frozenset[str] | None:
        status = self._ask(index, "amdsmi_get_violation_status")
        if status is None:
            return None
        return frozenset(name for field, name in _THROTTLED.items() if status.get(field) is True)


def _number(facts: Any, name: str) -> float | None:
    """ "N/A" stands for what a board does not tell."""
    value = facts.get(name) if isinstance(facts, dict) else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _memory(usage: Any) -> tuple[int | None, int | None]:
    """Bytes in use, and in all."""
    used, whole = _number(usage, "vram_used"), _number(usage, "vram_total")
    if not whole or used is None:
        return None, None
    return int(used * _MIB), int(whole * _MIB)


def _power(info: Any) -> float | None:
    """Of this moment; boards before MI300 tell an average only."""
    names = ("socket_power", "current_socket_power", "average_socket_power")
    return next((value for name in names if (value := _number(info, name)) and value < _UNKNOWN_WATTS), None)
