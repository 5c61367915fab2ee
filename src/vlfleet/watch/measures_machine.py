"""What rules ask of GPUs and their host. Pure."""

from __future__ import annotations

from statistics import median

from vlfleet.hardware.reading import GpuReading
from vlfleet.hardware.xid import meaning
from vlfleet.hardware.xid_events import CRITICAL_SECONDS
from vlfleet.watch.model import Sample
from vlfleet.watch.window import Window

SLOWED = frozenset({"hw_slowdown", "sw_thermal", "hw_thermal", "hw_power_brake"})
"""sw_power_cap is not among them: a GPU at full load runs at its power limit, and should."""
BUSY, IDLE = 0.8, 0.1
"""Utilisation of a GPU that has nothing left to give, and of one that does nothing."""
FULL = 0.9
"""Share of a GPU's memory."""
_RESERVING = "vllm"
"""This engine takes its share of the memory (0.92) when it starts, so that 90 % says nothing of it."""


def _gpus(sample: Sample) -> dict[str, GpuReading]:
    return {f"gpu{gpu.index}": gpu for gpu in sample.gpus}


def _used(gpu: GpuReading) -> float | None:
    return gpu.used_bytes / gpu.memory_bytes if gpu.used_bytes is not None and gpu.memory_bytes else None


def _ours(sample: Sample) -> set[int]:
    return {index for replica in sample.replicas for index in replica.gpus}


def _out(sample: Sample) -> set[str]:
    """GPUs that are idle on purpose: all their replicas are cordoned."""
    working = {index for replica in sample.replicas if not replica.cordoned for index in replica.gpus}
    return {f"gpu{index}" for index in _ours(sample) - working}


def memory_high(window: Window) -> dict[str, float]:
    """Share of memory in use, of GPUs whose engine takes memory as it goes."""
    taken = {index for each in window.now.replicas if each.engine_name == _RESERVING for index in each.gpus}
    return {name: used for name, gpu in _gpus(window.now).items() if gpu.index not in taken and (used := _used(gpu))}


def memory_full(window: Window) -> dict[str, float]:
    """Share of memory in use, of every GPU."""
    return {name: used for name, gpu in _gpus(window.now).items() if (used := _used(gpu))}


def temperature(window: Window) -> dict[str, float]:
    """Degrees Celsius."""
    return {n: float(g.temperature_celsius) for n, g in _gpus(window.now).items() if g.temperature_celsius is not None}


def slowed(window: Window) -> dict[str, float]:
    """Share of the last minute in which heat or the power supply held the clocks down."""

    def held(sample: Sample, index: int) -> float | None:
        gpu = sample.gpu(index)
        return None if gpu is None or gpu.throttle is None else float(bool(gpu.throttle & SLOWED))

    return _means(window, held)


def _utilization(sample: Sample, index: int) -> float | None:
    gpu = sample.gpu(index)
    return gpu.utilization if gpu else None


def _means(window: Window, value: object = _utilization) -> dict[str, float]:
    assert callable(value)
    found = {}
    for gpu in window.now.gpus:
        mean = window.mean(60, lambda sample, index=gpu.index: value(sample, index))  # type: ignore[misc]
        if mean is not None:
            found[f"gpu{gpu.index}"] = mean
    return found


def behind(window: Window) -> dict[str, float]:
    """How far a GPU's utilisation over the last minute is below the median of the fleet's GPUs, which are at work.

    The median, not the mean: one GPU that is off moves a mean, and then all look off (vllm-htop's rule).
    """
    ours = {f"gpu{index}" for index in _ours(window.now)}
    means = {name: mean for name, mean in _means(window).items() if name in ours - _out(window.now)}
    if len(means) < 2:
        return {}
    middle = median(means.values()) if len(means) > 2 else max(means.values())
    return {name: middle - mean for name, mean in means.items()}


def alone(window: Window) -> dict[str, float]:
    """Utilisation over the last minute of a GPU, when all the others of its replica or of the machine do nothing.

    What `device_map="auto"` does: layers lie on every GPU, and they work one after the other.
    """
    out = _out(window.now)
    means = {name: mean for name, mean in _means(window).items() if name not in out}
    busy = [name for name, mean in means.items() if mean >= BUSY]
    if len(means) < 2 or len(busy) != 1:
        return dict.fromkeys(means, 0.0)
    others = [mean for name, mean in means.items() if name != busy[0]]
    return {name: mean if name in busy and max(others) < IDLE else 0.0 for name, mean in means.items()}


def uneven(window: Window) -> dict[str, float]:
    """Of a replica on several GPUs, one of which is full: how much more of its memory that one uses than the emptiest.

    What `device_map="auto"` and uneven pipeline stages do: the next picture fails on one GPU while others have room.
    """
    found: dict[str, float] = {}
    for replica in window.now.replicas:
        gpus = [gpu for index in replica.gpus if (gpu := window.now.gpu(index))]
        shares = {f"gpu{gpu.index}": used for gpu in gpus if (used := _used(gpu)) is not None}
        if len(shares) > 1:
            least = min(shares.values())
            found |= {name: used - least if used >= FULL else 0.0 for name, used in shares.items()}
    return found


def broken(window: Window) -> dict[str, float]:
    """1 when the driver says that the GPU is lost, that a row of memory cannot be replaced, or that new uncorrectable
    errors came in the last quarter of an hour."""
    first = window.samples[0]
    found = {}
    for name, gpu in _gpus(window.now).items():
        old = first.gpu(gpu.index)
        new_errors = old is not None and (gpu.ecc_uncorrected or 0) > (old.ecc_uncorrected or 0)
        found[name] = float(bool(gpu.fault) or bool(gpu.rows_failed) or new_errors)
    return found


def xid(window: Window, *, critical: bool) -> dict[str, float]:
    """The Xid of each GPU that had one of this kind in the last hour, else 0.

    A reset is not seen from here, so that a GPU which was reset is told of for the rest of the hour.
    """
    return {
        name: float(gpu.xid) if gpu.xid is not None and _recent(window, gpu) and _kind(gpu.xid) is critical else 0.0
        for name, gpu in _gpus(window.now).items()
    }


def _recent(window: Window, gpu: GpuReading) -> bool:
    return abs(window.now.at - gpu.xid_at) < CRITICAL_SECONDS  # a clock that jumps makes no new error


def _kind(code: int) -> bool:
    return meaning(code).critical


def host_memory(window: Window) -> dict[str, float]:
    host = window.now.host
    return {"host": host.used_bytes / host.memory_bytes} if host.memory_bytes else {}


def disk(window: Window) -> dict[str, float]:
    """Share of the disk in use that holds the fleet's folder."""
    host = window.now.host
    return {"host": 1 - host.disk_free_bytes / host.disk_bytes} if host.disk_bytes else {}
