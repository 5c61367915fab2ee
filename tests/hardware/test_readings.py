from __future__ import annotations

import sys
import time
from typing import Any

import pynvml  # type: ignore[import-untyped]
import pytest

from tests.hardware import machines
from tests.hardware.fake_nvml import Facts
from tests.hardware.live_nvml import BUSY, LiveNvml
from vlfleet.hardware import xid_events
from vlfleet.hardware.reading import GpuReading
from vlfleet.hardware.readings_nvidia import SELDOM_SECONDS, NvidiaReader
from vlfleet.hardware.xid import XIDS, meaning

CODES = sorted(pynvml.NVMLError._valClassMapping)
QUESTIONS = [
    *("nvmlDeviceGetUtilizationRates", "nvmlDeviceGetMemoryInfo", "nvmlDeviceGetPowerUsage", "nvmlDeviceGetName"),
    *("nvmlDeviceGetRemappedRows", "nvmlDeviceGetEnforcedPowerLimit", "nvmlDeviceGetMigMode", "nvmlDeviceGetClockInfo"),
    *("nvmlDeviceGetTemperature", "nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetTotalEccErrors"),
    *("nvmlDeviceGetFieldValues", "nvmlDeviceGetTotalEnergyConsumption"),
]


def reader(facts: Facts, monkeypatch: pytest.MonkeyPatch) -> tuple[NvidiaReader, LiveNvml]:
    fake = LiveNvml(facts)
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    return NvidiaReader(), fake


def one(live: Facts, **more: object) -> Facts:
    return machines.machine([machines.gpu(0, "NVIDIA H200", 143771, (9, 0), live=live, **more)])


def error(code: int) -> Exception:
    raised: Exception = pynvml.NVMLError(code)
    return raised


def test_everything_that_a_new_driver_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    made, fake = reader(one(BUSY), monkeypatch)
    (gpu,) = made.read()
    assert gpu == GpuReading(
        index=0,
        name="NVIDIA H200",
        utilization=0.97,
        memory_utilization=0.41,
        memory_bytes=143771 << 20,
        used_bytes=613 << 20,
        temperature_celsius=71,
        power_watts=612.3,
        power_limit_watts=700.0,
        energy_joules=2808.028,
        sm_clock_mhz=1755,
        throttle=frozenset({"sw_power_cap"}),
        ecc_uncorrected=0,
        rows_failed=False,
        pcie_sent_bytes=5_000,
        pcie_received_bytes=7_000,
        nvlink_sent_bytes=3 * 1024,
        nvlink_received_bytes=4 * 1024,
    )
    made.close()
    assert (fake.started, fake.sets) == (0, 0)


def test_a_gpu_that_tells_nothing_more_is_still_a_gpu_and_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made, fake = reader(one({}), monkeypatch)
    (gpu,) = made.read()
    assert gpu == GpuReading(0, "NVIDIA H200", memory_bytes=143771 << 20, used_bytes=613 << 20)
    fake.asked.clear()
    assert made.read() == (gpu,)
    assert fake.asked == []


