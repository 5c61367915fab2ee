"""From what a person types after `vlfleet plan` to the question that the planner answers."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from vlfleet.errors import ExitCode, VlfleetError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vlfleet.hardware.catalogue_table import GpuModel
    from vlfleet.hardware.machine import Link, Machine
    from vlfleet.plan.demand import Workload
    from vlfleet.plan.kinds import Kind
    from vlfleet.plan.plan import Inputs
    from vlfleet.plan.releases import Release
    from vlfleet.plan.search import Layout

T = TypeVar("T")
GOALS = ("throughput", "latency", "memory")
QUANTISE = ("auto", "none", "fp8", "any")
LINKS = ("pcie3", "pcie4", "pcie5", "nvlink")
DEFAULT_RELEASE = (0, 26, 0)
"""Planned for where no vLLM is installed: the one that was measured."""
OFFERED_SHARE = 0.5
"""Of a GPU's memory that must be free for it to be planned with; `vlfleet up` takes less where less is asked for."""
_LAYOUT = re.compile(r"(TP|PP|REPLICAS|DP)(\d{1,4})", re.IGNORECASE)


def wrong(cause: str, remedy: str) -> VlfleetError:
    return VlfleetError(cause, remedy, ExitCode.USAGE)


def one_of(option: str, value: str, known: tuple[str, ...]) -> str:
    """`value`, if it is known.

    Raises:
        VlfleetError: exit code 2.
    """
    if value not in known:
        raise wrong(f"{option} {value} is not known", f"one of {', '.join(known)}")
    return value


def machine_of(gpus: str, specs: list[str], link: str | None) -> tuple[Machine, dict[int, GpuModel], list[str]]:
    """The GPUs to plan for, the catalogue's model of each, and notes: of this machine ("auto"), or as they are named.

    Raises:
        VlfleetError: exit code 2, unknown or contradictory; 3, this machine has none to use.
    """
    if gpus == "auto" and not specs:
        if link:
            raise wrong(
                "--link is for GPUs that are named; those of this machine are probed", "leave it out, or name --gpus"
            )
        return _this_machine()
    from vlfleet.hardware.catalogue import imagined_machine

    models = _named(gpus, specs)
    joined = None
    if link:
        models, joined = _joined(models, one_of("--link", link, LINKS))
    return imagined_machine(models, joined), dict(enumerate(models)), []


def kinds_of(machine: Machine, models: Mapping[int, GpuModel], release: Release) -> dict[int, Kind]:
    """What is known of each GPU with this vLLM, by index: its own calibration, or what is built in.

    Raises:
        VlfleetError: a calibration is there but cannot be used.
    """
    from vlfleet.plan import memory_calibration, speed_coefficients
    from vlfleet.plan.kinds import Kind

    version = ".".join(map(str, release))
    alike = {(gpu.name, gpu.memory_bytes): models[gpu.index] for gpu in machine.gpus}
    known = {
        (name, size): Kind(model, memory_calibration.read(name, release), speed_coefficients.read(model, name, version))
        for (name, size), model in alike.items()
    }
    return {gpu.index: known[gpu.name, gpu.memory_bytes] for gpu in machine.gpus}


def _named(gpus: str, specs: list[str]) -> tuple[GpuModel, ...]:
    """GPUs of the catalogue; a --gpu-spec adds one kind under its own name."""
    from vlfleet.hardware.catalogue import normalised, parse_gpu_spec, parse_gpus

    described = {normalised(spec.partition(":")[0]): parse_gpu_spec(spec) for spec in specs}
    if gpus == "auto":
        return tuple(described.values())
    models: list[GpuModel] = []
    for part in gpus.split(","):
        match = re.fullmatch(r"\s*(?:(\d{1,4})\s*[x*×]\s*)?(\S.*?)\s*", part)
        own = described.get(normalised(match[2])) if match else None
        models += [own] * int(match[1] or 1) if match and own else parse_gpus(part)
    return tuple(models)


def _joined(models: tuple[GpuModel, ...], link: str) -> tuple[tuple[GpuModel, ...], Link]:
    from vlfleet.hardware.machine import Link

    if link == "nvlink":
        without = next((model.name for model in models if not model.nvlink_gb_s), "")
        if without:
            raise wrong(f"--link nvlink: {without} has no NVLink", "leave --link out, or say pcie4")
        return models, Link.NVLINK
    generation = int(link[-1])
    return tuple(replace(model, pcie=min(generation, model.pcie)) for model in models), Link.BRIDGE


def _this_machine() -> tuple[Machine, dict[int, GpuModel], list[str]]:
    import os

    from vlfleet.hardware.catalogue import find_model
    from vlfleet.hardware.probe import probe
    from vlfleet.hardware.visible import visible
    from vlfleet.plan.select import usable

    machine = probe()
    if not machine.gpus:
        remedy = "name some: --gpus 4xRTX4090; `vlfleet up` runs small models on the CPU"
        raise VlfleetError("this machine has no NVIDIA GPU to plan for", remedy, ExitCode.DOES_NOT_FIT)
    free, busy = usable(visible(machine, os.environ.get("CUDA_VISIBLE_DEVICES")), OFFERED_SHARE)
    if not free:
        raise VlfleetError("; ".join(busy) or "no GPU is free", "end what holds them", ExitCode.DOES_NOT_FIT)
    kinds = {gpu.index: find_model(gpu.name, gpu.memory_bytes) for gpu in free}
    return replace(machine, gpus=free), kinds, [f"left out: {line}" for line in busy]


