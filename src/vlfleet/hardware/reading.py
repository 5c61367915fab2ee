"""What a GPU does at a moment. Whatever a driver, a board, a container or MIG does not tell is None."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GpuReading:
    """One GPU, as NVML or AMD SMI tells of it now."""

    index: int
    """In PCI order, as nvidia-smi counts; of AMD, as HIP counts."""
    name: str = "NVIDIA GPU"
    utilization: float | None = None
    """Share of the last second or less in which a kernel ran, 0 to 1: not how much of the GPU it used."""
    memory_utilization: float | None = None
    """Share of that time in which its memory was read or written."""
    memory_bytes: int | None = None
    used_bytes: int | None = None
    temperature_celsius: int | None = None
    power_watts: float | None = None
    power_limit_watts: float | None = None
    energy_joules: float | None = None
    """Used since the driver was loaded: exact, where power times seconds misses what lies between two readings."""
    sm_clock_mhz: int | None = None
    throttle: frozenset[str] | None = None
    """Why its clocks are low: names of THROTTLE_REASONS. An idle GPU has none of them."""
    ecc_uncorrected: int | None = None
    """Errors of memory that could not be corrected, since the driver was loaded."""
    rows_failed: bool | None = None
    """A row of memory broke and no spare row was left: the board has to be replaced (NVIDIA's RMA criterion)."""
    xid: int | None = None
    """The last error that the driver told of while somebody listened: see `xid.meaning`."""
    xid_at: float = 0.0
    """When; seconds since the epoch."""
    pcie_sent_bytes: int | None = None
    """The difference of two readings tells the rate, as it does of the next three: they count since the driver was
    loaded, or from anywhere."""
    pcie_received_bytes: int | None = None
    nvlink_sent_bytes: int | None = None
    nvlink_received_bytes: int | None = None
    mig: bool = False
    """Cut into instances: the driver then tells no utilisation of the whole."""
    fault: str = ""
    """Why the driver could not tell about this GPU, as "GPU is lost"; then the facts above are None."""


THROTTLE_REASONS = {
    0x4: "sw_power_cap",
    0x8: "hw_slowdown",
    0x20: "sw_thermal",
    0x40: "hw_thermal",
    0x80: "hw_power_brake",
}
"""nvmlClocksEventReasons of nvml.h; "none", "idle", application clocks and sync boost are no throttling."""
