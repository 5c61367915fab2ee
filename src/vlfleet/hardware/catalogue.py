"""The GPUs that a person names or NVML reports, as data: a plan for GPUs that are not here needs nothing else."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import replace

from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.hardware.catalogue_table import MODELS, GpuModel
from vlfleet.hardware.machine import Gpu, Link, Machine, Pair

_GIB = 1 << 30
_SPEC = "NAME:memory_gib=24,bandwidth_gb_s=600,fp16_tflops=70,capability=8.6"
_SPEC_KEYS = {
    "memory_gib": "cuda_gib",
    "bandwidth_gb_s": "bandwidth_gb_s",
    "fp16_tflops": "fp16_tflops",
    "capability": "capability",
    "fp8_tflops": "fp8_tflops",
    "int8_tops": "int8_tops",
    "nvlink_gb_s": "nvlink_gb_s",
    "pcie": "pcie",
    "sms": "sms",
}
_NEEDED = ("memory_gib", "bandwidth_gb_s", "fp16_tflops", "capability")
_MOST_GPUS = 4096
_SAME_MEMORY = 0.1
"""NVML counts what the driver and error correction keep, CUDA does not: 140.4 and 139.8 GiB of an H200, 24.0 and 22.0
of an A10. Cards with other memory than they were sold with differ by half at least."""
_OF_THE_DRIVER = 0.98
"""What CUDA has of NVML's figure: 23.52 of 23.99 GiB of an RTX 4090 (log)."""


def normalised(name: str) -> str:
    """Lower case without spaces, hyphens and the words that NVML puts before a model: "NVIDIA H100 80GB HBM3" is
    h10080gbhbm3, "NVIDIA GeForce RTX 4090" is rtx4090."""
    return re.sub(r"nvidia|geforce|tesla|[^a-z0-9]", "", name.lower())


def find_model(name: str, memory_bytes: int | None = None) -> GpuModel:
    """The GPU with this name, as NVML reports it or as a person types it ("h200", "RTX4090", "A100-80GB").

    `memory_bytes` is what NVML says that it has: a card that was given other memory than it was sold with (an RTX 4090
    with 48 GB) is found with its own.

    Raises:
        VlfleetError: exit code 2, no GPU of that name is known; the error names the nearest ones.
    """
    plain = normalised(name)
    for model in MODELS:
        if re.fullmatch(model.pattern, plain):
            return model if memory_bytes is None else _with_memory(model, memory_bytes)
    raise _unknown(name, plain)


def key_of(name: str) -> str:
    """What is the same for all names of a GPU, as part of a file's name: "NVIDIA H100 80GB HBM3", as NVML reports it,
    and "H100" are h100. Of one that is not known, its `normalised` name."""
    try:
        return normalised(find_model(name).name)
    except VlfleetError:
        return normalised(name)


def parse_gpus(text: str) -> tuple[GpuModel, ...]:
    """The GPUs that a person asks about, one entry a GPU: "4xRTX4090", "h200", "2xA100-80GB,2xL40S".

    Raises:
        VlfleetError: exit code 2.
    """
    gpus: list[GpuModel] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(?:(\d+)\s*[x*×]\s*)?(\S.*?)\s*", part)
        if match is None:
            cause = f"--gpus {text!r} has an empty entry"
            raise VlfleetError(cause, "write it as 4xRTX4090, or 2xA100-80GB,2xL40S", ExitCode.USAGE)
        count = int(match[1] or 1)
        if not 1 <= count <= _MOST_GPUS:
            raise VlfleetError(f"--gpus {text!r}: {count} GPUs", f"ask for 1 to {_MOST_GPUS}", ExitCode.USAGE)
        gpus += [find_model(match[2])] * count
    return tuple(gpus)


