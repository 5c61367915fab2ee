"""`vlfleet doctor` as a person and as a program reads it, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from typer.testing import CliRunner

from tests.checkup.worlds import DISKS, HOST, MODEL, laptop, server
from vlfleet.checkup import examine as examination
from vlfleet.checkup.check import Group, Outcome, Verdict
from vlfleet.checkup.checks import CHECKS
from vlfleet.checkup.examine import judge
from vlfleet.checkup.known import Known
from vlfleet.checkup.scene import Scene
from vlfleet.cli import app
from vlfleet.cli.doctor_machine import told

DEMO = Path(__file__).parents[2] / "src/vlfleet/demo/model"
TEXT = {"type": "string", "minLength": 1}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["schema", "vlfleet", "verdict", "quick", "seconds", "counts", "checks"],
    "properties": {
        "schema": {"const": 1},
        "vlfleet": TEXT,
        "verdict": {"enum": ["fail", "risk", "slow", "well"]},
        "quick": {"type": "boolean"},
        "seconds": {"type": "number"},
        "counts": {
            "type": "object",
            "required": [each.value for each in Verdict],
            "additionalProperties": {"type": "integer"},
        },
        "checks": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["check", "group", "verdict", "saw", "why", "remedy", "source", "numbers"],
                "properties": {
                    "check": TEXT,
                    "group": {"enum": [group.name.lower() for group in Group]},
                    "verdict": {"enum": [each.value for each in Verdict]},
                    "saw": TEXT,
                    "why": TEXT,
                    "remedy": {"type": ["string", "null"], "minLength": 1},
                    "source": {"type": ["string", "null"]},
                    "numbers": {"type": "object"},
                },
            },
        },
    },
}  # fmt: skip
FULL = (replace(HOST, shm_bytes=64 << 20, shm_free_bytes=64 << 20), replace(MODEL, bytes=150 << 30))
"""A model that needs tensor parallelism, in a container as docker makes it."""


def outcomes(known: Known) -> tuple[Outcome, ...]:
    return judge(known, CHECKS)


def doctor(monkeypatch: pytest.MonkeyPatch, known: Known, *arguments: str) -> tuple[int, str, list[Scene]]:
    """The command on a machine that `known` tells of: exit code, stdout, and where it looked."""
    scenes: list[Scene] = []

    def examine(scene: Scene) -> tuple[Outcome, ...]:
        scenes.append(scene)
        return outcomes(known)

    monkeypatch.setattr(examination, "examine", examine)
    done = CliRunner().invoke(app, ["doctor", *arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, scenes


def test_the_exit_code_tells_whether_something_would_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor(monkeypatch, laptop())[0] == 0
    assert doctor(monkeypatch, server())[0] == 0
    risky = replace(HOST, nofile=1024)
    assert doctor(monkeypatch, server(risky))[0] == 0
    assert doctor(monkeypatch, server(*FULL))[0] == 4


def test_the_options_say_where_to_look(monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, (scene,) = doctor(monkeypatch, laptop(), "--model", "m", "--nodes", "a, b:9,", "--quick", "--json")
    assert (scene.model, scene.nodes, scene.quick, scene.root) == ("m", ("a", "b:9"), True, Path("/"))


def test_a_laptop_is_told_calmly(monkeypatch: pytest.MonkeyPatch) -> None:
    _, text, _ = doctor(monkeypatch, laptop())
    assert "GPUs\n  none     no NVIDIA GPU here\n" in text
    assert "remedy" not in text
    assert text.splitlines()[-1].startswith(f"{len(CHECKS)} checks: 0 fail, ")


def test_what_is_not_well_is_told_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    _, text, _ = doctor(monkeypatch, server(*FULL))
    assert "  fail     shared-memory" in text
    assert "--shm-size=10g" in text
    assert "docker gives a container 64 MiB" in " ".join(text.split())
    assert "  well     open-files, processes, locked-memory, core-dumps\n" in text
    assert "580.159.04" not in text  # that is well


def test_what_one_silence_leaves_unknown_is_told_once() -> None:
    known = server(without=(type(DISKS),))
    text = " ".join("\n".join(told(outcomes(known), verbose=False, width=120)).split())
    names = "state-folder, temporary-folder, compile-cache, metrics-folder, download-folder"
    assert f"unknown {names}: no answer within 5 s" in text


def test_verbose_shows_all_with_its_figures() -> None:
    text = "\n".join(told(outcomes(server()), verbose=True, width=120))
    assert all(f" {check.name} " in text for check in CHECKS)
    assert "64 MiB at 250.0 GB/s (bus), over P2P/CUMEM" in " ".join(text.split())


@pytest.mark.parametrize("width", [60, 80, 120])
def test_lines_stay_within_the_terminal(width: int) -> None:
    lines = list(told(outcomes(server(*FULL)), verbose=True, width=width))
    assert [line for line in lines[:-1] if len(line) > max(width, 62)] == []
    assert all(line == line.rstrip() for line in lines)


@pytest.mark.parametrize("known", [laptop(), server(), server(*FULL)], ids=["laptop", "server", "full"])
def test_a_program_is_told_by_a_schema(known: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    _, text, _ = doctor(monkeypatch, known, "--json")
    said = json.loads(text)
    jsonschema.validate(said, SCHEMA)
    assert [each["check"] for each in said["checks"]] == [check.name for check in CHECKS]
    assert sum(said["counts"].values()) == len(CHECKS)
    bad = {"fail", "risk", "slow"}
    assert all((each["remedy"] is not None) == (each["verdict"] in bad) for each in said["checks"])


def test_nodes_that_are_none_are_wrong_usage() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vlfleet", "doctor", "--nodes", "a:b"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "'a:b' is no host or host:port" in done.stderr


def test_this_machine_for_real(tmp_path: Path) -> None:
    """--quick asks no GPU and imports no torch; a laptop's exit code is 0, unless something is wrong here."""
    env = {**os.environ, "VLFLEET_HOME": str(tmp_path), "COLUMNS": "120"}
    command = [sys.executable, "-m", "vlfleet", "doctor", "--quick", "--json", "--model", str(DEMO)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=100, check=False)
    assert done.stderr == ""
    said = json.loads(done.stdout)
    jsonschema.validate(said, SCHEMA)
    assert done.returncode == (4 if said["verdict"] == "fail" else 0)
    found = {each["check"]: each["verdict"] for each in said["checks"]}
    assert found["model-files"] == found["loopback"] == found["state-folder"] == "well"
    assert found["vllm-imports"] == "skipped"
    assert "this check broke" not in done.stdout


