"""What the watch sees, as Prometheus reads it."""

from __future__ import annotations

from dataclasses import fields, replace

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tests.watch.rig import WELL, with_gpu, with_replica
from vlfleet.hardware.reading import THROTTLE_REASONS, GpuReading
from vlfleet.watch.alert import Alert, Severity
from vlfleet.watch.exposed import Exposed
from vlfleet.watch.model import Sample

Found = dict[str, list[tuple[dict[str, str], float]]]


def exposed(sample: Sample | None, *alerts: Alert) -> Found:
    found: Found = {}
    for family in text_string_to_metric_families(generate_latest(Exposed(sample, alerts)).decode()):
        for each in family.samples:
            found.setdefault(each.name, []).append((dict(each.labels), each.value))
    return found


def test_a_gpu_in_base_units() -> None:
    gpu = GpuReading(
        index=1,
        name='NVIDIA "H200"',
        utilization=0.5,
        memory_utilization=0.25,
        memory_bytes=1000,
        used_bytes=900,
        temperature_celsius=61,
        power_watts=520.0,
        power_limit_watts=700.0,
        energy_joules=1e6,
        sm_clock_mhz=1980,
        throttle=frozenset({"sw_thermal"}),
        ecc_uncorrected=2,
        rows_failed=True,
        xid=79,
        xid_at=1.8e9,
        pcie_sent_bytes=1,
        pcie_received_bytes=2,
        nvlink_sent_bytes=3,
        nvlink_received_bytes=4,
        mig=True,
    )
    found = exposed(replace(WELL, gpus=(gpu,)))
    own = {"gpu": "1", "replica": "r1"}
    assert found["vlfleet:gpu_info"] == [({**own, "name": 'NVIDIA "H200"', "mig": "true", "engine": "vllm"}, 1)]
    values = {
        name.removeprefix("vlfleet:gpu_"): value
        for name, samples in found.items()
        for labels, value in samples
        if labels == own
    }
    assert values == {
        "utilization_ratio": 0.5,
        "memory_utilization_ratio": 0.25,
        "memory_bytes": 1000,
        "memory_used_bytes": 900,
        "temperature_celsius": 61,
        "power_watts": 520,
        "power_limit_watts": 700,
        "energy_joules_total": 1e6,
        "sm_clock_hertz": 1.98e9,
        "ecc_uncorrected_errors_total": 2,
        "rows_failed": 1,
        "xid": 79,
        "xid_time_seconds": 1.8e9,
        "pcie_sent_bytes_total": 1,
        "pcie_received_bytes_total": 2,
        "nvlink_sent_bytes_total": 3,
        "nvlink_received_bytes_total": 4,
        "fault": 0,
    }
    others = ("index", "name", "mig", "throttle")
    assert len(values) + len(others) == len(fields(GpuReading)), "every fact is told"
    slowed = {labels["reason"]: value for labels, value in found["vlfleet:gpu_throttled"]}
    assert slowed == {reason: float(reason == "sw_thermal") for reason in THROTTLE_REASONS.values()}


def test_what_a_driver_does_not_tell_has_no_sample() -> None:
    found = exposed(replace(WELL, gpus=(GpuReading(7, fault="GPU is lost"),)))
    there = {name for name in found if name.startswith("vlfleet:gpu_")}
    assert there == {"vlfleet:gpu_info", "vlfleet:gpu_fault"}
    assert found["vlfleet:gpu_fault"] == [({"gpu": "7", "replica": ""}, 1)]


def test_a_gpu_of_two_replicas_is_there_once() -> None:
    found = exposed(with_replica(with_gpu(WELL, 0, utilization=0.5), "r1", gpus=(0, 1)))
    shares = {(labels["gpu"], labels["replica"]) for labels, _ in found["vlfleet:gpu_utilization_ratio"]}
    assert shares == {("0", "r0,r1"), ("1", "r1"), ("2", "r2"), ("3", "r3")}


def test_the_host() -> None:
    found = exposed(WELL)
    hosts = {name.removeprefix("vlfleet:host_"): samples for name, samples in found.items() if ":host_" in name}
    gib = 1 << 30
    assert {name: samples[0][1] for name, samples in hosts.items()} == {
        "cpu_ratio": 0.2,
        "memory_bytes": 64 * gib,
        "memory_used_bytes": 20 * gib,
        "disk_bytes": 1000 * gib,
        "disk_free_bytes": 500 * gib,
        "network_sent_bytes_total": 0,
        "network_received_bytes_total": 0,
    }


def test_alerts_and_nothing_else_before_the_first_look() -> None:
    alert = Alert("gpu_hot", "gpu0", Severity.WARNING, "it is hot", "cool it", 88.0, 86.0, 1.0)
    labels = {"code": "gpu_hot", "subject": "gpu0", "severity": "warning"}
    assert exposed(None, alert) == {"vlfleet:alert": [(labels, 1)], "vlfleet:alert_value": [(labels, 88)]}
