"""Finding vLLM, wherever it was installed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from vlfleet.engine.vllm import support
from vlfleet.engine.vllm.install import WHERE, Install, exists, find
from vlfleet.errors import ExitCode, VlfleetError


def environment(folder: Path, version: str) -> Path:
    """A virtual environment's folder with a python that says that vLLM has this version (or, without one, fails)."""
    python = folder / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\necho '{version}'\n" if version else "#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    script = python.with_name("vllm")
    script.write_text(f"#!{python}\n")
    script.chmod(0o755)
    return folder


@pytest.mark.parametrize("named", ["", "bin/python", "bin/vllm"])
def test_it_is_where_the_variable_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    folder = environment(tmp_path / "venv", "0.26.0")
    monkeypatch.setenv(WHERE, str(folder / named))
    found = find()
    assert found == Install(str(folder / "bin" / "python"), "0.26.0")
    assert exists()


def test_it_is_found_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = environment(tmp_path / "venv", "0.32.0+cpu")
    linked = tmp_path / "bin"
    linked.mkdir()
    (linked / "vllm").symlink_to(folder / "bin" / "vllm")
    monkeypatch.delenv(WHERE, raising=False)
    monkeypatch.setenv("PATH", f"{linked}:/usr/bin:/bin")
    found = find()
    assert (found.python, found.version, found.cpu) == (str(folder / "bin" / "python"), "0.32.0+cpu", True)


def test_a_script_elsewhere_is_read_for_its_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = environment(tmp_path / "venv", "0.26.0")
    script = tmp_path / "elsewhere" / "vllm"
    script.parent.mkdir()
    for first in (f"#!{folder}/bin/python", f"#!/usr/bin/env {folder}/bin/python"):
        script.write_text(f"{first}\n")
        script.chmod(0o755)
        monkeypatch.setenv(WHERE, str(script))
        assert find().python == str(folder / "bin" / "python")


@pytest.mark.parametrize("version", ["", "not a version"])
def test_a_python_without_vllm_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setenv(WHERE, str(environment(tmp_path / "venv", version)))
    with pytest.raises(VlfleetError, match="has no vLLM") as caught:
        find()
    assert caught.value.exit_code is ExitCode.USAGE
    assert WHERE in caught.value.remedy


def test_nothing_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(WHERE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not exists()
    with pytest.raises(VlfleetError, match="vLLM is not installed"):
        find()
    monkeypatch.setenv(WHERE, str(tmp_path / "nowhere"))
    with pytest.raises(VlfleetError, match="cannot be run"):
        find()


@pytest.mark.parametrize(
    ("version", "release"),
    [
        ("0.26.0", (0, 26, 0)),
        ("0.32.0+cpu", (0, 32, 0)),
        ("0.25.1rc2.dev3+g12ab34", (0, 25, 1)),
        ("0.33", (0, 33, 0)),
        ("1.0", (1, 0, 0)),
    ],
)
def test_release(version: str, release: tuple[int, int, int]) -> None:
    assert Install(sys.executable, version).release == release


def test_what_is_said_of_a_version() -> None:
    def notes(version: str, exposed: bool = False) -> tuple[str, ...]:
        return support(Install("python", version), exposed)

    assert notes("0.26.0", exposed=True) == ()
    assert notes("0.33.0") == notes("0.33.1") == ()
    assert "newest that was tried" in notes("0.34.0")[0]
    assert "images of any size" in notes("0.24.0", exposed=True)[0]
    assert notes("0.21.0")
    with pytest.raises(VlfleetError, match="CVE-2026-48746"):
        notes("0.21.0", exposed=True)
    with pytest.raises(VlfleetError, match=r"older than 0\.20"):
        notes("0.19.1")
