"""The checkpoint that `vlfleet checkpoint pad` would make of one that cannot be cut, as a model to plan for. Pure.

A padded shape is a candidate of its own: judged and predicted like any other, ranked among its like, and shown with the
command that makes it. It is never what a plan chooses: `up` runs what is chosen, and this checkpoint is not there yet.
Where nothing else fits, its command is the first of the changes that would help.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePath
from typing import Any

from vlfleet.plan import legality
from vlfleet.plan.plan import Inputs
from vlfleet.plan.shape import read_shape

_MODES: tuple[legality.Mode, ...] = ("weights", "data")


def wider(inputs: Inputs, tp: int) -> Inputs | None:
    """The same question about the padded checkpoint; None where `tp` is legal without, or padding does not cure it.

    Its intermediate size is that of `checkpoint.pad_size`: the smallest that gives each rank whole groups and tiles.
    """
    model = inputs.model
    if model.rules.experts or tp == 1:
        return None
    rules = legality.padded(model.rules, model.scheme, tp)
    if rules.intermediate == model.rules.intermediate or _legal(inputs, model.rules, tp):
        return None
    if not _legal(inputs, rules, tp):
        return None
    config = with_intermediate(model.config, rules.intermediate)
    name = f"{model.name}, padded for TP {tp}"
    return replace(
        inputs,
        model=replace(model, name=name, config=config, shape=read_shape(config), path=None, source="padding"),
    )


def command(name: str, tp: int) -> str:
    """That makes it, beside the working directory: `vlfleet checkpoint pad SRC DST --tp N`."""
    return shlex.join(["vlfleet", "checkpoint", "pad", name, f"{PurePath(name).name}-tp{tp}", "--tp", str(tp)])


def _legal(inputs: Inputs, rules: legality.Shape, tp: int) -> bool:
    release, capability = inputs.release[:2], inputs.gpu.capability
    return any(
        legality.verdict(rules, inputs.model.scheme, tp, mode, release, capability=capability).legal for mode in _MODES
    )


def with_intermediate(config: Mapping[str, Any], size: int) -> dict[str, Any]:
    """config.json, flat or with `text_config`, of a model whose MLP is so wide."""
    text = config.get("text_config")
    if text:
        return {**config, "text_config": {**text, "intermediate_size": size}}
    return {**config, "intermediate_size": size}