def workload_of(preset: str | None, options: dict[str, Any]) -> Workload:
    """The demand, from a preset and what was said beside it; texts are read, None was not said.

    Raises:
        VlfleetError: exit code 2.
    """
    from vlfleet.plan import demand

    readers = {
        "images": demand.parse_images,
        "repeated_share": demand.parse_share,
        "request_rate": demand.parse_rate,
        "ttft_p95_seconds": demand.parse_seconds,
        "tpot_p95_seconds": demand.parse_seconds,
    }
    told = {
        name: readers[name](value) if name in readers and isinstance(value, str) else value
        for name, value in options.items()
        if value is not None
    }
    return demand.demand(preset, **told)


def release_of(text: str | None) -> Release:
    """The vLLM to plan for: as told ("0.26"), else the installed one, else the one that was measured.

    Raises:
        VlfleetError: exit code 2, no version, or one whose rules are not known.
    """
    from vlfleet.engine.vllm.install import exists, find
    from vlfleet.engine.vllm.versions import FIRST, LAST

    if text is None:
        return find().release if exists() else DEFAULT_RELEASE
    match = re.fullmatch(r"v?(\d{1,3})\.(\d{1,3})(?:\.(\d{1,3}))?", text.strip())
    if match is None:
        raise wrong(f"--vllm-version {text} is no version", "write 0.26 or 0.26.0")
    release = (int(match[1]), int(match[2]), int(match[3] or 0))
    if not FIRST <= release < (LAST[0], LAST[1] + 1, 0):
        known = f"{'.'.join(map(str, FIRST[:2]))} to {'.'.join(map(str, LAST[:2]))}"
        raise wrong(f"vLLM {text} is not planned for", f"the rules of {known} are known")
    return release


def layouts_of(text: str | None, gpus: int) -> tuple[Layout, ...]:
    """What --compare names: "TP4,REPLICAS4,TP2xPP2" as (4, 1, 1), (1, 1, 4), (2, 2, 1).

    Raises:
        VlfleetError: exit code 2, not understood, or more GPUs than there are.
    """
    found = []
    for name in filter(None, re.split(r"[,\s]+", text or "")):
        sizes = {"TP": 1, "PP": 1, "REPLICAS": 1}
        for part in name.split("x") if "X" not in name else name.split("X"):
            match = _LAYOUT.fullmatch(part)
            if match is None or int(match[2]) < 1:
                raise wrong(f"--compare {name!r} is no layout", "write TP4, REPLICAS4, TP2xPP2 or TP2xREPLICAS2")
            kind = match[1].upper()
            sizes["REPLICAS" if kind == "DP" else kind] = int(match[2])
        needed = sizes["TP"] * sizes["PP"] * sizes["REPLICAS"]
        if needed > gpus:
            raise wrong(
                f"--compare {name} needs {needed} GPUs, there are {gpus}", "name more GPUs, or a smaller layout"
            )
        found.append((sizes["TP"], sizes["PP"], sizes["REPLICAS"]))
    return tuple(dict.fromkeys(found))


def size_of(text: str | None) -> int:
    """Bytes of a host's memory, "128G" or "128" (GiB); 0 for None.

    Raises:
        VlfleetError: exit code 2.
    """
    if text is None:
        return 0
    match = re.fullmatch(r"\s*(\d{1,6}(?:\.\d{1,3})?)\s*(?:([gt])(?:i?b)?)?\s*", text.lower())
    size = int(float(match[1]) * (1 << 40 if match[2] == "t" else 1 << 30)) if match else 0
    if size < 1 << 30:
        raise wrong(f"--host-memory {text} is no size", "write 128G")
    return size


def with_smaller_pictures(inputs: Inputs, plan: Callable[[Inputs], T], fits: Callable[[T], bool]) -> T:
    """The plan, for a demand that is nobody's word: where its pictures do not fit, that of smaller ones if they do."""
    from vlfleet.plan.advice import PIXELS

    found = plan(inputs)
    if fits(found) or inputs.max_pixels is not None:
        return found
    smaller = plan(replace(inputs, max_pixels=PIXELS[0]))
    return smaller if fits(smaller) else found


def check(inputs: Inputs) -> None:
    """What was said must be possible together.

    Raises:
        VlfleetError: exit code 2.
    """
    from vlfleet.plan.candidates import needs

    if inputs.kv_cache_dtype not in ("auto", "fp8"):
        raise wrong(f"--kv-cache-dtype {inputs.kv_cache_dtype} is not planned for", "auto or fp8")
    if inputs.quantise == "fp8" and inputs.model.shape.quantized is not None:
        cause = f"--quantization fp8 is for 16-bit weights; {inputs.model.name} is {inputs.model.quantised} already"
        raise wrong(cause, "leave it out, or name the checkpoint that is not quantised")
    if inputs.quantise == "fp8" and inputs.gpu.capability < (8, 9):
        have = ".".join(map(str, inputs.gpu.capability))
        raise wrong(
            f"--quantization fp8: {inputs.gpu.name} ({have}) has no FP8", "leave it out, or take an AWQ checkpoint"
        )
    wanted = needs(inputs)
    if wanted.request_tokens > wanted.max_model_len:
        asked, most = wanted.request_tokens, wanted.max_model_len
        cause = f"a request of the workload has {asked:,} tokens, more than the {most:,} of max_model_len"
        raise wrong(cause, "fewer or smaller pictures (--max-pixels), fewer tokens, or a larger --max-model-len")
    context = inputs.model.shape.max_position_embeddings
    if wanted.max_model_len > context:
        raise wrong(
            f"--max-model-len {wanted.max_model_len:,} is more than the model's {context:,}", f"at most {context}"
        )
