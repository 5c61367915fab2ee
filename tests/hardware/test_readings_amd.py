from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.hardware.fake_amdsmi import MI300X, AmdSmiRetryException, Facts, FakeAmdSmi
from tests.hardware.live_nvml import BUSY, LiveNvml
from tests.hardware.machines import gpu, machine
from vlfleet.hardware import readings
from vlfleet.hardware.reading import GpuReading
from vlfleet.hardware.readings import GpuReader
from vlfleet.hardware.readings_amd import AmdReader


def reader(monkeypatch: pytest.MonkeyPatch, *gpus: Facts) -> tuple[AmdReader, FakeAmdSmi]:
    fake = FakeAmdSmi(*gpus)
    monkeypatch.setitem(sys.modules, "amdsmi", fake)
    return AmdReader(Path("/dev/null")), fake


def test_an_mi300x_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    made, fake = reader(monkeypatch, MI300X)
    assert made.read() == (
        GpuReading(
            index=0,
            name="AMD Instinct MI300X",
            utilization=0.93,
            memory_utilization=0.4,
            memory_bytes=196_592 << 20,
            used_bytes=180_000 << 20,
            temperature_celsius=78,
            power_watts=640.0,
            power_limit_watts=750.0,
            sm_clock_mhz=2100,
            throttle=frozenset({"sw_power_cap"}),
            ecc_uncorrected=0,
        ),
    )
    made.close()
    assert fake.started == 0


def test_a_board_that_tells_little(monkeypatch: pytest.MonkeyPatch) -> None:
    old = {
        "activity": {"gfx_activity": "N/A", "umc_activity": "N/A"},
        "power": {"socket_power": "N/A", "average_socket_power": 90, "current_socket_power": "N/A"},
        "temperature": {"EDGE": 50},
    }
    made, fake = reader(monkeypatch, old)
    (found,) = made.read()
    assert found == GpuReading(0, "AMD GPU", temperature_celsius=50, power_watts=90.0)
    fake.asked.clear()
    assert made.read() == (found,)
    asked = {"amdsmi_get_gpu_activity", "amdsmi_get_power_info", "amdsmi_get_temp_metric"}
    assert set(fake.asked) == asked, "what it does not tell it is not asked again"


def test_what_it_cannot_say_now_it_may_say_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = MI300X | {"activity": AmdSmiRetryException()}
    made, _ = reader(monkeypatch, facts)
    assert made.read()[0].utilization is None
    facts["activity"] = MI300X["activity"]
    assert made.read()[0].utilization == 0.93


def test_indices_are_those_of_hip(monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = reader(monkeypatch, MI300X | {"hip": 1}, MI300X | {"hip": 0, "temperature": {"HOTSPOT": 33}})
    assert [each.temperature_celsius for each in made.read()] == [33, 78]


@pytest.mark.parametrize("error", [KeyError("libamd_smi.so"), AttributeError("amdsmi_free"), OSError("no library")])
def test_without_a_driver_there_is_no_gpu(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "amdsmi", FakeAmdSmi(MI300X, error=error))
    assert AmdReader(Path("/dev/null")).read() == ()
    assert AmdReader(Path("/dev/null/none")).read() == ()
    monkeypatch.setitem(sys.modules, "amdsmi", None)
    assert AmdReader(Path("/dev/null")).read() == ()


def test_nvidia_goes_first_and_amd_stands_in(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeAmdSmi(MI300X)
    monkeypatch.setitem(sys.modules, "amdsmi", fake)
    monkeypatch.setitem(sys.modules, "pynvml", LiveNvml(machine([gpu(0, "NVIDIA H200", 143771, (9, 0), live=BUSY)])))
    monkeypatch.setattr(readings, "AmdReader", lambda: AmdReader(Path("/dev/null")))
    assert [each.name for each in GpuReader().read()] == ["NVIDIA H200"]
    assert fake.started == 0
    monkeypatch.setitem(sys.modules, "pynvml", None)
    made = GpuReader()
    assert [each.name for each in made.read()] == ["AMD Instinct MI300X"]
    made.close()
    assert fake.started == 0
