"""`vlfleet calibrate` as a person has it: what it prints, its exit codes, and what plans then say of their sources."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tests.calibrate import fake
from tests.plan.shapes import CONFIGS
from vlfleet.calibrate.memory import Start, calibration
from vlfleet.fleet.processes import MARK
from vlfleet.plan import memory_calibration, speed_coefficients
from vlfleet.plan.flags import Flags
from vlfleet.plan.memory import Request
from vlfleet.plan.shape import read_shape
from vlfleet.plan.speed_coefficients import Coefficients

ROOT = Path(__file__).parents[2]
VLLM = ROOT / ".venv-vllm"
VLFLEET = (sys.executable, "-m", "vlfleet")


def vlfleet(home: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Without GPUs, whatever this machine has."""
    return subprocess.run(
        [*VLFLEET, *arguments],
        env={**os.environ, "VLFLEET_HOME": str(home), "NO_COLOR": "1", **env},
        capture_output=True,
        text=True,
        timeout=170,
    )


def test_without_vllm_one_line_says_what_it_needs(tmp_path: Path) -> None:
    done = vlfleet(tmp_path, "calibrate", "--vllm", str(tmp_path))
    assert done.returncode == 1
    assert done.stdout == ""
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == ["error", "remedy"]
    assert "pip install vllm" in done.stderr


def vllm_in(folder: Path, version: str) -> str:
    """A Python whose vLLM has this version and nothing else."""
    python = folder / "python"
    python.write_text(f"#!/bin/sh\necho {version}\n", encoding="utf-8")
    python.chmod(0o755)
    return str(python)


def test_a_vllm_for_gpus_needs_one(tmp_path: Path) -> None:
    if list(Path("/dev").glob("nvidia[0-9]*")):
        pytest.skip("there is one")
    done = vlfleet(tmp_path, "calibrate", "--vllm", vllm_in(tmp_path, "0.26.0"))
    assert done.returncode == 3
    assert "no NVIDIA GPU" in done.stderr
    refused = vlfleet(tmp_path, "calibrate", "--vllm", vllm_in(tmp_path, "0.32.0+cpu"), "--gpus", "0")
    assert refused.returncode == 2
    assert "built for the CPU" in refused.stderr
    unknown = vlfleet(tmp_path, "calibrate", "nothing", "--vllm", vllm_in(tmp_path, "0.32.0+cpu"))
    assert unknown.returncode == 2
    assert "no published Qwen-VL model" in unknown.stderr


def test_a_plan_says_what_was_calibrated_and_when(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLFLEET_HOME", str(tmp_path))
    flags = Flags(max_model_len=8192, images_per_prompt=1, videos_per_prompt=0)
    asked = Request(read_shape(CONFIGS["Qwen2.5-VL-7B"]), fake.H200, (0, 26, 0), flags)
    source = "vlfleet calibrate of 2026-11-21: vLLM 0.26.0 on NVIDIA H200, cut to 9 and 28 layers"
    single, both = (Start(each, fake.decided(each)) for each in (asked, replace(asked, tensor_parallel_size=2)))
    known = calibration([single], both, 28, source)
    named = ("plan", "Qwen2.5-VL-7B", "--gpus", "2xH200", "--vllm-version", "0.26", "--compare", "TP2", "--explain")
    assert known.gpu == "NVIDIA H200", "by NVML; no driver names it here"
    before = vlfleet(tmp_path, *named, "memory").stdout
    assert "a prior that was not measured here" in before
    assert "Coefficients: built in" in vlfleet(tmp_path, *named, "speed").stdout
    memory_calibration.write(known)
    speed_coefficients.write(Coefficients(), known.gpu, "0.26.0", ["vlfleet calibrate of 2026-11-21"])
    after = vlfleet(tmp_path, *named, "memory").stdout
    assert after.count("fitted: vlfleet calibrate of 2026-11-21: vLLM 0.26.0 on NVIDIA H200") >= 4
    assert "a prior that was not measured here" not in after
    assert "Coefficients: vlfleet calibrate of 2026-11-21" in vlfleet(tmp_path, *named, "speed").stdout


@pytest.mark.engine
@pytest.mark.timeout(240)
def test_the_real_vllm_on_the_cpu(tmp_path: Path) -> None:
    """Two cuts of the bundled model: what they hold is what a plan says, and nothing is left behind."""
    begun = time.monotonic()
    done = vlfleet(tmp_path, "calibrate", "--vllm", str(VLLM), "--json")
    assert done.returncode == 0, done.stderr[-3000:]
    assert time.monotonic() - begun < 150, "30 s on two idle cores"
    found = json.loads(done.stdout)
    assert (found["gpu"], found["vllm"][:4]) == ("CPU", "0.32")
    by_kind: dict[str, list[dict[str, object]]] = {}
    for result in found["results"]:
        by_kind.setdefault(result["kind"], []).append(result)
    assert [check["off_bytes"] for check in by_kind["check"]] == [0, 0]
    assert [check["layers"] for check in by_kind["check"]] == [2, 8]
    rows = {str(row["row"]): float(str(row["value"])) for row in by_kind["speed"]}
    assert set(rows) == {
        f"{kind}, 8 layers"
        for kind in ("decode 1", "decode 4", "prefill 256", "picture 224", "pictures 224", "text 64")
    }
    assert rows["decode 1, 8 layers"] < rows["prefill 256, 8 layers"]
    assert rows["decode 4, 8 layers"] < 4 * rows["decode 1, 8 layers"]
    assert rows["picture 224, 8 layers"] > rows["prefill 256, 8 layers"] / 10
    assert by_kind["host"][0]["process_seconds_per_pixel"] > 0  # type: ignore[operator]
    assert not list(tmp_path.rglob("*.json")), "plans are for GPUs"
    assert "s left" in done.stderr


@pytest.mark.engine
@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    env = {**os.environ, "VLFLEET_HOME": str(tmp_path)}
    command = [*VLFLEET, "calibrate", "--vllm", str(VLLM)]
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    for line in process.stderr:
        if line.startswith("engine with"):
            break
    time.sleep(3)
    running = [each for each in psutil.Process(process.pid).children(recursive=True) if MARK in each.environ()]
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert len(running) >= 2
    assert not any(each.is_running() for each in running)
