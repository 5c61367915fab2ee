"""Runs inside the Python that has vLLM or torch: says what is installed, or what can be imported. One line of JSON.

    python packages_inside.py installed|import

Standard library, and for `import` torch, vLLM and what is named in OTHERS.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata as metadata
import json
import locale
import re
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

NAMES = (
    *("vllm", "torch", "torchvision", "torchaudio", "transformers", "tokenizers", "huggingface-hub", "numpy", "triton"),
    *("flash-attn", "flashinfer-python", "xformers", "xgrammar", "compressed-tensors", "qwen-vl-utils", "decord"),
    *("opencv-python", "opencv-python-headless", "pillow", "safetensors", "numba", "accelerate", "ray", "pynvml"),
    *("nvidia-ml-py", "nvidia-nccl-cu12", "nvidia-nccl-cu13", "pydantic", "fastapi", "torchcodec", "av"),
)
"""What is told of. Versions of all others are their own affair."""
ASKED = (
    *("vllm", "torch", "torchvision", "transformers", "tokenizers", "xgrammar", "compressed-tensors"),
    *("opencv-python", "opencv-python-headless", "numba", "qwen-vl-utils", "xformers", "flash-attn"),
)
"""Whose requirements are looked at."""
OTHERS = {
    "transformers": "transformers",
    "torchvision": "torchvision",
    "flash-attn": "flash_attn",
    "xformers": "xformers",
    "opencv-python": "cv2",
    "opencv-python-headless": "cv2",
}
"""Distributions and their modules, which vLLM or transformers import where they are."""


def version(name: str) -> str:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return str(metadata.version(name) or "")
    return ""


def installed() -> dict[str, Any]:
    found = {name: number for name in NAMES if (number := version(name))}
    return {
        "python": list(sys.version_info[:2]),
        "versions": found,
        "misfits": list(misfits(name for name in ASKED if name in found)),
        "variables": variables(),
        "utf8": locale.getpreferredencoding(False).lower().replace("-", "") == "utf8",
    }


def misfits(names: Iterable[str]) -> Iterable[tuple[str, str, str]]:
    """Requirements without an extra that are not met; none where `packaging` is not there to read them."""
    try:
        from packaging.requirements import InvalidRequirement, Requirement
    except ImportError:
        return
    for name in names:
        for text in metadata.requires(name) or ():
            try:
                wanted = Requirement(text)
            except InvalidRequirement:
                continue
            if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
                continue
            there = version(wanted.name)
            if not there or not wanted.specifier.contains(there, prereleases=True):
                yield name, f"{wanted.name}{wanted.specifier}", there


def variables() -> list[str]:
    """Read from the text of vllm/envs.py: importing it would import vLLM."""
    try:
        file = metadata.distribution("vllm").locate_file("vllm/envs.py")
        return sorted(set(re.findall(r"\bVLLM_[A-Z0-9_]+", Path(str(file)).read_text(encoding="utf-8"))))
    except (metadata.PackageNotFoundError, OSError):
        return []


def last_line(error: BaseException) -> str:
    lines = f"{type(error).__name__}: {error}".strip().splitlines()
    return lines[0][:300]


def imported(name: str) -> str:
    """What went wrong, or empty."""
    try:
        importlib.import_module(name)
    except BaseException as error:  # a library may exit, or raise what is no Exception
        return last_line(error)
    return ""


def imports() -> dict[str, Any]:
    answer: dict[str, Any] = {
        "torch_error": "", "cuda": "", "archs": [], "nccl": "", "cuda_error": "", "devices": 0, "hip": "",
        "vllm_error": "", "other_errors": {},
    }  # fmt: skip
    answer["torch_error"] = imported("torch")
    if answer["torch_error"]:
        return answer
    import torch

    answer["cuda"], answer["hip"] = torch.version.cuda or "", torch.version.hip or ""
    if answer["cuda"]:
        answer["archs"] = list(torch.cuda.get_arch_list()) or (torch._C._cuda_getArchFlags() or "").split()
        with contextlib.suppress(Exception):
            answer["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))  # type: ignore[no-untyped-call]
        answer["devices"], answer["cuda_error"] = devices(torch)
    for name, module in OTHERS.items():
        if version(name) and (error := imported(module)):
            answer["other_errors"][name] = error
    if version("vllm"):
        answer["vllm_error"] = vllm()
    return answer


def devices(torch: Any) -> tuple[int, str]:
    """How many GPUs torch sees, and what it says where it sees none: a warning, or an error. No context is made."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            count = int(torch._C._cuda_getDeviceCount())
        except Exception as error:
            return 0, last_line(error)
    return count, "" if count or not said else str(said[-1].message).strip().splitlines()[0][:300]


def vllm() -> str:
    """`import vllm`, the kernels that its build has, and the file that reads its options."""
    error = imported("vllm") or imported("vllm.engine.arg_utils")
    if error or "cpu" in version("vllm"):
        return error
    folder = Path(str(metadata.distribution("vllm").locate_file("vllm")))
    kernels = sorted(file.name.partition(".")[0] for file in folder.glob("_C*.so"))  # named otherwise from time to time
    return next(filter(None, (imported(f"vllm.{name}") for name in kernels)), "")


if __name__ == "__main__":
    # the folder of this file, whose neighbours have common names
    sys.path[:] = [each for each in sys.path if each != str(Path(__file__).parent)]
    with contextlib.redirect_stdout(sys.stderr):
        said = installed() if sys.argv[1:] == ["installed"] else imports()
    print(json.dumps(said))
