"""What the child that asks the driver says, and what is made of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pynvml  # type: ignore[import-untyped]
import pytest

from tests.checkup.fake_nvml import DoctorNvml
from tests.hardware import machines
from tests.hardware.fake_nvml import Facts
from vlfleet.checkup.checks import CHECKS
from vlfleet.checkup.command import Ran, run
from vlfleet.checkup.examine import judge
from vlfleet.checkup.facts import gpus as facts
from vlfleet.checkup.facts import gpus_inside
from vlfleet.checkup.facts.gpus import Gpus
from vlfleet.checkup.known import Known
from vlfleet.checkup.scene import Scene
from vlfleet.hardware.probe import probe

SOUND = {
    "width": 16, "max_width": 16, "slot_generation": 5, "gpu_generation": 5, "persistence": 1,
    "compute_mode": 0, "ecc": 0,
    "rows": (0, 0, 0, 0), "power_limit": 700_000, "power_default": 700_000, "clock": 1980, "clock_default": 1980,
    "reasons": 0x1, "temperature": 31, "fabric": (3, 0),
}  # fmt: skip


def asked(facts_: Facts, root: Path, monkeypatch: pytest.MonkeyPatch) -> Gpus:
    """Through JSON, as from the child."""
    fake = DoctorNvml(facts_)
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    said = gpus_inside.read(root, cuda=False)
    assert fake.started == 0
    return facts.parse(json.loads(json.dumps(said)))


def eight(**changes: object) -> Facts:
    machine = machines.eight_h200()
    for gpu in machine["gpus"]:
        gpu["state"] = {**SOUND}
    machine["gpus"][5]["state"] |= changes
    return machine


def verdicts(gpus: Gpus) -> dict[str, str]:
    names = ("gpu-soundness", "persistence", "power-limit", "clocks", "pcie-link", "compute-mode", "fabric", "nvlinks")
    outcomes = judge(Known(gpus), [check for check in CHECKS if check.name in names])
    return {o.check.name: o.finding.verdict.value for o in outcomes if o.finding.verdict.bad}


def test_it_says_what_probe_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = asked(eight(), tmp_path, monkeypatch)
    assert found.machine == probe(tmp_path)
    assert len(found.states) == 8
    state = found.states[5]
    assert (state.index, state.pcie_width, state.persistence, state.power_limit_watts) == (5, 16, True, 700.0)
    assert (state.fabric_state, state.fabric_status, len(state.nvlinks), state.slowdowns) == (3, 0, 18, ())
    assert verdicts(found) == {}


@pytest.mark.parametrize(
    ("changes", "name", "verdict"),
    [
        ({"rows": (0, 1, 1, 0)}, "gpu-soundness", "risk"),
        ({"rows": (0, 9, 0, 1)}, "gpu-soundness", "fail"),
        ({"retired_pending": 1}, "gpu-soundness", "risk"),
        ({"ecc": 3}, "gpu-soundness", "risk"),
        ({"persistence": 0}, "persistence", "slow"),
        ({"power_limit": 400_000}, "power-limit", "slow"),
        ({"clock": 1000}, "clocks", "slow"),
        ({"reasons": 0x40}, "clocks", "slow"),
        ({"width": 4}, "pcie-link", "slow"),
        ({"slot_generation": 3}, "pcie-link", "slow"),
        ({"compute_mode": pynvml.NVML_COMPUTEMODE_PROHIBITED}, "compute-mode", "fail"),
        ({"compute_mode": pynvml.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS}, "compute-mode", "risk"),
    ],
)
def test_one_gpu_that_is_not_well(
    changes: dict[str, object], name: str, verdict: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert verdicts(asked(eight(**changes), tmp_path, monkeypatch)) == {name: verdict}


def test_old_drivers_tell_reasons_under_their_old_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = eight(old_reasons=0x8)
    del machine["gpus"][5]["state"]["reasons"]
    assert asked(machine, tmp_path, monkeypatch).states[5].slowdowns == ("hw_slowdown",)


def test_a_board_that_tells_nothing_raises_no_alarm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = asked(machines.gb10(), tmp_path, monkeypatch)
    assert [state.pcie_width for state in found.states] == [None]
    assert verdicts(found) == {}


def test_a_link_that_is_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = eight()
    machine["gpus"][2]["nvlinks"] = [None, *machine["gpus"][2]["nvlinks"][1:]]
    assert verdicts(asked(machine, tmp_path, monkeypatch)) == {"nvlinks": "slow"}


def test_the_driver_that_runs_and_its_libraries_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = pynvml.NVMLError(pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH)
    found = asked({"gpus": [], "errors": {"nvmlInit": error}}, tmp_path, monkeypatch)
    assert ("different versions" in found.fault, "reboot" in found.remedy) == (True, True)
    bad = [outcome for outcome in judge(Known(found), CHECKS) if outcome.finding.verdict.bad]
    assert [outcome.check.name for outcome in bad] == ["driver"]


def test_a_gpu_that_is_lost_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = eight()
    machine["gpus"][5]["errors"] = {"nvmlDeviceGetHandleByIndex": pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)}
    found = asked(machine, tmp_path, monkeypatch)
    assert [state.index for state in found.states] == [0, 1, 2, 3, 4, 6, 7]
    assert found.machine.gpus[5].fault == "GPU is lost"
    assert len(found.whole) == 7


def test_the_child_on_this_machine() -> None:
    found = facts.gather(Scene(quick=True), Known())
    assert (found.fault, found.machine.cores >= 1) == ("", True)


@pytest.mark.parametrize(
    ("script", "fault"),
    [
        ("import time; time.sleep(60)", "the NVIDIA driver did not answer within 1 s"),
        ("import sys; sys.exit('segmentation')", "the program that asks the driver ended with 1: segmentation"),
        ("print('no json')", "the program that asks the driver ended with 0: no json"),
        ("import os; os.kill(os.getpid(), 11)", "the program that asks the driver ended with -11"),
    ],
)
def test_a_child_that_hangs_or_dies_is_a_finding(script: str, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(argv: object, *, seconds: float, env: object) -> Ran:
        return run([sys.executable, "-c", script], seconds=1 if "sleep" in script else 30)

    monkeypatch.setattr(facts, "run", other)
    monkeypatch.setattr(facts, "SECONDS", 1.0)
    found = facts.gather(Scene(), Known())
    assert found.fault.startswith(fault)
    assert [o.check.name for o in judge(Known(found), CHECKS) if o.finding.verdict.bad] == ["driver"]
