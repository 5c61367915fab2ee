"""From a fleet's spec and the machine to the question that its plan answers."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from vlfleet.cli.plan_inputs import OFFERED_SHARE, check, kinds_of
from vlfleet.errors import VlfleetError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vlfleet.engine.vllm import VllmEngine
    from vlfleet.fleet.spec import FleetSpec
    from vlfleet.hardware.machine import Machine
    from vlfleet.plan.demand import Workload
    from vlfleet.plan.kinds import Kind
    from vlfleet.plan.model import Model
    from vlfleet.plan.plan import Inputs

_IN_THE_CHECKPOINT = ("awq", "gptq", "compressed", "modelopt", "fp8")
"""How --quantization begins where it only says what the checkpoint is already."""


class NoPlanError(Exception):
    """Nothing can be planned here, and why; the engine's defaults may do all the same."""


class Question(NamedTuple):
    inputs: Inputs
    """With all GPUs that may be used."""
    kinds: Mapping[int, Kind]
    """By the index of each."""


def question(spec: FleetSpec, preset: str | None, engine: VllmEngine) -> Question | None:
    """What `spec` leaves open on this machine; None without a GPU that may be used.

    Raises:
        VlfleetError: exit code 2, what was said contradicts itself.
        NoPlanError: the planner does not know the model, the GPUs or a flag.
    """
    from vlfleet.engine.vllm.said import flag_fields, said, unknown
    from vlfleet.hardware.catalogue import find_model
    from vlfleet.plan.plan import Inputs

    given = {option: value for option, value in vars(spec.options).items() if value is not None}
    if flag := unknown(spec.engine_args) or _unknown_option(given):
        raise NoPlanError(f"the planner does not know {flag}")
    given |= said(spec.engine_args)
    machine = _machine(engine, given)
    if machine is None:
        return None
    try:
        models = {gpu.index: find_model(gpu.name, gpu.memory_bytes) for gpu in machine.gpus}
        kinds = kinds_of(machine, models, engine.install.release)
        model = _model(spec)
    except VlfleetError as error:
        raise NoPlanError(f"{error.cause} ({error.remedy})") from None
    fields = flag_fields(given)
    pixels, length, cache = (fields.pop(each, None) for each in ("max_pixels", "max_model_len", "kv_cache_dtype"))
    first = next(iter(kinds.values()))
    inputs = Inputs(
        model=model,
        gpu=first.model,
        machine=machine,
        workload=_workload(preset, model, length, pixels),
        release=engine.install.release,
        quantise=_quantise(given.get("quantization"), model),  # type: ignore[arg-type]
        max_pixels=pixels,
        max_model_len=length,
        kv_cache_dtype="fp8" if str(cache).startswith("fp8") else "auto",
        said=fields,
        host_memory_bytes=machine.host_memory_bytes,
        calibration=first.calibration,
        coefficients=first.coefficients,
    )
    check(inputs)
    return Question(inputs, kinds)


def _machine(engine: VllmEngine, given: Mapping[str, Any]) -> Machine | None:
    """This machine with the GPUs that may be used; None without any."""
    from vlfleet.hardware.probe import probe
    from vlfleet.hardware.visible import visible
    from vlfleet.plan.select import usable

    if engine.install.cpu:
        return None
    machine = probe()
    share = min(OFFERED_SHARE, float(given.get("gpu_memory_utilization", OFFERED_SHARE)))
    free, _ = usable(visible(machine, os.environ.get("CUDA_VISIBLE_DEVICES")), share)
    return replace(machine, gpus=free) if free else None


def _model(spec: FleetSpec) -> Model:
    """By its headers; by its configuration alone where the engine makes its weights up."""
    from vlfleet.engine.vllm import flags
    from vlfleet.plan.model import read_model

    dummy = flags.value(spec.engine_args, "--load-format") == "dummy"
    return read_model(str(spec.model / "config.json" if dummy else spec.model))


def _workload(preset: str | None, model: Model, length: int | None, pixels: int | None) -> Workload:
    """That of --for. The default one is nobody's word: where max_model_len is short, so are its requests."""
    from vlfleet.plan.demand import ImageSize, demand, pictures

    workload = demand(preset)
    if preset or not length:
        return workload
    prompt, answer = min(workload.prompt_tokens, max(1, length // 4)), min(workload.output_tokens, max(1, length // 4))
    workload = replace(workload, prompt_tokens=prompt, output_tokens=answer)
    left = length - prompt - workload.longest_answer - 2
    side = model.family.factor * max(1, math.isqrt(max(1, left)))
    images = tuple(
        picture.size if picture.tokens <= left else ImageSize(side, side, picture.size.weight)
        for picture in pictures(workload, model.family, pixels)
    )
    return replace(workload, images=images)


def _quantise(word: str | None, model: Model) -> str:
    """The planner's --quantization for that of the engine."""
    if word is None:
        return "auto"
    if word == "fp8" and model.shape.quantized is None:
        return "fp8"
    if model.shape.quantized is None or not word.startswith(_IN_THE_CHECKPOINT):
        raise NoPlanError(f"the planner does not know --quantization {word} for {model.quantised} weights")
    return "none"


def _unknown_option(given: Mapping[str, Any]) -> str:
    dtype = given.get("dtype")
    return f"--dtype {dtype}" if dtype not in (None, "auto", "bfloat16", "float16", "half") else ""
