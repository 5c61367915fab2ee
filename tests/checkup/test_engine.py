"""The doctor looks at the real vLLM that is installed beside (on the CPU)."""

from __future__ import annotations

import os

import pytest

from tests.doctor.record import VLLM
from vlfleet.checkup.checks import engine
from vlfleet.checkup.examine import judge
from vlfleet.checkup.facts.gpus import Gpus
from vlfleet.checkup.facts.packages import gather_imports, gather_packages
from vlfleet.checkup.known import Known
from vlfleet.checkup.scene import Scene
from vlfleet.engine.vllm.install import WHERE

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]


def test_an_installation_in_order_raises_no_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    assert VLLM.is_file(), "run `make test-engine`, which installs it"
    monkeypatch.setenv(WHERE, str(VLLM))
    scene = Scene(env=dict(os.environ))
    packages = gather_packages(scene, Known())
    assert packages.vllm.startswith("0.")
    assert packages.versions["torch"]
    assert {"VLLM_PORT", "VLLM_HOST_IP", "VLLM_MAX_IMAGE_PIXELS"} <= packages.vllm_variables
    imports = gather_imports(scene, Known(packages))
    outcomes = judge(Known(packages, imports, Gpus()), engine.CHECKS)
    bad = {o.check.name: o.finding.saw for o in outcomes if o.finding.verdict.bad or o.finding.verdict == "unknown"}
    assert bad == {}
    assert next(o.finding.verdict for o in outcomes if o.check.name == "vllm-imports") == "well"
