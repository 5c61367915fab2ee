"""Xid errors as NVML tells of them, by events: the kernel's log, which holds them too, is often closed to users."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from vlfleet.hardware.xid import meaning

MOST_AT_ONCE = 64
"""Events taken in one look; a GPU that breaks may send thousands."""
CRITICAL_SECONDS = 3600.0
"""So long a critical error is not forgotten for the harmless ones that follow it: 45 says that a program was ended, and
comes after nearly every other."""


class XidEvents:
    """The last Xid of each GPU since this was made. Costs 2 ms once, and 0.04 ms a look (two H200, driver 580).

    Where driver, container or GPU give no events, there never is one; `gpus` says whom it hears.
    """

    def __init__(self, nvml: Any, handles: Mapping[int, Any]) -> None:
        self._nvml, self._set = nvml, None
        self._last: dict[int, tuple[int, float]] = {}
        self.gpus: list[int] = []
        self._errors = (nvml.NVMLError, nvml.NVMLLibraryMismatchError, AttributeError)
        with suppress(*self._errors):
            self._set = nvml.nvmlEventSetCreate()
            for index, handle in handles.items():
                with suppress(*self._errors):
                    nvml.nvmlDeviceRegisterEvents(handle, nvml.nvmlEventTypeXidCriticalError, self._set)
                    self.gpus.append(index)

    def last(self) -> Mapping[int, tuple[int, float]]:
        """Of each GPU that had one: the code, and when it was seen (seconds since the epoch). Raises nothing."""
        for _ in range(MOST_AT_ONCE if self.gpus else 0):
            try:
                event = self._nvml.nvmlEventSetWait_v2(self._set, 0)
                if event.eventType == self._nvml.nvmlEventTypeXidCriticalError:
                    self._keep(self._nvml.nvmlDeviceGetIndex(event.device), int(event.eventData), time.time())
            except self._errors:  # NVML_ERROR_TIMEOUT: there is none
                break
        return self._last

    def close(self) -> None:
        if self._set is not None:
            with suppress(*self._errors):
                self._nvml.nvmlEventSetFree(self._set)
        self._set, self.gpus = None, []

    def _keep(self, index: int, code: int, now: float) -> None:
        known, at = self._last.get(index, (0, 0.0))
        weightier = known and meaning(known).critical and not meaning(code).critical
        if not (weightier and 0 <= now - at < CRITICAL_SECONDS):
            self._last[index] = (code, now)
