"""Finds the vLLM of this machine. It lives in whatever Python it was installed into, and is never imported here."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.plan.releases import Release, parse_release

WHERE = "VLFLEET_VLLM"
"""Environment variable: a virtual environment, its python, or its `vllm`; for a vLLM that is not on PATH."""
_ASK_VERSION = "import importlib.metadata as m; print(m.version('vllm'))"
_REMEDY = f"pip install vllm (0.25.1 or newer), or set {WHERE} to the virtual environment that has it"


@dataclass(frozen=True)
class Install:
    """One vLLM."""

    python: str
    """The interpreter that can import it."""
    version: str
    """As its distribution says: "0.26.0", "0.32.0+cpu"."""

    @property
    def release(self) -> Release:
        """(0, 26, 0); a development version counts as the release that it leads to."""
        return parse_release(self.version)

    @property
    def cpu(self) -> bool:
        """Built for the CPU; vLLM itself decides so by this word."""
        return "cpu" in self.version


def find() -> Install:
    """The vLLM that $VLFLEET_VLLM names, else the one beside vlfleet, else the one on PATH. Takes some 50 ms.

    Raises:
        VlfleetError: there is none, or its version cannot be read.
    """
    python = _python()
    if python is None:
        raise VlfleetError("vLLM is not installed", _REMEDY, ExitCode.USAGE)
    try:
        asked = subprocess.run([python, "-c", _ASK_VERSION], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise VlfleetError(f"{python} cannot be run: {error}", _REMEDY, ExitCode.USAGE) from None
    version = asked.stdout.strip()
    if asked.returncode or not re.match(r"\d+\.\d+", version):
        raise VlfleetError(f"the Python at {python} has no vLLM", _REMEDY, ExitCode.USAGE)
    return Install(python, version)


def exists() -> bool:
    """Whether `find` has something to ask; no process is started."""
    return _python() is not None


def _python() -> str | None:
    if named := os.environ.get(WHERE):
        return _named(Path(named).expanduser().absolute())
    if importlib.util.find_spec("vllm"):
        return sys.executable
    script = shutil.which("vllm")
    return _interpreter(Path(script)) if script else None


def _named(path: Path) -> str:
    """The interpreter of a virtual environment, of a `vllm` script, or `path` itself."""
    if path.is_dir():
        return str(path / "bin" / "python")
    return (path.name == "vllm" and _interpreter(path)) or str(path)


def _interpreter(script: Path) -> str | None:
    """The Python of a console script: the one beside it, else the one in its first line."""
    beside = script.resolve().with_name("python")
    if beside.is_file():
        return str(beside)
    try:
        with script.open("rb") as file:
            first = file.readline(1024).decode(errors="replace").strip()
    except OSError:
        return None
    words = first.removeprefix("#!").split()
    if not first.startswith("#!") or not words:
        return None
    return shutil.which(words[1]) if Path(words[0]).name == "env" and len(words) > 1 else words[0]