def test_eight_gpus_through_the_child_that_asks_the_driver(tmp_path: Path) -> None:
    """NVML is a fake in every process; the way from it to the words is the real one."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "from tests.checkup.fake_nvml import DoctorNvml\n"
        "from tests.hardware import machines\n"
        "facts = machines.eight_h200()\n"
        "facts['gpus'][6]['state'] = {'power_limit': 400_000, 'power_default': 700_000, 'persistence': 1}\n"
        "sys.modules['pynvml'] = DoctorNvml(facts)\n"
    )
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{root}", "VLFLEET_HOME": str(tmp_path)}
    env.pop("CUDA_VISIBLE_DEVICES", None)
    command = [sys.executable, "-m", "vlfleet", "doctor", "--quick", "--json"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=100, check=False)
    said = json.loads(done.stdout)
    jsonschema.validate(said, SCHEMA)
    found = {each["check"]: each for each in said["checks"]}
    assert found["gpus-answer"]["saw"] == "8 x NVIDIA H200"
    assert found["driver"]["saw"] == "580.159.04, runs CUDA up to 13.0; 8 GPUs"
    assert found["topology"]["saw"] == "28 of 28 pairs by NVLink"
    assert (found["power-limit"]["verdict"], found["power-limit"]["saw"]) == ("slow", "GPU 6: 400 of 700 W")
    assert {found[name]["verdict"] for name in ("cuda", "gpu-copy", "all-reduce", "torch-sees-gpus")} == {"skipped"}


def test_help_imports_nothing_heavy() -> None:
    script = """
import sys
from vlfleet.cli import app
try:
    app(["doctor", "--help"], prog_name="vlfleet")
except SystemExit:
    pass
heavy = {"aiohttp", "torch", "PIL", "psutil", "pynvml", "numpy"}
print("heavy:", *(heavy & {name.partition(".")[0] for name in sys.modules}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "heavy:"
    assert "--model" in done.stdout


def test_a_gatherer_that_hangs_does_not_keep_the_command(tmp_path: Path) -> None:
    """Its thread is left behind, and the process ends with what it found."""
    script = """
import time
from vlfleet.checkup import examine
from vlfleet.checkup.facts.host import Host
from vlfleet.checkup.gather import Gatherer
examine.GATHERERS = (Gatherer(Host, lambda scene, known: time.sleep(60), seconds=0.2),)
from vlfleet.cli import app
app(["doctor", "--json"], prog_name="vlfleet")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    said = {each["check"]: each["saw"] for each in json.loads(done.stdout)["checks"]}
    assert (done.returncode, said["swap"]) == (0, "no answer within 0.2 s")
