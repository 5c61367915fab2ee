"""What the watch sees, as metrics for Prometheus: GPUs, host and alerts. In base units, as Prometheus has it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from vlfleet.hardware.reading import THROTTLE_REASONS, GpuReading
from vlfleet.watch.alert import Alert
from vlfleet.watch.model import HostSample, Sample

_GPU_GAUGES: dict[str, tuple[str, Callable[[GpuReading], float | None]]] = {
    "utilization_ratio": ("Share of the last second in which a kernel ran.", lambda gpu: gpu.utilization),
    "memory_utilization_ratio": ("Share in which its memory was read or written.", lambda gpu: gpu.memory_utilization),
    "memory_bytes": ("It has.", lambda gpu: gpu.memory_bytes),
    "memory_used_bytes": ("In use, by whomever.", lambda gpu: gpu.used_bytes),
    "temperature_celsius": ("Of the chip.", lambda gpu: gpu.temperature_celsius),
    "power_watts": ("Drawn now.", lambda gpu: gpu.power_watts),
    "power_limit_watts": ("It may draw.", lambda gpu: gpu.power_limit_watts),
    "sm_clock_hertz": ("Clock of its processors.", lambda gpu: gpu.sm_clock_mhz and gpu.sm_clock_mhz * 1e6),
    "rows_failed": ("1 when a row of memory broke that has no spare.", lambda gpu: gpu.rows_failed),
    "fault": ("1 when the driver cannot tell of it.", lambda gpu: bool(gpu.fault)),
    "xid": ("Number of the last error that the driver told of.", lambda gpu: gpu.xid),
    "xid_time_seconds": ("When, since the epoch.", lambda gpu: gpu.xid_at if gpu.xid is not None else None),
}
_GPU_COUNTERS: dict[str, tuple[str, Callable[[GpuReading], float | None]]] = {
    "energy_joules": ("Used.", lambda gpu: gpu.energy_joules),
    "ecc_uncorrected_errors": ("Of memory.", lambda gpu: gpu.ecc_uncorrected),
    "pcie_sent_bytes": ("Over PCIe.", lambda gpu: gpu.pcie_sent_bytes),
    "pcie_received_bytes": ("Over PCIe.", lambda gpu: gpu.pcie_received_bytes),
    "nvlink_sent_bytes": ("Over all links.", lambda gpu: gpu.nvlink_sent_bytes),
    "nvlink_received_bytes": ("Over all links.", lambda gpu: gpu.nvlink_received_bytes),
}
"""Since the driver was loaded."""


class Exposed(Collector):
    """Of one sample, and of the alerts that somebody is to hear."""

    def __init__(self, sample: Sample | None, alerts: Sequence[Alert]) -> None:
        self._sample, self._alerts = sample, alerts

    def collect(self) -> Iterator[Metric]:
        if self._sample is not None:
            yield from _gpus(self._sample)
            yield from _host(self._sample.host)
        yield from _alerts(self._alerts)


def _gpus(sample: Sample) -> Iterator[Metric]:
    """`replica`: who has it; several are joined by commas, and it is empty where it is nobody's. So is `engine`."""
    having = {gpu.index: [each for each in sample.replicas if gpu.index in each.gpus] for gpu in sample.gpus}
    owners = {index: ",".join(each.name for each in replicas) for index, replicas in having.items()}
    one = ["gpu", "replica"]
    info = GaugeMetricFamily("vlfleet:gpu_info", "What it is: 1.", labels=[*one, "name", "mig", "engine"])
    for gpu in sample.gpus:
        engines = ",".join(sorted({each.engine_name for each in having[gpu.index]}))
        info.add_metric([str(gpu.index), owners[gpu.index], gpu.name, str(gpu.mig).lower(), engines], 1)
    yield info
    for kind, facts in ((GaugeMetricFamily, _GPU_GAUGES), (CounterMetricFamily, _GPU_COUNTERS)):
        for name, (text, fact) in facts.items():
            family: GaugeMetricFamily | CounterMetricFamily = kind(f"vlfleet:gpu_{name}", text, labels=one)
            for gpu in sample.gpus:
                if (value := fact(gpu)) is not None:
                    family.add_metric([str(gpu.index), owners[gpu.index]], float(value))
            yield family
    slowed = GaugeMetricFamily("vlfleet:gpu_throttled", "1 when its clocks are held down.", labels=[*one, "reason"])
    for gpu in sample.gpus:
        for reason in THROTTLE_REASONS.values() if gpu.throttle is not None else ():
            slowed.add_metric([str(gpu.index), owners[gpu.index], reason], reason in (gpu.throttle or ()))
    yield slowed


def _host(host: HostSample) -> Iterator[Metric]:
    def gauge(name: str, text: str, value: float) -> Metric:
        return GaugeMetricFamily(f"vlfleet:host_{name}", text, value)

    if host.cpu is not None:
        yield gauge("cpu_ratio", "Share of all cores in use.", host.cpu)
    if host.memory_bytes:
        yield gauge("memory_bytes", "It has, or its container may use.", host.memory_bytes)
        yield gauge("memory_used_bytes", "That could not be given to somebody else.", host.used_bytes)
    if host.disk_bytes:
        yield gauge("disk_bytes", "Of the disk with the fleet's folder.", host.disk_bytes)
        yield gauge("disk_free_bytes", "Of the disk with the fleet's folder.", host.disk_free_bytes)
    sent, received = "vlfleet:host_network_sent_bytes", "vlfleet:host_network_received_bytes"
    yield CounterMetricFamily(sent, "Over all interfaces but loopback.", host.sent_bytes)
    yield CounterMetricFamily(received, "Over all interfaces but loopback.", host.received_bytes)


def _alerts(alerts: Sequence[Alert]) -> Iterator[Metric]:
    labels = ["code", "subject", "severity"]
    there = GaugeMetricFamily("vlfleet:alert", "1 while it is there, unless silenced.", labels=labels)
    value = GaugeMetricFamily("vlfleet:alert_value", "What was measured, in the rule's own unit.", labels=labels)
    for alert in alerts:
        names = [alert.code, alert.subject, alert.severity.name.lower()]
        there.add_metric(names, 1)
        value.add_metric(names, alert.value)
    yield from (there, value)
