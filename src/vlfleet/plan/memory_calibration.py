"""What no source tells and only a start on a GPU shows: coefficients, where they are from, and their file."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from vlfleet.errors import VlfleetError
from vlfleet.hardware.catalogue import key_of
from vlfleet.home import home
from vlfleet.plan.releases import Release
from vlfleet.plan.terms import MIB

_H200 = "fitted to two starts of vLLM 0.26.0 with Qwen2.5-VL-7B on one H200 (tests/doctor/healthy/*tp1.log, *serve.log)"


@dataclass(frozen=True)
class Calibration:
    """The defaults are those of one H200 with vLLM 0.26.0, and stand in wherever nothing was measured."""

    context_bytes: int = 552_402_944
    """CUDA's context, gone before vLLM looks: total less free at the start. H200: 139.8 and 139.29 GiB, to the byte
    from the two --kv-cache-memory that vLLM suggested. In other logs: 0.49 (A100-40), 0.51 and 0.88 (24 GB) GiB."""
    collectives_bytes: int = 342 * 10**6
    """What NCCL takes, gone before vLLM looks, with more than one rank. A prior: 342 MB with 2 ranks, 392 MB with 4
    and 8 (NVIDIA AIConfigurator, systems/*.yaml). The custom all-reduce comes on top."""
    non_torch_bytes: int = 228 * MIB
    """Kernels and libraries that the driver loads after vLLM looked. H200: 0.22 GiB in the log; 225 to 231 MiB left
    over when weights and activations are taken from what vLLM subtracted."""
    activation_fixed_bytes: int = 6 * MIB
    """Beside cuBLAS's workspace, small tensors of the measured step. H200: 0.9 to 8 MiB left over in the same way."""
    activation_scale: float = 1.0
    """Times `activation.token_bytes`."""
    vision_scale: float = 1.0
    """Times `vision.patch_bytes`."""
    graph_bytes: int = 312_660
    """Of one CUDA graph, for each language layer. H200: 102 graphs of 28 layers took 921.8 and 913.4 MiB, 66 MiB of
    them activations. That it grows with the layers is an assumption."""
    session: str = ""
    """What `vlfleet calibrate` said of itself: its date, engine and cuts; empty where it was not run."""
    session_starts: int = 0
    """Engine starts of the session."""
    gpu: str = ""
    """The GPU model that it was derived on; empty: the built-in one."""
    release: Release = (0, 26, 0)
    starts: int = 0
    """Engine starts that it was derived from, those of the session among them."""

    @property
    def source(self) -> str:
        """What a plan says of where its terms are from."""
        more = self.starts - self.session_starts
        said = f"{more} start{'' if more == 1 else 's'}"
        if self.session:
            return f"{self.session}; corrected by {said}" if more else self.session
        return f"derived from {said} of vLLM {'.'.join(map(str, self.release))} on {self.gpu}" if more else _H200


def path_of(gpu: str, release: Release) -> Path:
    """home()/calibration/memory-h200-0.26.0.json, whether `gpu` is NVML's name or the catalogue's."""
    name = key_of(gpu) or "gpu"
    return home() / "calibration" / f"memory-{name}-{'.'.join(map(str, release))}.json"


def read(gpu: str, release: Release) -> Calibration:
    """That of this GPU model and release, or the built-in one.

    Raises:
        VlfleetError: the file is there but cannot be used.
    """
    file = path_of(gpu, release)
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return Calibration(**{**_typed(found), "release": release})
    except FileNotFoundError:
        return Calibration()
    except (OSError, ValueError, TypeError) as error:
        raise VlfleetError(f"{file} is no calibration: {error}", f"remove {file}; the next start writes it") from None


def write(calibration: Calibration) -> Path:
    """Its file, replaced in one step.

    Raises:
        OSError: it cannot be written.
    """
    file = path_of(calibration.gpu, calibration.release)
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_suffix(f".{os.getpid()}.new")  # another fleet may learn at the same time
    beside.write_text(json.dumps(asdict(calibration), indent=1) + "\n", encoding="utf-8")
    beside.replace(file)
    return file


def _typed(found: Any) -> dict[str, Any]:
    """The fields in `found`; a file of another version may have more or fewer."""
    if not isinstance(found, dict):
        raise ValueError("it holds no JSON object")
    kept: dict[str, Any] = {}
    for field in fields(Calibration):
        if field.name not in found or field.name == "release":
            continue
        value, kind = found[field.name], type(field.default)
        fine = isinstance(value, kind) or (kind is float and isinstance(value, int))
        if isinstance(value, bool) or not fine:
            raise ValueError(f"{field.name} is {value!r:.40}")
        kept[field.name] = value
    return kept
