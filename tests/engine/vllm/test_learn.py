"""Live correction: a recorded start of vLLM 0.26 on an H200 becomes the calibration that the next plan reads."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plan.shapes import config
from tests.plan.test_memory import decisions
from vlfleet.checkpoint import CheckpointInfo, preflight
from vlfleet.demo import model_path
from vlfleet.engine.launch import EngineOptions, EngineSpec, Placement, Value
from vlfleet.engine.vllm.install import Install
from vlfleet.engine.vllm.learn import corrected, learn, request_of
from vlfleet.errors import VlfleetError
from vlfleet.plan.memory import memory
from vlfleet.plan.memory_calibration import Calibration, path_of, read, write
from vlfleet.plan.terms import GIB, MIB

V26 = Install("python", "0.26.0")
H200 = Placement((0,), 143771 * MIB, True, 143158 * MIB, "NVIDIA H200")
SERVE = EngineSpec(
    Path("/models/x"),
    "x",
    options=EngineOptions(
        max_model_len=8192,
        max_pixels=1_003_520,
        limit_mm_per_prompt={"image": 4, "video": 0},
        gpu_memory_utilization=0.92,
    ),
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VLFLEET_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def info() -> CheckpointInfo:
    """Of Qwen2.5-VL-7B, as the logs' engines had it."""
    return replace(preflight(model_path()), config=config("Qwen2.5-VL-7B"), max_pixels=16384 * 784)


def test_a_start_corrects_the_next_prediction_to_a_block(info: CheckpointInfo) -> None:
    seen = decisions("serve")
    first = learn(V26, info, SERVE, H200, seen)
    assert first is not None
    assert first.said == "", "the built-in coefficients were fitted to this GPU"
    assert float(first.decisions["predicted_kv_cache_gib"]) == pytest.approx(111.65, abs=0.1)
    known = read("NVIDIA H200", (0, 26, 0))
    assert (known.gpu, known.starts) == ("NVIDIA H200", 1)
    request = request_of(V26, info, SERVE, H200)
    assert request is not None
    assert memory(request, known).kv_tokens == seen["kv_cache_tokens"]
    again = learn(V26, info, SERVE, H200, seen)
    assert again is not None
    assert again.decisions == {"predicted_kv_cache_gib": 111.65}
    assert read("NVIDIA H200", (0, 26, 0)).starts == 2


def test_a_start_leaves_the_date_of_the_calibration(info: CheckpointInfo) -> None:
    session = "vlfleet calibrate of 2026-11-21"
    write(replace(Calibration(), session=session, session_starts=3, starts=3, gpu="NVIDIA H200"))
    for number, said in enumerate(("; corrected by 1 start", "; corrected by 2 starts"), 4):
        assert learn(V26, info, SERVE, H200, decisions("serve"))
        known = read("NVIDIA H200", (0, 26, 0))
        assert (known.source, known.starts) == (session + said, number)


def test_a_miss_is_told(info: CheckpointInfo) -> None:
    write(replace(Calibration(), non_torch_bytes=GIB + 228 * MIB, gpu="NVIDIA H200"))
    lesson = learn(V26, info, SERVE, H200, decisions("serve"))
    assert lesson is not None
    assert lesson.said.startswith("111.65 GiB are left for the KV cache, 110.")
    assert lesson.said.endswith(" were predicted; the next plan knows")


def test_who_came_to_the_gpu_meanwhile_is_no_coefficient(info: CheckpointInfo) -> None:
    """20 GiB less were free than when the GPU was chosen: that is nobody's CUDA context."""
    seen = decisions("serve") | {"free_gib": 119.29}
    assert learn(V26, info, SERVE, H200, seen)
    assert read("NVIDIA H200", (0, 26, 0)).context_bytes == Calibration().context_bytes
    held = replace(H200, free_bytes=H200.free_bytes - 20 * GIB)
    assert learn(V26, info, SERVE, held, seen)
    context = read("NVIDIA H200", (0, 26, 0)).context_bytes
    assert context == pytest.approx(0.51 * GIB, abs=10 * MIB), "it was chosen with 20 GiB taken"


def test_a_start_of_something_else_is_not_kept(info: CheckpointInfo) -> None:
    lesson = learn(V26, info, SERVE, H200, decisions("serve") | {"activation_gib": 30.0, "kv_cache_gib": 80.0})
    assert lesson is not None
    assert "not kept" in lesson.said
    assert read("NVIDIA H200", (0, 26, 0)) == Calibration()


@pytest.mark.parametrize(
    ("install", "spec", "placement", "seen"),
    [
        (Install("python", "0.32.0+cpu"), SERVE, Placement(), {}),
        (V26, SERVE, Placement((0,), 143771 * MIB), {}),
        (V26, replace(SERVE, engine_args=("--cpu-offload-gb", "4")), H200, {}),
        (V26, replace(SERVE, options=replace(SERVE.options, kv_cache_memory_bytes=GIB)), H200, {}),
        (V26, SERVE, H200, {"kv_cache_gib": None}),
    ],
)
def test_what_tells_nothing(
    info: CheckpointInfo, install: Install, spec: EngineSpec, placement: Placement, seen: dict[str, Any], home: Path
) -> None:
    told = {name: value for name, value in (decisions("serve") | seen).items() if value is not None}
    assert learn(install, info, spec, placement, told) is None
    assert list(home.iterdir()) == []


def test_variables_that_change_what_is_measured(info: CheckpointInfo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", "0")
    assert learn(V26, info, SERVE, H200, decisions("serve")) is None


def test_a_file_that_cannot_be_read_or_written_says_so(info: CheckpointInfo, home: Path) -> None:
    file = path_of("NVIDIA H200", (0, 26, 0))
    file.parent.mkdir()
    file.write_text("{")
    with pytest.raises(VlfleetError, match="is no calibration"):
        learn(V26, info, SERVE, H200, decisions("serve"))
    file.unlink()
    file.with_suffix(f".{os.getpid()}.new").mkdir()
    with pytest.raises(IsADirectoryError):
        learn(V26, info, SERVE, H200, decisions("serve"))
    assert not file.exists()


def test_replicas_that_become_ready_together_are_all_counted(info: CheckpointInfo, home: Path) -> None:
    threads = [threading.Thread(target=learn, args=(V26, info, SERVE, H200, decisions("serve"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read("NVIDIA H200", (0, 26, 0)).starts == 8
    assert len(list((home / "calibration").iterdir())) == 1


@settings(max_examples=100, deadline=None)
@given(
    st.fixed_dictionaries(
        {"kv_cache_gib": st.floats(0.5, 130)},
        optional={
            "free_gib": st.floats(0, 139.8),
            "total_gib": st.just(139.8),
            "activation_gib": st.floats(0, 50),
            "graphs_gib": st.floats(0, 5),
        },
    ),
    st.sampled_from((1, 2)),
)
def test_no_log_makes_a_calibration_that_is_out_of_reason(seen: dict[str, Value], tp: int) -> None:
    spec = replace(SERVE, tensor_parallel_size=tp)
    info = replace(preflight(model_path()), config=config("Qwen2.5-VL-7B"), max_pixels=16384 * 784)
    request = request_of(V26, info, spec, H200)
    assert request is not None
    found = corrected(request, seen, Calibration())
    if found is None:
        return
    assert 0 <= found.collectives_bytes <= 3 * GIB
    assert 0 < found.context_bytes <= 3 * GIB
    assert 0 <= found.non_torch_bytes <= 3 * GIB
    assert 0.25 <= found.activation_scale <= 4
