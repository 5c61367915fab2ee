"""A calibration from one start predicts another, and survives its file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plan.test_memory import CASES, H200, OFFLINE, SERVE, STARTS, decisions, planned, request
from vlfleet.errors import VlfleetError
from vlfleet.plan import speed_coefficients
from vlfleet.plan.memory import Request, memory
from vlfleet.plan.memory_calibration import Calibration, path_of, read, write
from vlfleet.plan.memory_observed import calibrated
from vlfleet.plan.terms import GIB, MIB

BLANK = Calibration(
    context_bytes=GIB,
    collectives_bytes=0,
    non_torch_bytes=0,
    activation_fixed_bytes=0,
    activation_scale=1.3,
    graph_bytes=10**6,
)
"""A bad start: nothing that was fitted to these logs is left."""


@pytest.mark.parametrize("learned", STARTS)
@pytest.mark.parametrize("asked", STARTS)
def test_one_start_of_the_h200_predicts_the_others_within_64_mib(learned: str, asked: str) -> None:
    known = calibrated(request(flags=STARTS[learned]), decisions(learned), BLANK)
    plan, seen = memory(request(flags=STARTS[asked]), known), decisions(asked)
    said = int(seen["kv_cache_tokens"]) * plan.ranks[0].kv_bytes_per_token
    assert abs(plan.available_kv_bytes - said) < (MIB if asked == learned else 64 * MIB)
    assert plan.ranks[0].term("CUDA graphs").bytes / GIB == pytest.approx(float(seen["graphs_gib"]), abs=0.02)
    assert plan.ranks[0].term("CUDA context").bytes / GIB == pytest.approx(0.51, abs=0.006)


def test_it_says_where_it_is_from() -> None:
    known = calibrated(request(), decisions("serve"))
    assert (known.gpu, known.release, known.starts) == ("NVIDIA H200", (0, 26, 0), 1)
    assert known.source == "derived from 1 start of vLLM 0.26.0 on NVIDIA H200"
    again = calibrated(request(flags=OFFLINE), decisions("tp1"), known)
    assert again.source == "derived from 2 starts of vLLM 0.26.0 on NVIDIA H200"
    assert memory(request(), again).ranks[0].term("CUDA graphs").fitted == again.source


def test_what_calibrate_said_of_itself_stays() -> None:
    session = "vlfleet calibrate of 2026-11-21: vLLM 0.26.0 on NVIDIA H200, cut to 9 and 28 layers"
    known = replace(calibrated(request(), decisions("serve")), session=session, session_starts=1)
    assert known.source == session
    once = calibrated(request(flags=OFFLINE), decisions("tp1"), known)
    assert once.source == f"{session}; corrected by 1 start"
    again = calibrated(request(), decisions("serve"), once)
    assert again.source == f"{session}; corrected by 2 starts"
    assert memory(request(), again).ranks[0].term("CUDA graphs").fitted == again.source


def test_what_the_log_lacks_stays_as_it_was() -> None:
    known = calibrated(request(), {}, BLANK)
    assert replace(known, gpu="", starts=0) == BLANK
    assert calibrated(request(), {"kv_cache_gib": 111.65}).activation_scale == 1.0


def test_collectives_are_what_two_ranks_lack_beyond_one_context() -> None:
    seen = {"total_gib": 139.8, "free_gib": 138.6}
    known = calibrated(request(tp=2), seen)
    assert known.context_bytes == Calibration().context_bytes
    assert known.collectives_bytes == round(1.2 * GIB) - known.context_bytes - 24 * MIB
    held = calibrated(replace(request(tp=2), device=replace(H200, free_bytes=H200.total_bytes - GIB)), seen)
    assert held.collectives_bytes == 0, "another process had that"


def test_with_the_tower_at_the_peak_the_tower_is_scaled() -> None:
    asked = request(flags=replace(SERVE, runner=1, max_num_batched_tokens=2048, max_num_seqs=16, max_pixels=None))
    plan = memory(asked)
    assert plan.budget.tokens == 16_384
    known = calibrated(asked, {"activation_gib": 1.25})
    assert known.vision_scale < 1 == known.activation_scale


@settings(max_examples=60, deadline=None)
@given(CASES, st.floats(0.5, 20))
def test_the_available_memory_that_was_seen_is_what_is_predicted_next_time(asked: Request, gib: float) -> None:
    plan = planned(asked)
    if plan is None:
        return
    known = calibrated(asked, {"kv_cache_gib": gib})
    off = memory(asked, known).available_kv_bytes - round(gib * GIB)
    assert off == 0 or known.non_torch_bytes == 0, "more than everything that is not known for certain"


def test_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLFLEET_HOME", str(tmp_path))
    assert read("NVIDIA H200", (0, 26, 0)) == Calibration()
    known = calibrated(request(), decisions("serve"))
    assert write(known) == tmp_path / "calibration" / "memory-h200-0.26.0.json"
    assert read("NVIDIA H200", (0, 26, 0)) == known
    assert read("NVIDIA H200", (0, 32, 0)) == Calibration(), "another release is another calibration"
    assert [file.name for file in (tmp_path / "calibration").iterdir()] == ["memory-h200-0.26.0.json"]


@pytest.mark.parametrize("text", ["{", "[]", '{"context_bytes": "much"}', '{"graph_bytes": true}', "\udcff"])
def test_a_file_that_cannot_be_used_is_named(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLFLEET_HOME", str(tmp_path))
    file = path_of("NVIDIA H200", (0, 26, 0))
    file.parent.mkdir()
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(VlfleetError, match=r"memory-h200-0.26.0.json is no calibration"):
        read("NVIDIA H200", (0, 26, 0))


@pytest.mark.parametrize(
    ("names", "file"),
    [
        (("NVIDIA H200", "H200", "h200"), "memory-h200-0.26.0.json"),
        (("NVIDIA H100 80GB HBM3", "H100"), "memory-h100-0.26.0.json"),
        (("NVIDIA GeForce RTX 4090", "RTX-4090", "4090"), "memory-rtx4090-0.26.0.json"),
        (("NVIDIA A100-SXM4-80GB", "A100-80GB"), "memory-a10080gb-0.26.0.json"),
        (("NVIDIA A100-PCIE-40GB", "A100-40GB-PCIe"), "memory-a10040gbpcie-0.26.0.json"),
        (("NVIDIA Next 9000", "next-9000"), "memory-next9000-0.26.0.json"),
        (("",), "memory-gpu-0.26.0.json"),
    ],
)
def test_all_names_of_a_gpu_have_one_file(names: tuple[str, ...], file: str) -> None:
    assert {path_of(name, (0, 26, 0)).name for name in names} == {file}
    speed = file.removeprefix("memory-").replace(".json", "-speed.json")
    assert {speed_coefficients.path_of(name, "0.26.0").name for name in names} == {speed}


def test_a_file_of_another_version_keeps_what_it_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLFLEET_HOME", str(tmp_path))
    file = path_of("x", (0, 26, 0))
    file.parent.mkdir()
    file.write_text('{"context_bytes": 7, "activation_scale": 1, "unheard_of": []}', encoding="utf-8")
    assert read("x", (0, 26, 0)) == Calibration(context_bytes=7)
