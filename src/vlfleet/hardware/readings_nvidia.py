"""Asks NVML again and again what the GPUs do. One that answers no question costs no exception a second time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from vlfleet.hardware.reading import THROTTLE_REASONS, GpuReading
from vlfleet.hardware.xid_events import XidEvents

RETRY_SECONDS = 300.0
"""After which a question that a GPU did not answer is asked again, and NVML that could not be opened is opened."""
_PCIE_SENT, _PCIE_RECEIVED, _NVLINK_SENT, _NVLINK_RECEIVED = 197, 198, 138, 139
"""NVML_FI_DEV_PCIE_COUNT_TX_BYTES and RX_BYTES, NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX and DATA_RX (nvml.h).
nvmlDeviceGetPcieThroughput is not used: it sleeps 20 ms for each answer."""
_ALL_LINKS = 0xFFFFFFFF
"""The scope of a field of NVLink that sums over all links."""
_PCIE = ((_PCIE_SENT, 0), (_PCIE_RECEIVED, 0))
_NVLINK = ((_NVLINK_SENT, _ALL_LINKS), (_NVLINK_RECEIVED, _ALL_LINKS))
_KIB = 1024
"""NVLink's unit."""
_WRAP = 1 << 32
SELDOM_SECONDS = 9.5
"""Between two questions about energy (3.4 to 5.1 ms of CPU) or NVLink (2.1 to 2.7 ms). PCIe costs 0.6 ms, all others
together 0.8 ms (H200, driver 580)."""


