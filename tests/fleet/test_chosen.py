"""The plan that chose a fleet, and what the fleet says it runs."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fakes import FakeEngine
from vlfleet.engine.launch import EngineOptions, Placement
from vlfleet.fleet.chosen import FILE, keep, kept
from vlfleet.fleet.folder import FleetFolder
from vlfleet.fleet.processes import ProcessId
from vlfleet.fleet.replica import Replica
from vlfleet.fleet.running import MASK, running
from vlfleet.fleet.spec import FleetSpec
from vlfleet.fleet.state import FleetState

SPEC = FleetSpec(Path("/models/q"), "q", engine="vllm", options=EngineOptions(max_model_len=8192))
PLAN = {"format": 1, "fits": True, "fleets": [{"gpu": "H200"}]}


@pytest.fixture
def folder(tmp_path: Path) -> FleetFolder:
    made = FleetFolder(tmp_path / "default")
    made.make()
    return made


def test_a_plan_is_kept_for_whoever_runs_what_it_chose(folder: FleetFolder) -> None:
    assert kept(folder, SPEC) is None
    keep(folder, SPEC, PLAN, "planned for ocr", "<svg/>")
    assert stat.S_IMODE((folder.path / FILE).stat().st_mode) == 0o600
    same = {**PLAN, "why": "planned for ocr", "memory_svg": "<svg/>"}
    assert kept(folder, SPEC) == same
    assert kept(folder, replace(SPEC, threads=9, port=1, policy="sticky", name="other")) == same


@pytest.mark.parametrize(
    "other",
    [
        replace(SPEC, replicas=3),
        replace(SPEC, tensor_parallel_size=2),
        replace(SPEC, options=EngineOptions(max_model_len=4096)),
        replace(SPEC, engine_args=("--seed=1",)),
        replace(SPEC, model=Path("/models/other")),
        replace(SPEC, engine="embedded"),
    ],
)
def test_it_says_nothing_of_another_fleet(folder: FleetFolder, other: FleetSpec) -> None:
    keep(folder, SPEC, PLAN, "", "")
    assert kept(folder, other) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"chose": 1}', b"\xff"])
def test_a_damaged_file_is_none(folder: FleetFolder, content: bytes) -> None:
    (folder.path / FILE).write_bytes(content)
    assert kept(folder, SPEC) is None


def test_what_runs_is_told_without_a_key() -> None:
    replicas = [Replica(f"r{n}", 4000 + n, "secret-key", "fake", placement=Placement((n,))) for n in range(2)]
    replicas[1].adjusted = "max_model_len 8192 -> 4096"
    smaller = replace(SPEC.engine_spec, options=EngineOptions(max_model_len=4096))
    state = FleetState(SPEC, ProcessId(1, "boot+1"), 0.0, replicas=replicas, healed={"r1": smaller})
    told = running(state, FakeEngine(), "planned for ocr")
    assert (told["layout"], told["chosen_by"], told["options"]) == ("2 x TP1", "plan", {"max_model_len": 8192})
    assert [each["gpus"] for each in told["replicas"]] == [[0], [1]]
    assert "4001" in " ".join(told["replicas"][1]["command"])
    assert told["replicas"][1]["adjusted"] == "max_model_len 8192 -> 4096"
    assert MASK in told["replicas"][0]["env"].values()
    assert "secret-key" not in str(told)
    assert running(state, FakeEngine(), "")["chosen_by"] == "person"
    bare = replace(state, spec=replace(SPEC, options=EngineOptions(), pipeline_parallel_size=2))
    told = running(bare, FakeEngine(), "")
    assert (told["chosen_by"], told["layout"]) == ("default", "2 x TP1 x PP2")
