"""The probe: a bundled picture, the tokens it must cost, and an answer that says something."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoint.test_preflight import change
from vlfleet.checkpoint import preflight
from vlfleet.client import Answer
from vlfleet.client.answer import Usage
from vlfleet.demo import model_path
from vlfleet.demo.probe import degenerate, judge

WIDTH, HEIGHT = 448, 336
"""Of a picture that costs 16 x 12 visual tokens."""


def answer(text: str, prompt_tokens: int) -> Answer:
    return Answer(text=text, usage=Usage(prompt_tokens=prompt_tokens))


@pytest.mark.parametrize(
    "text",
    ["", "   \n", "!!!!!!!!!!!!!!!!", "! ! ! ! ! ! ! !", "0000000000", "the the the the the the the the the the",
     "well the the the the the the the the the"],
)  # fmt: skip
def test_answers_of_broken_weights(text: str) -> None:
    assert degenerate(text)


@pytest.mark.parametrize(
    "text", ["A red circle.", "7", "!", "no", "0.50", "the cat and the dog and the bird", "Paris Paris Paris"]
)
def test_answers_that_say_something(text: str) -> None:
    assert degenerate(text) == ""


def test_the_count_is_what_the_families_compute() -> None:
    info = preflight(model_path())
    good = judge(info, answer("A star.", 30 + 192 + 2), answer("", 30), WIDTH, HEIGHT)
    assert (good.problems, good.visual_tokens, good.expected_visual_tokens) == ((), 192, 192)
    lost = judge(info, answer("A star.", 30 + 48 + 2), answer("", 30), WIDTH, HEIGHT)
    assert lost.problems[0].startswith("the engine sees 48 visual tokens, preprocessor_config.json makes 192; ")
    silent = judge(info, answer("!!!!!!!!!!!!", 30 + 192 + 2), answer("", 30), WIDTH, HEIGHT)
    assert len(silent.problems) == 1


def verify(model: Path, home: Path, *options: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "VLFLEET_HOME": str(home)}
    argv = [sys.executable, "-m", "vlfleet", "checkpoint", "verify", str(model), *options]
    return subprocess.run(argv, env=env, capture_output=True, text=True, check=False)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_path(), tmp_path / "model"))


def test_the_embedded_engine_answers_about_the_demo_model(model: Path, tmp_path: Path) -> None:
    done = verify(model, tmp_path / "home", "--probe", "--engine", "embedded", "--json")
    assert done.returncode == 0, done.stderr
    probe: dict[str, Any] = json.loads(done.stdout)["probe"]
    assert probe["visual_tokens"] == probe["expected_visual_tokens"] == 192
    assert probe["problems"] == []
    assert re.search("circle|star|triangle|square", probe["answer"])
    assert list((tmp_path / "home").glob("probe-*")) == [], "the fleet's folder is gone"


def test_a_running_server_with_other_limits_is_found_out(model: Path, tmp_path: Path) -> None:
    """A fake engine counts no visual tokens at all."""
    fleet = [sys.executable, "-m", "vlfleet"]
    env = {**os.environ, "VLFLEET_HOME": str(tmp_path / "home"), "PYTHONPATH": str(Path(__file__).parents[2])}
    up = [*fleet, "up", str(model), "--engine", "tests.fakes:FakeEngine", "--port", "0", "--replicas", "1", "--detach"]
    started = subprocess.run([*up, "--json"], env=env, capture_output=True, text=True, check=True)
    try:
        url = json.loads(started.stdout)["url"]
        done = verify(model, tmp_path / "home", "--base-url", url)
    finally:
        subprocess.run([*fleet, "down"], env=env, capture_output=True, check=True)
    assert done.returncode == 1, done.stderr
    assert "probe: the engine sees" in done.stdout
    assert "preprocessor_config.json makes 192" in done.stdout


def test_nobody_is_asked_about_a_checkpoint_that_is_broken(model: Path, tmp_path: Path) -> None:
    change(model / "config.json", intermediate_size=512)
    done = verify(model, tmp_path / "home", "--base-url", "http://127.0.0.1:1")
    assert done.returncode == 1
    assert "24 problems in" in done.stdout
    assert "probe" not in done.stdout


def test_a_server_that_is_not_there(model: Path, tmp_path: Path) -> None:
    done = verify(model, tmp_path / "home", "--base-url", "http://127.0.0.1:1")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-2].startswith("error: nothing answers at http://127.0.0.1:1")


@pytest.mark.parametrize("name", ["inspect", "verify", "lint", "normalise"])
def test_help_imports_nothing_heavy(name: str) -> None:
    script = f"""
import sys
from vlfleet.cli import app
try:
    app(["checkpoint", {name!r}, "--help"], prog_name="vlfleet")
except SystemExit as end:
    assert end.code == 0
heavy = {{"aiohttp", "torch", "PIL", "rich", "transformers", "numpy", "uvloop", "orjson", "psutil", "blake3"}}
print(*(heavy & {{module.partition(".")[0] for module in sys.modules}}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == ""