def test_what_costs_the_driver_milliseconds_is_asked_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    made, fake = reader(one(BUSY), monkeypatch)
    now = 1000.0
    monkeypatch.setattr("vlfleet.hardware.readings_nvidia.time.monotonic", lambda: now)
    energy, fields = "nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetFieldValues"
    first = made.read()
    fake.asked.clear()
    now += 1
    assert made.read() == first
    assert "nvmlDeviceGetUtilizationRates" in fake.asked
    assert (fake.asked.count(energy), fake.asked.count(fields)) == (0, 1)
    now += SELDOM_SECONDS
    made.read()
    assert (fake.asked.count(energy), fake.asked.count(fields)) == (1, 3)


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("question", QUESTIONS)
def test_no_error_of_the_driver_comes_through(question: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = reader(one(BUSY, errors={question: error(code)}), monkeypatch)
    (gpu,) = made.read()
    lost = code in (pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED)
    assert bool(gpu.fault) is lost
    assert (gpu.sm_clock_mhz is None) is (lost or question == "nvmlDeviceGetClockInfo")


def test_an_old_library_lacks_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    made, fake = reader(one(BUSY | {"old_reasons": 0x40}), monkeypatch)
    for name in ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetFieldValues"):
        _lacks(fake, name, monkeypatch)
    (gpu,) = made.read()
    assert gpu.throttle == frozenset({"hw_thermal"})
    assert gpu.pcie_sent_bytes is None
    assert gpu.nvlink_sent_bytes is None


def _lacks(fake: LiveNvml, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any) -> Any:
        raise AttributeError(name)

    monkeypatch.setattr(fake, name, missing)


def test_counters_of_32_bits_go_on_when_they_wrap(monkeypatch: pytest.MonkeyPatch) -> None:
    live = {**BUSY, "fields": {197: (1 << 32) - 1000, 198: 5, 138: 3, 139: 4}, "field_types": {197: 1, 198: 1}}
    monkeypatch.setattr("vlfleet.hardware.readings_nvidia.SELDOM_SECONDS", 0.0)
    made, fake = reader(one(live), monkeypatch)
    counters = fake.facts["gpus"][0]["live"]["fields"]
    first = made.read()[0]
    assert first.pcie_sent_bytes == (1 << 32) - 1000
    counters.update({197: 500, 198: 9})
    second = made.read()[0]
    assert second.pcie_sent_bytes == (1 << 32) + 500
    assert second.pcie_received_bytes == 9
    counters[197] = 400
    third = made.read()[0]
    assert third.pcie_sent_bytes == (2 << 32) + 400


def test_mig_hides_the_utilisation_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    live = {name: value for name, value in BUSY.items() if name != "utilization"}
    made, _ = reader(one(live, mig=1), monkeypatch)
    (gpu,) = made.read()
    assert gpu.mig
    assert gpu.utilization is None
    assert gpu.temperature_celsius == 71


def test_a_lost_gpu_has_a_fault_and_its_neighbours_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = machines.eight_h200()
    for gpu in facts["gpus"]:
        gpu["live"] = dict(BUSY)
    facts["gpus"][3]["errors"] = {"nvmlDeviceGetTemperature": error(pynvml.NVML_ERROR_GPU_IS_LOST)}
    facts["gpus"][5]["errors"] = {"nvmlDeviceGetHandleByIndex": error(pynvml.NVML_ERROR_GPU_IS_LOST)}
    made, _ = reader(facts, monkeypatch)
    gpus = made.read()
    assert [gpu.index for gpu in gpus] == list(range(8))
    assert [bool(gpu.fault) for gpu in gpus] == [index in (3, 5) for index in range(8)]
    assert gpus[3].utilization is None
    assert gpus[4].utilization == 0.97


@pytest.mark.parametrize("code", CODES)
def test_no_nvml_no_gpus(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = one(BUSY) | {"errors": {"nvmlInit": error(code)}}
    made, fake = reader(facts, monkeypatch)
    assert made.read() == ()
    facts["errors"] = {}
    assert made.read() == (), "it is not asked again at once"
    assert fake.started == 0


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert NvidiaReader().read() == ()


def test_a_driver_of_470(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no clocks event reasons, knows no field of PCIe or NVLink traffic, and had no `_v2` of waiting."""
    live = {**BUSY, "old_reasons": 0x4, "fields": {}}
    missing = pynvml.NVMLError(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
    facts = one(live, errors={"nvmlDeviceGetCurrentClocksEventReasons": missing})
    facts["errors"] = {"nvmlEventSetWait_v2": missing}
    made, fake = reader(facts, monkeypatch)
    fake.xids = [(0, 79)]
    (gpu,) = made.read()
    assert (gpu.utilization, gpu.temperature_celsius, gpu.energy_joules) == (0.97, 71, 2808.028)
    assert gpu.throttle == frozenset({"sw_power_cap"})
    assert (gpu.pcie_sent_bytes, gpu.nvlink_sent_bytes, gpu.xid) == (None, None, None)


def test_a_container_that_may_ask_nothing_but_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    denied = {name: error(pynvml.NVML_ERROR_NO_PERMISSION) for name in QUESTIONS if name != "nvmlDeviceGetName"}
    made, _ = reader(one(BUSY, errors=denied), monkeypatch)
    assert made.read() == (GpuReading(0, "NVIDIA H200"),)


def test_the_last_xid_of_each_gpu_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = machines.eight_h200()
    made, fake = reader(facts, monkeypatch)
    assert {gpu.xid for gpu in made.read()} == {None}
    fake.xids = [(1, 31), (3, 79), (3, 45), (5, 48), (5, 94)]
    gpus = made.read()
    assert [gpu.xid for gpu in gpus] == [None, 31, None, 79, None, 94, None, None], "45 follows the error itself"
    assert time.time() - gpus[3].xid_at < 5
    assert made.read()[3].xid == 79, "it stays"
    monkeypatch.setattr(xid_events, "CRITICAL_SECONDS", 0.0)
    fake.xids = [(3, 13)]
    assert made.read()[3].xid == 13, "an old one gives way"
    made.close()
    assert (fake.sets, fake.started) == (0, 0)


def test_a_gpu_without_events_and_one_that_sends_thousands(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = machines.eight_h200()
    facts["gpus"][0]["errors"] = {"nvmlDeviceRegisterEvents": error(pynvml.NVML_ERROR_NOT_SUPPORTED)}
    made, fake = reader(facts, monkeypatch)
    made.read()
    fake.xids = [(0, 79)] + [(2, 74)] * 5000
    gpus = made.read()
    assert (gpus[0].xid, gpus[2].xid) == (None, 74)
    assert len(fake.xids) > 4000, "one look takes a bounded number"


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("question", ["nvmlEventSetCreate", "nvmlDeviceRegisterEvents", "nvmlEventSetWait_v2"])
def test_no_error_of_events_comes_through(question: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = one(BUSY, errors={question: error(code)})
    facts["errors"] = {question: error(code)}
    made, fake = reader(facts, monkeypatch)
    fake.xids = [(0, 79)]
    assert made.read()[0].xid is None


def test_what_xids_mean() -> None:
    critical = {48, 62, 63, 64, 74, 79, 92, 94, 95, 119, 120, 140}
    assert {code for code, xid in XIDS.items() if xid.critical} == critical
    assert not meaning(13).critical
    assert not meaning(9999).critical
    assert "catalog" in meaning(9999).do
