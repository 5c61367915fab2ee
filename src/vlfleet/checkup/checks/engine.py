"""The Python that runs engines: vLLM, torch and what stands beside them."""

from __future__ import annotations

from collections.abc import Mapping

from vlfleet.checkup.breakages import BREAKAGES
from vlfleet.checkup.check import Check, Finding, Group, fail, none, risk, slow, well
from vlfleet.checkup.checks.when import with_gpus
from vlfleet.checkup.facts.gpus import Gpus
from vlfleet.checkup.facts.packages import Imports, Misfit, Packages
from vlfleet.checkup.known import Known
from vlfleet.engine.vllm import advisories, versions
from vlfleet.plan.releases import parse_release

FATAL = (
    *(("vllm", "torch"), ("torchvision", "torch"), ("xformers", "torch"), ("vllm", "transformers")),
    *(("transformers", "tokenizers"), ("transformers", "huggingface-hub")),
)
"""Who asks for whom: compiled against it, or refused at import (transformers/dependency_versions_check.py). vLLM pins
dozens of others exactly, most of which a neighbouring release serves as well."""


def _vllm(known: Known) -> Finding:
    packages, gpus = known[Packages], known[Gpus].machine.gpus
    if not packages.vllm:
        torch = packages.versions.get("torch")
        embedded = f"; the embedded engine runs on torch {torch}" if torch else ""
        if packages.no_vllm in ("", "vLLM is not installed"):
            return (slow if gpus else none)(f"vLLM is not installed{embedded}")
        return fail(packages.no_vllm, "VLFLEET_VLLM must name the virtual environment, python or `vllm` that has it")
    release = parse_release(packages.vllm)
    saw = f"vLLM {packages.vllm} in {packages.python} (Python {_dotted(packages.python_version)})"
    numbers = {"vllm": packages.vllm, "python": packages.python}
    if release < versions.FIRST:
        return fail(f"{saw} is older than {_dotted(versions.FIRST)}", "pip install -U vllm", **numbers)
    if release[:2] > versions.LAST[:2]:
        newest = _dotted(versions.LAST)
        return risk(
            f"{saw} is newer than {newest}, the newest that was tried", f"pip install vllm=={newest}", **numbers
        )
    return well(saw, **numbers)


def _advisories(known: Known) -> Finding:
    packages = known[Packages]
    if not packages.vllm:
        return none("vLLM is not installed")
    release = parse_release(packages.vllm)
    open_ = [each for each in (*advisories.REFUSED_EXPOSED, *advisories.WARNED) if each.concerns(release)]
    if not open_:
        floor = max(each.fixed for each in (*advisories.REFUSED_EXPOSED, *advisories.WARNED) if each.fixed)
        return well(f"vLLM {packages.vllm} is at or above {_dotted(floor)}", floor=_dotted(floor))
    saw = "; ".join(f"vLLM {packages.vllm} {each.what} ({each.id})" for each in open_)
    return risk(saw, "; ".join(each.remedy for each in open_), advisories=[each.id for each in open_])


def _imports(known: Known) -> Finding:
    packages, imports = known[Packages], known[Imports]
    error = imports.torch_error or imports.vllm_error
    if error:
        what = "torch" if imports.torch_error else "vLLM"
        return fail(f"{what} cannot be imported by {packages.python}: {error}", _explained(error))
    if not packages.vllm:
        return none("vLLM is not installed; torch can be imported")
    return well(f"vLLM {packages.vllm} and its compiled kernels can be imported")


def _neighbours(known: Known) -> Finding:
    errors = known[Imports].other_errors
    needed = {name: error for name, error in errors.items() if name in ("transformers", "torchvision")}
    if needed:
        return fail(_listed(needed), _explained(next(iter(needed.values()))), broken=list(needed))
    if errors:
        return risk(
            _listed(errors), f"pip uninstall {' '.join(errors)}, or install builds for this torch", broken=list(errors)
        )
    return well("transformers and what else is installed of torch's neighbours can be imported")


def _listed(errors: Mapping[str, str]) -> str:
    return "; ".join(f"{name} cannot be imported: {error}" for name, error in errors.items())


@with_gpus()
def _kernels(known: Known) -> Finding:
    imports, gpus = known[Imports], known[Gpus].whole
    if not imports.archs:
        return none("this torch holds no code for GPUs")
    without = [gpu for gpu in gpus if gpu.capability > (0, 0) and not runs(gpu.capability, imports.archs)]
    saw = f"torch holds code for {', '.join(imports.archs)}"
    if without:
        gpu = without[0]
        return fail(f"{saw}: none for {gpu.name} ({_dotted(gpu.capability)})", archs=list(imports.archs))
    return well(saw, archs=list(imports.archs))


