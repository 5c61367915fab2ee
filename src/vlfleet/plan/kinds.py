"""GPUs of one model, and what is known of them: a plan is made for one kind at a time. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from vlfleet.hardware.catalogue_table import GpuModel
from vlfleet.hardware.machine import Gpu, Machine
from vlfleet.plan.memory_calibration import Calibration
from vlfleet.plan.plan import Inputs
from vlfleet.plan.speed_coefficients import Coefficients


@dataclass(frozen=True)
class Kind:
    """What is known of the GPUs of one model."""

    model: GpuModel
    calibration: Calibration
    coefficients: Coefficients | None = None


Kinds = Mapping[int, Kind]
"""Of each GPU, by index."""


def on(inputs: Inputs, machine: Machine, gpus: tuple[Gpu, ...], kinds: Kinds) -> Inputs:
    """The same question for these GPUs, which are of one kind; the one with the least memory speaks for all."""
    kind = min((kinds[gpu.index] for gpu in gpus), key=lambda each: each.model.cuda_gib)
    return replace(
        inputs,
        gpu=kind.model,
        machine=replace(machine, gpus=gpus),
        calibration=kind.calibration,
        coefficients=kind.coefficients,
    )
