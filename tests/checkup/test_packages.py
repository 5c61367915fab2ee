"""The Python that runs engines: what is installed in it, what does not fit, what cannot be imported."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from vlfleet.checkup.checks.engine import runs
from vlfleet.checkup.command import Ran
from vlfleet.checkup.facts import packages
from vlfleet.checkup.facts.packages import Misfit, Packages, gather_imports, gather_packages, last_json
from vlfleet.checkup.known import Known, NotKnown
from vlfleet.checkup.scene import Scene
from vlfleet.engine.vllm.install import WHERE


def install(site: Path, name: str, version: str, *requires: str, module: str = "") -> None:
    """A distribution in a folder that is on PYTHONPATH."""
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = [
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}",
        *(f"Requires-Dist: {each}" for each in requires),
    ]
    (info / "METADATA").write_text("\n".join(lines) + "\n")
    (info / "RECORD").write_text("")
    if module:
        package = site / name.replace("-", "_")
        package.mkdir(exist_ok=True)
        (package / "__init__.py").write_text(module)


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """That Python is this one, with a vLLM of ours before its packages."""
    site = tmp_path / "site"
    install(
        site, "vllm", "0.26.0", "torch==2.11.0", "numba==0.65.0", "pydantic>=2", "ray ; extra == 'ray'",
        "flashinfer-python==0.6.1", "broken requirement !", "pywin32 ; sys_platform == 'win32'", module="x = 1\n",
    )  # fmt: skip
    (site / "vllm" / "envs.py").write_text('variables = {"VLLM_PORT": 1, "VLLM_HOST_IP": 2}\n')
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.setenv(WHERE, sys.executable)
    return Scene()


def test_what_is_installed(scene: Scene) -> None:
    found = gather_packages(scene, Known())
    assert (found.python, found.vllm, found.no_vllm) == (sys.executable, "0.26.0", "")
    assert found.python_version == sys.version_info[:2]
    assert found.versions["vllm"] == "0.26.0"
    assert found.versions["pydantic"]
    assert found.vllm_variables == {"VLLM_PORT", "VLLM_HOST_IP"}
    unmet = {misfit for misfit in found.misfits if misfit.package == "vllm"}
    assert unmet == {
        Misfit("vllm", "torch==2.11.0", found.versions.get("torch", "")),
        Misfit("vllm", "numba==0.65.0", ""),
        Misfit("vllm", "flashinfer-python==0.6.1", ""),
    }


def test_what_can_be_imported(scene: Scene, tmp_path: Path) -> None:
    """torch is real here where it is installed; vLLM is ours, whose options cannot be imported."""
    pytest.importorskip("torch")
    found = gather_imports(scene, Known(gather_packages(scene, Known())))
    assert (found.torch_error, found.devices) == ("", 0)
    assert found.vllm_error == "ModuleNotFoundError: No module named 'vllm.engine'"


@pytest.mark.parametrize(
    ("module", "error"),
    [
        (
            "raise ImportError('libcudart.so.12: cannot open shared object file')\n",
            "ImportError: libcudart.so.12: cannot",
        ),
        ("raise SystemExit('no')\n", "SystemExit: no"),
        ("import numpy.no_such_module\n", "ModuleNotFoundError: No module named 'numpy.no_such_module'"),
    ],
)
def test_a_torch_that_cannot_be_imported(
    module: str, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "torch", "2.11.0", module=module)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    known = Known(Packages(sys.executable, (3, 11), "", versions={"torch": "2.11.0"}))
    assert gather_imports(Scene(), known).torch_error.startswith(error)


def test_without_torch_nothing_is_imported() -> None:
    with pytest.raises(NotKnown, match="no torch"):
        gather_imports(Scene(), Known(Packages(sys.executable, (3, 11), "")))


def test_a_named_python_without_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WHERE, sys.executable)
    found = gather_packages(Scene(), Known())
    assert (found.vllm, found.no_vllm) == ("", f"the Python at {sys.executable} has no vLLM")
    assert found.python == sys.executable


@pytest.mark.parametrize(
    ("done", "reason"),
    [
        (Ran(hung=True), "x did not answer within 3 s"),
        (Ran(err="No such file", absent=True), "x could not be started: No such file"),
        (Ran("", "Traceback\nImportError: torch\n", 1), "x ended with exit code 1: ImportError: torch"),
        (Ran("[1, 2]\n", "", 0), "x ended with exit code 0: [1, 2]"),
    ],
)
def test_a_python_that_does_not_answer(done: Ran, reason: str) -> None:
    with pytest.raises(NotKnown, match=reason.replace("[", r"\[")):
        last_json(done, "x", 3)


def test_a_python_that_hangs_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\nsleep 60\n")
    script.chmod(0o755)
    monkeypatch.setattr(packages, "IMPORT_SECONDS", 0.5)
    with pytest.raises(NotKnown, match="did not answer within"):
        gather_imports(Scene(), Known(Packages(str(script), (3, 11), "", versions={"torch": "1"})))


@pytest.mark.parametrize(
    ("capability", "archs", "can"),
    [
        ((9, 0), ("sm_90",), True),
        ((8, 9), ("sm_80",), True),
        ((8, 0), ("sm_86",), False),
        ((9, 0), ("sm_80", "sm_120"), False),
        ((12, 1), ("sm_120",), True),
        ((12, 0), ("sm_90", "compute_90"), True),
        ((7, 5), ("compute_80",), False),
        ((9, 0), ("sm_90a",), True),
        ((10, 3), ("sm_100a",), False),
        ((12, 0), ("compute_90a", "", "sm_", "sm_x"), False),
    ],
)
def test_code_that_runs_on_a_gpu(capability: tuple[int, int], archs: tuple[str, ...], can: bool) -> None:
    assert runs(capability, archs) is can


def test_the_real_python_of_this_environment() -> None:
    found = gather_packages(Scene(env={**os.environ, WHERE: ""}), Known())
    assert found.utf8
