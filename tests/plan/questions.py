"""Questions to the planner, short to write."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from vlfleet.hardware.catalogue import imagined_machine, parse_gpus
from vlfleet.hardware.machine import Link
from vlfleet.plan.demand import Workload, demand
from vlfleet.plan.model import Model, read_model
from vlfleet.plan.plan import Inputs


def ask(
    model: str | Model = "Qwen2.5-VL-7B",
    gpus: str = "2xRTX4090",
    workload: str | Workload = "chat",
    link: Link | None = None,
    **more: Any,
) -> Inputs:
    """For GPUs of one kind and vLLM 0.26."""
    models = parse_gpus(gpus)
    known = read_model(model) if isinstance(model, str) else model
    asked = demand(workload) if isinstance(workload, str) else workload
    return Inputs(known, models[0], imagined_machine(models, link), asked, **{"release": (0, 26, 0), **more})


def with_memory(inputs: Inputs, gib: float) -> Inputs:
    """The same GPUs with this much memory each, all of it free."""
    gpu = replace(inputs.gpu, cuda_gib=gib)
    return replace(inputs, gpu=gpu, machine=imagined_machine([gpu] * len(inputs.machine.gpus)))