def runs(capability: tuple[int, int], archs: tuple[str, ...]) -> bool:
    """Whether a GPU can run code that was compiled for one of `archs` (CUDA programming guide, binary compatibility).

    sm_86 runs on 8.6 and 8.9, compute_80 is compiled anew for everything from 8.0 on, sm_90a runs on 9.0 alone.
    """
    for arch in archs:
        kind, _, digits = arch.partition("_")
        exact = digits[-1:].isalpha()
        digits = digits.rstrip("abcdefghijklmnopqrstuvwxyz")
        if not digits.isdecimal():
            continue
        of = int(digits[:-1]), int(digits[-1])
        if of == capability or (kind == "compute" and not exact and of <= capability):
            return True
        if kind == "sm" and not exact and of[0] == capability[0] and of <= capability:
            return True
    return False


def _requirements(known: Known) -> Finding:
    packages = known[Packages]
    wrong = [each for each in packages.misfits if each.installed]
    absent = [each for each in packages.misfits if not each.installed]
    broken = [each for each in wrong if (each.package, each.wanted.lower()) in FATAL]
    numbers = {"misfits": [[each.package, each.requirement, each.installed] for each in packages.misfits]}
    if broken and not _proven(known):
        return fail(_misfits(broken), _install(broken), **numbers)
    if wrong or absent:
        return risk(_misfits([*wrong, *absent]), _install([*wrong, *absent]), **numbers)
    told = [
        f"{name} {packages.versions[name]}" for name in ("torch", "transformers", "numpy") if name in packages.versions
    ]
    return well(
        f"every requirement of vLLM and torch's neighbours is met: {', '.join(told)}", versions=dict(packages.versions)
    )


def _proven(known: Known) -> bool:
    """Whether all that was tried could be imported: then a requirement that is not met is no more than a risk."""
    imports = known.get(Imports)
    return imports is not None and not (imports.torch_error or imports.vllm_error or imports.other_errors)


def _misfits(misfits: list[Misfit]) -> str:
    shown = [f"{each.package} wants {each.requirement}, {each.installed or 'absent'}" for each in misfits[:6]]
    return "; ".join(shown) + (f"; and {len(misfits) - 6} more" if len(misfits) > 6 else "")


def _install(misfits: list[Misfit]) -> str:
    return "pip install " + " ".join(f"'{each.requirement}'" for each in misfits[:6])


def _breakages(known: Known) -> Finding:
    there = known[Packages].versions
    found = [
        each for each in BREAKAGES
        if each.concerns(there.get(each.package, "")) and (not each.beside or each.beside in there)
    ]  # fmt: skip
    if not found:
        return well("no release that is known to break another")
    saw = "; ".join(f"{each.package} {there[each.package]} {each.what}" for each in found)
    return risk(saw, "; ".join(dict.fromkeys(each.remedy for each in found)), sources=[each.source for each in found])


def _encoding(known: Known) -> Finding:
    if known[Packages].utf8:
        return well("Python reads and writes UTF-8")
    return risk("Python there does not read files as UTF-8")


def _explained(error: str) -> str:
    """By the rules that explain logs."""
    from vlfleet.doctor import diagnose

    found = diagnose([error])
    return found.remedy if found and found.known else ""


def _dotted(release: tuple[int, ...]) -> str:
    return ".".join(map(str, release))


CHECKS = (
    Check("vllm", Group.ENGINE, _vllm,
          "vlfleet starts the vLLM that $VLFLEET_VLLM names, else the one beside it, else the one on PATH.",
          "pip install vllm in an environment of its own and set VLFLEET_VLLM to it", source="engine/vllm/install.py"),
    Check("vllm-imports", Group.ENGINE, _imports,
          "An installation that cannot be imported dies seconds after its start.",
          "make a new environment: python -m venv vllm && vllm/bin/pip install vllm"),
    Check("requirements", Group.ENGINE, _requirements,
          "vLLM is compiled against one torch; another one, or a neighbour of another release, does not load.",
          "install the releases that are named", source="metadata of the installed packages; vllm-project/vllm#12932"),
    Check("neighbours", Group.ENGINE, _neighbours,
          "vLLM and transformers import torchvision, OpenCV and FlashAttention where they find them: one that was"
          " built for another torch takes them down.",
          "install builds for this torch", source="vllm-project/vllm#12932"),
    Check("breakages", Group.ENGINE, _breakages,
          "Some releases install side by side and still do not work together.",
          "pip install -U what is named"),
    Check("gpu-code", Group.ENGINE, _kernels,
          "A wheel without code for a GPU ends with `no kernel image is available`.",
          "an RTX 50 or B200 needs wheels for CUDA 12.8 or newer; a V100 a build of its own",
          source="vllm-project/vllm#19185, gpustack/gpustack#2097"),
    Check("advisories", Group.ENGINE, _advisories,
          "Holes in vLLM that somebody who reaches it, or sends it pictures, can use.",
          "pip install -U vllm", source="engine/vllm/advisories.py"),
    Check("encoding", Group.ENGINE, _encoding,
          "Templates and vocabularies are UTF-8: in another encoding they fail, or come out wrong.",
          "export PYTHONUTF8=1, or LANG=C.UTF-8"),
)  # fmt: skip