class NvidiaReader:
    """The NVIDIA GPUs of this machine. `read` blocks for 1 to 8 ms a GPU: it belongs into a thread."""

    def __init__(self) -> None:
        self._nvml: Any = None
        self._handles: dict[int, Any] = {}
        self._faults: dict[int, str] = {}
        self._dumb: dict[tuple[int, str], float] = {}
        """Questions that found no answer, and until when they are not asked."""
        self._fixed: dict[int, tuple[str, float | None, bool]] = {}
        """Name, power limit and MIG, which hardly ever change."""
        self._seldom: dict[tuple[int, str], tuple[float, Any]] = {}
        """Answers of costly questions, and when they came."""
        self._counted: dict[tuple[int, int], tuple[int, int]] = {}
        """Of counters with 32 bits: what they said last, and how far they have counted."""
        self._opened_at = 0.0
        self._xids: XidEvents | None = None
        self._last_xids: Mapping[int, tuple[int, float]] = {}

    def read(self) -> tuple[GpuReading, ...]:
        """All GPUs by index; none where there is no GPU, no driver or no NVML. Raises nothing."""
        if self._nvml is None and not self._open():
            return ()
        self._last_xids = self._xids.last() if self._xids else {}
        found = {index: self._gpu(index) for index in self._handles}
        found |= {index: GpuReading(index, fault=fault) for index, fault in self._faults.items() if index not in found}
        return tuple(found[index] for index in sorted(found))

    def close(self) -> None:
        """NVML is let go of."""
        if self._xids:
            self._xids.close()
        if self._nvml is not None:
            with suppress(self._nvml.NVMLError):
                self._nvml.nvmlShutdown()
        self._nvml, self._xids, self._handles = None, None, {}

    def _open(self) -> bool:
        now = time.monotonic()
        if self._opened_at and now - self._opened_at < RETRY_SECONDS:
            return False
        self._opened_at = now
        try:
            import pynvml  # type: ignore[import-untyped]
        except ImportError:
            return False
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError:
            return False
        self._nvml = pynvml
        try:
            count = pynvml.nvmlDeviceGetCount()
        except pynvml.NVMLError:
            count = 0
        for index in range(count):
            try:
                self._handles[index] = pynvml.nvmlDeviceGetHandleByIndex(index)
            except pynvml.NVMLError as error:
                self._faults[index] = str(error)
        self._xids = XidEvents(pynvml, self._handles)
        return True

    def _ask(self, index: int, name: str, *args: Any) -> Any:
        """The answer, or None where this library, driver, GPU or user has none."""
        key = (index, name)
        if (until := self._dumb.get(key)) is not None and time.monotonic() < until:
            return None
        nvml = self._nvml
        try:
            question: Callable[..., Any] = getattr(nvml, name)
            return question(self._handles[index], *args)
        except (nvml.NVMLError_GpuIsLost, nvml.NVMLError_ResetRequired) as error:
            self._faults[index] = str(error)
        except (nvml.NVMLError_Timeout, nvml.NVMLError_InUse, nvml.NVMLError_Unknown):
            return None  # it may know next time
        except (nvml.NVMLError, nvml.NVMLLibraryMismatchError, AttributeError, UnicodeDecodeError):
            self._dumb[key] = time.monotonic() + RETRY_SECONDS
        return None

    def _ask_seldom(self, index: int, name: str, *args: Any) -> Any:
        """An answer that is at most `SELDOM_SECONDS` old."""
        at, answer = self._seldom.get((index, name), (float("-inf"), None))
        now = time.monotonic()
        if now - at >= SELDOM_SECONDS:
            answer = self._ask(index, name, *args)
            self._seldom[index, name] = now, answer
        return answer

    def _gpu(self, index: int) -> GpuReading:
        nvml = self._nvml
        self._faults.pop(index, None)
        if index not in self._fixed:
            limit = self._ask(index, "nvmlDeviceGetEnforcedPowerLimit")
            mig = self._ask(index, "nvmlDeviceGetMigMode")
            name = self._ask(index, "nvmlDeviceGetName") or "NVIDIA GPU"
            self._fixed[index] = (name, limit / 1000 if limit else None, bool(mig and mig[0]))
        name, power_limit, mig = self._fixed[index]
        rates = self._ask(index, "nvmlDeviceGetUtilizationRates")
        memory = self._ask(index, "nvmlDeviceGetMemoryInfo")
        power = self._ask(index, "nvmlDeviceGetPowerUsage")
        rows = self._ask(index, "nvmlDeviceGetRemappedRows")
        ecc = (nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC)
        energy = self._ask_seldom(index, "nvmlDeviceGetTotalEnergyConsumption")
        xid, xid_at = self._last_xids.get(index, (None, 0.0))
        pcie = self._traffic(index, _PCIE, self._ask)
        nvlink = self._traffic(index, _NVLINK, self._ask_seldom, _KIB)
        reading = GpuReading(
            index=index,
            name=name,
            utilization=rates.gpu / 100 if rates else None,
            memory_utilization=rates.memory / 100 if rates else None,
            memory_bytes=int(memory.total) if memory and memory.total else None,
            used_bytes=int(memory.used) if memory and memory.total else None,
            temperature_celsius=self._ask(index, "nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU),
            power_watts=power / 1000 if power is not None else None,
            power_limit_watts=power_limit,
            energy_joules=energy / 1000 if energy is not None else None,
            sm_clock_mhz=self._ask(index, "nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM),
            throttle=self._throttle(index),
            ecc_uncorrected=self._ask(index, "nvmlDeviceGetTotalEccErrors", *ecc),
            rows_failed=bool(rows[3]) if rows else None,
            xid=xid,
            xid_at=xid_at,
            pcie_sent_bytes=pcie[0],
            pcie_received_bytes=pcie[1],
            nvlink_sent_bytes=nvlink[0],
            nvlink_received_bytes=nvlink[1],
            mig=mig,
        )
        fault = self._faults.get(index, "")
        return GpuReading(index, name, xid=xid, xid_at=xid_at, mig=mig, fault=fault) if fault else reading

    def _throttle(self, index: int) -> frozenset[str] | None:
        """Older drivers and libraries know the question by its old name only."""
        bits = self._ask(index, "nvmlDeviceGetCurrentClocksEventReasons")
        if bits is None:
            bits = self._ask(index, "nvmlDeviceGetCurrentClocksThrottleReasons")
        return None if bits is None else frozenset(name for bit, name in THROTTLE_REASONS.items() if bits & bit)

    def _traffic(
        self, index: int, fields: tuple[tuple[int, int], ...], ask: Callable[..., Any], unit: int = 1
    ) -> tuple[int | None, ...]:
        """Bytes that these fields have counted."""
        values = ask(index, "nvmlDeviceGetFieldValues", list(fields))
        if values is None:
            return (None,) * len(fields)
        success = self._nvml.NVML_SUCCESS
        return tuple(
            self._unwrapped(index, number, value) * unit if value.nvmlReturn == success else None
            for (number, _), value in zip(fields, values, strict=True)
        )

    def _unwrapped(self, index: int, number: int, field: Any) -> int:
        """A counter that only grows. PCIe's have 32 bits (H200, driver 580; nvml.h: "value can be wrapped"): more than
        4 GiB between two readings, which a model that loads moves, are counted too low."""
        value = _number(self._nvml, field)
        if field.valueType != self._nvml.NVML_VALUE_TYPE_UNSIGNED_INT:
            return value
        last, total = self._counted.get((index, number), (value, value))
        total += (value - last) % _WRAP
        self._counted[index, number] = value, total
        return total


def _number(nvml: Any, field: Any) -> int:
    """A field's value, by the type that the driver says it has."""
    value = field.value
    match field.valueType:
        case nvml.NVML_VALUE_TYPE_UNSIGNED_INT:
            return int(value.uiVal)
        case nvml.NVML_VALUE_TYPE_UNSIGNED_LONG:
            return int(value.ulVal)
        case nvml.NVML_VALUE_TYPE_DOUBLE:
            return int(value.dVal)
        case nvml.NVML_VALUE_TYPE_SIGNED_LONG_LONG:
            return int(value.sllVal)
        case _:
            return int(value.ullVal)