def parse_gpu_spec(text: str) -> GpuModel:
    """A GPU that the catalogue does not have, as NAME:memory_gib=24,bandwidth_gb_s=600,fp16_tflops=70,capability=8.6.

    `memory_gib` is what CUDA can use. fp8_tflops, int8_tops, nvlink_gb_s, pcie and sms may follow.

    Raises:
        VlfleetError: exit code 2.
    """
    name, _, rest = text.partition(":")
    pairs = [pair.partition("=")[::2] for pair in rest.split(",") if pair.strip()]
    given = {key.strip(): value.strip() for key, value in pairs}
    wrong = [key for key in given if key not in _SPEC_KEYS]
    missing = [key for key in _NEEDED if key not in given]
    if wrong or missing or not name.strip():
        what = f"does not know {', '.join(wrong)}" if wrong else f"needs {', '.join(missing) or 'a name'}"
        raise VlfleetError(f"--gpu-spec {text!r} {what}", f"write it as {_SPEC}", ExitCode.USAGE)
    try:
        major, _, minor = given.pop("capability").partition(".")
        capability = (int(major), int(minor or 0))
        numbers = {_SPEC_KEYS[key]: float(value) for key, value in given.items()}
    except ValueError:
        raise VlfleetError(f"--gpu-spec {text!r} has a figure that is no number", _SPEC, ExitCode.USAGE) from None
    if min(numbers[_SPEC_KEYS[key]] for key in _NEEDED[:3]) <= 0 or not all(0 <= n < 1e7 for n in numbers.values()):
        raise VlfleetError(f"--gpu-spec {text!r} has a figure that no GPU has", _SPEC, ExitCode.USAGE)
    cuda_gib = numbers["cuda_gib"]
    return GpuModel(
        name=name.strip(),
        pattern=re.escape(normalised(name)),
        memory_gb=round(cuda_gib),
        cuda_gib=cuda_gib,
        bandwidth_gb_s=numbers["bandwidth_gb_s"],
        fp16_tflops=numbers["fp16_tflops"],
        capability=capability,
        sms=int(numbers.get("sms", 0)),
        fp8_tflops=numbers.get("fp8_tflops", 0.0),
        int8_tops=numbers.get("int8_tops", 0.0),
        nvlink_gb_s=numbers.get("nvlink_gb_s", 0.0),
        pcie=int(numbers.get("pcie", 4)),
        sources={"*": "--gpu-spec"},
    )


def imagined_machine(models: Sequence[GpuModel], link: Link | None = None) -> Machine:
    """A host with these GPUs, idle, as `probe` would report it: what a plan without the machine is made for.

    `link` joins every two of them. Without it: NVSwitch where all of a model have one, an NVLink bridge between
    neighbours (0 and 1, 2 and 3) of a model that takes one, a host bridge otherwise.
    """
    gpus = tuple(
        Gpu(
            index=index,
            uuid=f"GPU-{index:08x}",
            name=model.name,
            memory_bytes=round(model.cuda_gib * _GIB),
            free_bytes=round(model.cuda_gib * _GIB),
            capability=model.capability,
        )
        for index, model in enumerate(models)
    )
    links: dict[Pair, Link] = {}
    peers = set()
    for one in range(len(models)):
        for other in range(one + 1, len(models)):
            pair = frozenset((one, other))
            links[pair] = link if link is not None else _usual_link(models, one, other)
            if links[pair] is Link.NVLINK or (models[one].peer_to_peer and models[other].peer_to_peer):
                peers.add(pair)
    return Machine(gpus=gpus, links=links, peers=frozenset(peers))


def _usual_link(models: Sequence[GpuModel], one: int, other: int) -> Link:
    """How these two are joined in a machine as it is sold."""
    model = models[one]
    joined = not model.nvlink_pair or (one % 2 == 0 and other == one + 1)
    return Link.NVLINK if model.name == models[other].name and model.nvlink_gb_s and joined else Link.BRIDGE


def _with_memory(model: GpuModel, memory_bytes: int) -> GpuModel:
    """This model, with the driver's figure where it has been given more or less memory than it was sold with."""
    gib = memory_bytes / _GIB
    if abs(gib / model.cuda_gib - 1) <= _SAME_MEMORY:
        return model
    sources = {**model.sources, "cuda_gib": "the driver", "memory_gb": "the driver"}
    return replace(model, memory_gb=round(gib), cuda_gib=round(gib * _OF_THE_DRIVER, 2), sources=sources)


def _unknown(name: str, plain: str) -> VlfleetError:
    names = {normalised(model.name): model.name for model in MODELS}
    near = difflib.get_close_matches(plain, names, n=3, cutoff=0.5)
    near = near or [key for key in names if len(plain) > 1 and (plain in key or key in plain)][:3]
    close = f"nearest: {', '.join(names[key] for key in near)}; " if near else ""
    remedy = f"{close}describe another one with --gpu-spec {_SPEC}"
    return VlfleetError(f"no GPU is known as {name.strip()!r}", remedy, ExitCode.USAGE)
