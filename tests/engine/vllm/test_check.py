"""The installed vLLM is asked before anything starts; here a few lines stand for it (the real one: tests/vllm_cpu)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from vlfleet.demo import model_path
from vlfleet.engine.vllm.check import check, explain, readable, refuse_ours
from vlfleet.engine.vllm.install import Install
from vlfleet.errors import ExitCode, VlfleetError

PARSER = """
import argparse, json
def make_arg_parser(parser):
    parser.add_argument("model_tag", nargs="?")
    parser.add_argument("--max-model-len", type=int)
    parser.add_argument("--limit-mm-per-prompt", type=json.loads)
    parser.add_argument("--port", type=int)
    parser.add_argument("--hf-overrides")
    return parser
def validate_parsed_serve_args(args): print("a line on stdout")
"""
ENGINE = """
class AsyncEngineArgs:
    @classmethod
    def from_cli_args(cls, args):
        found = cls(); found.args = args; return found
    def create_engine_config(self):
        if (self.args.max_model_len or 0) > 4096:
            raise ValueError("User-specified max_model_len (9999) is greater than the derived max_model_len (4096)")
"""
Refused = Callable[..., VlfleetError]


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    """The environment of a Python that has this vLLM, laid out as 0.26 is."""
    monkeypatch.setenv("VLFLEET_HOME", str(tmp_path / "home"))
    package = tmp_path / "site" / "vllm"
    for name, text in {
        "__init__": "__version__ = '0.26.0'",
        "entrypoints/__init__": "",
        "entrypoints/openai/__init__": "",
        "entrypoints/openai/cli_args": PARSER,
        "utils/__init__": "import argparse\nFlexibleArgumentParser = argparse.ArgumentParser",
        "engine/__init__": "",
        "engine/arg_utils": ENGINE,
    }.items():
        file = package / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return {"PYTHONPATH": str(package.parent)}


@pytest.fixture
def refused(env: Mapping[str, str]) -> Refused:
    def ask(*flags: str, install: Install = Install(sys.executable, "0.26.0"), **more: str) -> VlfleetError:  # noqa: B008
        with pytest.raises(VlfleetError) as caught:
            check(install, [str(model_path()), *flags], {**env, **more})
        return caught.value

    return ask


def test_what_it_takes_is_asked_once(env: Mapping[str, str], tmp_path: Path) -> None:
    install, model = Install(sys.executable, "0.26.0"), str(model_path())
    check(install, [model, "--port", "8001", "--max-model-len", "2048"], env)
    gone = Install(str(tmp_path / "nothing"), "0.26.0")
    with pytest.raises(VlfleetError, match="could not be asked"):
        check(gone, [model], env)
    (tmp_path / "site" / "vllm" / "__init__.py").write_text("raise SystemError('asked again')")
    check(install, [model, "--port", "9999", "--max-model-len", "2048"], env)  # only the port is another
    with pytest.raises(VlfleetError, match="asked again"):
        check(install, [model, "--port", "8001", "--max-model-len", "2049"], env)


def test_an_unknown_flag_is_one_line_with_what_was_meant(refused: Refused) -> None:
    error = refused("--max-model-lenght", "5")
    assert str(error.cause) == "vLLM 0.26.0 has no --max-model-lenght"
    assert (error.remedy, error.exit_code) == ("use --max-model-len", ExitCode.USAGE)
    assert refused("--rope_scaling={}").remedy.startswith("use --hf-overrides")
    assert refused("--swap-space", "4").remedy.startswith("leave it out")
    assert "--help=all" in refused("--something-else").remedy


def test_the_old_form_of_limits_is_rewritten() -> None:
    said = "argument --limit-mm-per-prompt: Value image=4,video=1 cannot be converted to <function loads at 0x7f00>."
    error = explain(Install("", "0.32.0"), said, "flags", [])
    assert error.remedy == """use --limit-mm-per-prompt '{"image": 4, "video": 1}'"""


def test_a_value_of_the_wrong_kind(refused: Refused) -> None:
    assert "--max-model-len: invalid int value: 'long'" in refused("--max-model-len", "long").cause


def test_what_the_configuration_refuses(refused: Refused) -> None:
    error = refused("--max-model-len", "9999")
    assert "9999" in error.cause
    assert "4096" in error.cause + error.remedy
    assert error.exit_code is ExitCode.USAGE


def test_a_vllm_that_cannot_be_imported(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "site" / "vllm" / "__init__.py").write_text("import no_such_library")
    assert "No module named 'no_such_library'" in refused().cause


def test_a_vllm_that_dies_at_once(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "site" / "vllm" / "__init__.py").write_text("import os; os._exit(3)")
    assert "it ended with exit code 3" in refused().cause


def test_pydantic_is_read_out() -> None:
    said = (
        "ValidationError: 1 validation error for VllmConfig\n  Value error, Total number of attention heads (4) must "
        "be divisible by tensor parallel size (3). [type=value_error, input_value=Args((), {'model_co... 'shutdown_"
        "timeout': 0}), input_type=ArgsKwargs]\n    For further information visit https://errors.pydantic.dev/2.14"
    )
    wanted = "Total number of attention heads (4) must be divisible by tensor parallel size (3)."
    assert readable(said) == wanted
    assert readable("OSError: no such\n file") == "OSError: no such file"


@pytest.mark.parametrize("flag", ["-tp=2", "--tensor_parallel_size", "--port=8000", "--api-key", "-dp"])
def test_what_is_the_fleets_is_not_said_to_an_engine(flag: str) -> None:
    with pytest.raises(VlfleetError, match="is vlfleet's to give"):
        refuse_ours(["--seed", "1", flag, "2"])


def test_what_is_vllms_passes() -> None:
    refuse_ours(["--seed", "1", "--enforce-eager", "-O3", "--port-range", "1"])
