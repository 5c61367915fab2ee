from __future__ import annotations

import sys
from typing import Any

import pynvml  # type: ignore[import-untyped]
import pytest

from tests.hardware import machines
from tests.hardware.fake_nvml import Facts
from tests.hardware.live_nvml import BUSY, LiveNvml
from vlfleet.hardware.reading import GpuReading
from vlfleet.hardware.readings import GpuReader

CODES = sorted(pynvml.NVMLError._valClassMapping)
QUESTIONS = [
    *("nvmlDeviceGetUtilizationRates", "nvmlDeviceGetMemoryInfo", "nvmlDeviceGetPowerUsage", "nvmlDeviceGetName"),
    *("nvmlDeviceGetRemappedRows", "nvmlDeviceGetEnforcedPowerLimit", "nvmlDeviceGetMigMode", "nvmlDeviceGetClockInfo"),
    *("nvmlDeviceGetTemperature", "nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetTotalEccErrors"),
    "nvmlDeviceGetFieldValues",
]


def reader(facts: Facts, monkeypatch: pytest.MonkeyPatch) -> tuple[GpuReader, LiveNvml]:
    fake = LiveNvml(facts)
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    return GpuReader(), fake


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
    assert fake.started == 0


def test_a_gpu_that_tells_nothing_more_is_still_a_gpu_and_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made, fake = reader(one({}), monkeypatch)
    (gpu,) = made.read()
    assert gpu == GpuReading(0, "NVIDIA H200", memory_bytes=143771 << 20, used_bytes=613 << 20)
    fake.asked.clear()
    assert made.read() == (gpu,)
    assert fake.asked == []


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
    assert GpuReader().read() == ()
