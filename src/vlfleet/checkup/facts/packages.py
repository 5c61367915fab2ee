"""The Python that runs engines: what is installed there, what does not fit together, and what of it can be imported."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlfleet.checkup.command import Ran, run
from vlfleet.checkup.known import Known, NotKnown
from vlfleet.checkup.known import Missing as MissingFacts
from vlfleet.checkup.scene import Scene
from vlfleet.engine.vllm.install import find
from vlfleet.errors import VlfleetError

_INSIDE = Path(__file__).with_name("packages_inside.py")
INSTALLED_SECONDS = 20.0
"""0.4 s on two slow cores; a cold network disk takes longer."""
IMPORT_SECONDS = 120.0
"""vLLM imports in 7 s on two slow cores, 15 s from a cold disk."""


@dataclass(frozen=True)
class Misfit:
    """A requirement that what is installed does not meet."""

    package: str
    """Who asks."""
    requirement: str
    """As its metadata says: "torch==2.11.0"."""
    installed: str
    """The version that is there; empty: none."""

    @property
    def wanted(self) -> str:
        """The name of what is asked for."""
        return next((self.requirement[:at] for at, c in enumerate(self.requirement) if not _in_name(c)), "") or (
            self.requirement
        )


def _in_name(character: str) -> bool:
    return character.isalnum() or character in "-_."


@dataclass(frozen=True)
class Packages:
    """What is installed, by the metadata of distributions: nothing is imported."""

    python: str
    """The interpreter."""
    python_version: tuple[int, int]
    vllm: str
    """Its version; empty: that Python has none (the embedded engine needs torch and transformers alone)."""
    no_vllm: str = ""
    """Why none was found."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of the distributions that matter, by their normalised names."""
    misfits: tuple[Misfit, ...] = ()
    vllm_variables: frozenset[str] = frozenset()
    """The VLLM_* environment variables that this vLLM knows; empty where that could not be read."""
    utf8: bool = True
    """Whether files are read as UTF-8 there."""


@dataclass(frozen=True)
class Imports:
    """What can be imported there, and what torch was built for."""

    torch_error: str = ""
    cuda: str = ""
    """The CUDA that torch was built for ("13.0"); empty: for the CPU."""
    archs: tuple[str, ...] = ()
    """torch.cuda.get_arch_list(): sm_90, compute_120, ..."""
    nccl: str = ""
    cuda_error: str = ""
    """What torch said when it was asked for CUDA's devices."""
    devices: int = 0
    hip: str = ""
    vllm_error: str = ""
    """Of `import vllm` and its compiled kernels, the last line; empty: they can be imported."""
    other_errors: Mapping[str, str] = field(default_factory=dict)
    """Of transformers, torchvision, cv2, flash_attn, where installed, by name."""


def gather_packages(scene: Scene, _: Known) -> Packages:
    """Of the Python that has vLLM; without vLLM, of this one.

    Raises:
        NotKnown: that Python does not answer.
    """
    python, vllm, why = sys.executable, "", ""
    try:
        install = find()
        python, vllm = install.python, install.version
    except VlfleetError as error:
        why = error.cause
    said = _ask(scene, python, "installed", INSTALLED_SECONDS)
    return Packages(
        python=python,
        python_version=(said["python"][0], said["python"][1]),
        vllm=vllm,
        no_vllm=why,
        versions=said["versions"],
        misfits=tuple(Misfit(*each) for each in said["misfits"]),
        vllm_variables=frozenset(said["variables"]),
        utf8=said["utf8"],
    )


def gather_imports(scene: Scene, known: Known) -> Imports:
    """Imports torch and vLLM in that Python; seconds, and no GPU memory is taken.

    Raises:
        NotKnown: it does not answer.
    """
    packages = known[Packages]
    if "torch" not in packages.versions:
        raise NotKnown(MissingFacts("there is no torch to import"))
    said = _ask(scene, packages.python, "import", IMPORT_SECONDS)
    return Imports(**{**said, "archs": tuple(said["archs"])})


def _ask(scene: Scene, python: str, what: str, seconds: float) -> dict[str, Any]:
    done = run([python, str(_INSIDE), what], seconds=seconds, env={**os.environ, **scene.env})
    return last_json(done, f"{python} ({what})", seconds)


def last_json(done: Ran, who: str, seconds: float) -> dict[str, Any]:
    """The object in the last line that a program printed.

    Raises:
        NotKnown: there is none, with the reason.
    """
    if done.hung:
        raise NotKnown(MissingFacts(f"{who} did not answer within {seconds:g} s"))
    try:
        said = json.loads(done.out.strip().rpartition("\n")[2])
    except ValueError:
        said = None
    if not isinstance(said, dict):
        how = "could not be started" if done.absent else f"ended with exit code {done.code}"
        raise NotKnown(MissingFacts(f"{who} {how}: {done.last_line[:200]}"))
    return said
