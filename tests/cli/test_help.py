"""What costs nothing: help, version, completion, and how `up` reads its arguments."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from vlfleet import __version__
from vlfleet.cli import app
from vlfleet.cli.detach import arguments
from vlfleet.cli.up import UpCommand, _default_name
from vlfleet.fleet.spec import FleetSpec

HEAVY = ("aiohttp", "pydantic", "torch", "PIL", "rich", "transformers", "numpy", "uvloop", "orjson", "psutil")
COMMANDS = ("up", "down", "status", "top", "logs", "ask", "chat", "batch", "route", "keys", "demo", "version")


@pytest.mark.parametrize("args", [["--help"], *([command, "--help"] for command in COMMANDS), ["--version"]])
def test_help_imports_nothing_heavy(args: list[str]) -> None:
    """But for pydantic, with which Typer itself describes the options of a single command."""
    script = f"""
import sys
from vlfleet.cli import app
try:
    app({args!r}, prog_name="vlfleet")
except SystemExit as end:
    assert end.code == 0
print("heavy:", *(set({HEAVY!r}) & {{name.partition(".")[0] for name in sys.modules}}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    heavy = set(done.stdout.splitlines()[-1].split()[1:])
    assert heavy <= (set() if len(args) == 1 else {"pydantic"})
    assert "\x1b" not in done.stdout


def test_version() -> None:
    for args in (["--version"], ["version"]):
        done = subprocess.run([sys.executable, "-m", "vlfleet", *args], capture_output=True, text=True, check=True)
        assert done.stdout == f"vlfleet {__version__}\n"


@pytest.mark.parametrize(("shell", "word"), [("bash", "complete"), ("zsh", "compdef"), ("fish", "complete")])
def test_completion_script(shell: str, word: str) -> None:
    env = {**os.environ, "_VLFLEET_COMPLETE": f"source_{shell}"}
    done = subprocess.run([sys.executable, "-m", "vlfleet"], env=env, capture_output=True, text=True, check=True)
    assert word in done.stdout
    assert "vlfleet" in done.stdout


def test_completion_knows_the_commands() -> None:
    env = {**os.environ, "_VLFLEET_COMPLETE": "complete_bash", "COMP_WORDS": "vlfleet ", "COMP_CWORD": "1"}
    done = subprocess.run([sys.executable, "-m", "vlfleet"], env=env, capture_output=True, text=True, check=True)
    assert set(COMMANDS) <= set(done.stdout.split())


def parse(args: list[str]) -> tuple[dict[str, object], tuple[str, ...]]:
    group = typer.main.get_command(app)
    command = group.commands["up"]  # type: ignore[attr-defined]
    assert isinstance(command, UpCommand)
    context = command.make_context("up", list(args))
    return context.params, context.meta.get("engine_args", ())


def test_engine_arguments_need_no_model_before_them() -> None:
    params, engine_args = parse(["--", "--dtype", "float32", "--", "x"])
    assert (params["model"], engine_args) == ("", ("--dtype", "float32", "--", "x"))
    params, engine_args = parse(["m", "--port", "1", "--", "--help"])
    assert (params["model"], params["port"], engine_args) == ("m", 1, ("--help",))
    assert parse(["m"])[1] == ()


@given(
    engine_args=st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)),
    replicas=st.integers(1, 256),
    served=st.text("abc-/ ", min_size=1, max_size=8),
)
def test_detached_fleet_gets_the_same_spec(engine_args: list[str], replicas: int, served: str) -> None:
    from pathlib import Path

    spec = FleetSpec(
        Path("/m"), served, replicas=replicas, threads=3, engine_args=tuple(engine_args), drain_timeout_seconds=2.5
    )
    params, rest = parse(arguments(spec, insecure=False)[1:])
    again = FleetSpec(
        model=Path(str(params["model"])),
        served_model_name=str(params["served_model_name"]),
        name=str(params["name"]),
        engine=str(params["engine"]),
        replicas=int(str(params["replicas"])),
        threads=int(str(params["threads"])),
        engine_args=rest,
        host=str(params["host"]),
        port=int(str(params["port"])),
        drain_timeout_seconds=float(str(params["drain_timeout"])),
    )
    assert again == spec


@pytest.mark.parametrize(
    ("model", "folder", "name"),
    [
        ("Qwen/Qwen2.5-VL-7B-Instruct", "3c1b0f", "Qwen/Qwen2.5-VL-7B-Instruct"),
        ("models/tiny", "tiny", "tiny"),
        ("/data/tiny/", "tiny", "tiny"),
        (".", "tiny", "tiny"),
        ("tiny", "tiny", "tiny"),
    ],
)
def test_default_name(model: str, folder: str, name: str) -> None:
    assert _default_name(model, folder) == name
