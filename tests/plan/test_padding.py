"""Padded checkpoints as candidates: the first upload of the 72B in AWQ, whose 29,568 cut groups at any size but one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.plan.questions import ask
from tests.plan.shapes import AWQ, config
from vlfleet.checkpoint.pad_size import multiple_of, smallest
from vlfleet.cli.plan_json import facts
from vlfleet.cli.plan_text import text
from vlfleet.plan.advice import CHANGES
from vlfleet.plan.demand import Workload
from vlfleet.plan.model import Model, of_config
from vlfleet.plan.padding import command, wider
from vlfleet.plan.plan import Inputs
from vlfleet.plan.search import merit, search


def int4(model: str = "Qwen2.5-VL-72B", **sizes: Any) -> Model:
    return of_config(f"/models/{model}-AWQ", config(model, AWQ, **sizes), "a test")


def question(gpus: str, model: Model | None = None) -> Inputs:
    return ask(model or int4(), gpus, Workload())


@pytest.mark.parametrize(("gpus", "sizes"), [("4xRTX4090", {2, 4}), ("2xL40S", {2}), ("4xL40S", {2, 4})])
def test_the_72b_in_int4(gpus: str, sizes: set[int]) -> None:
    inputs = question(gpus)
    plan = search(inputs)
    assert plan.chosen is not None
    assert plan.chosen.candidate.tensor_parallel_size == 1, "up runs what is chosen: it must run without padding"
    assert all(each.candidate.tensor_parallel_size == 1 for each in plan.runners_up)
    assert {each.judged.candidate.tensor_parallel_size for each in plan.padded} == sizes
    figures = [merit(each.judged, inputs) for each in plan.padded]
    assert figures == sorted(figures, reverse=True)
    for each in plan.padded:
        tp = each.judged.candidate.tensor_parallel_size
        assert each.intermediate_size == smallest(29568, tp, multiple_of({"int4": 128}, None)) == 29696
        assert each.command == (
            f"vlfleet checkpoint pad /models/Qwen2.5-VL-72B-AWQ Qwen2.5-VL-72B-AWQ-tp{tp} --tp {tp}"
        )
        assert each.judged.memory is not None
        assert each.judged.memory.fits
        assert each.judged.speed is not None
        assert each.judged.speed.simulated


def test_a_plan_for_the_padded_folder_is_what_was_said() -> None:
    said = search(question("2xL40S")).padded[0].judged
    there = question("2xL40S", int4(intermediate_size=29696))
    plan = search(there, only=[(2, 1, 1)])
    assert plan.padded == ()
    assert plan.chosen is not None
    assert (plan.chosen.candidate, plan.chosen.memory) == (said.candidate, said.memory)


def test_where_nothing_else_fits_it_is_the_first_change() -> None:
    """Two GPUs of 24 GB: pipeline stages are too large for one request, halves of every layer are not."""
    plan = search(replace(question("2xRTX4090"), max_model_len=6144))
    assert plan.chosen is None
    assert plan.changes[0] == f"{plan.padded[0].command}, then TP2"
    assert len(plan.changes) == CHANGES
    roomy = search(replace(question("2xRTX4090"), max_model_len=65536))
    assert roomy.padded == ()
    assert "checkpoint pad" not in " ".join(roomy.changes)


def test_it_is_shown_with_its_command() -> None:
    plan = search(question("2xL40S"))
    [line] = [line for line in text([plan], None) if "checkpoint pad /models" in line]
    assert line.startswith("  -> vlfleet checkpoint pad /models/Qwen2.5-VL-72B-AWQ")
    [shown] = facts([plan])["fleets"][0]["padded"]
    assert shown["command"] == plan.padded[0].command
    assert shown["intermediate_size"] == 29696
    assert shown["tensor_parallel_size"] == 2
    assert facts([plan])["fleets"][0]["run"]["tensor_parallel_size"] == 1


def test_only_what_padding_cures_is_padded() -> None:
    assert wider(question("2xL40S"), 1) is None
    assert wider(question("8xL40S"), 3) is None, "64 heads"
    assert wider(ask("Qwen2.5-VL-72B", "2xH200"), 2) is None, "legal as it is"
    assert wider(ask("Qwen3-VL-30B-A3B", "8xH200", quantise="none"), 8) is None, "experts"
    found = wider(question("8xL40S", int4("Qwen2.5-VL-3B")), 4)
    assert found is not None
    assert found.model.shape.intermediate_size == 11264
    assert found.model.config["intermediate_size"] == 11264
    qwen3 = wider(question("8xL40S", int4("Qwen3-VL-4B")), 8)
    assert qwen3 is not None
    assert qwen3.model.config["text_config"]["intermediate_size"] == 10240
    assert command("a b/c", 2) == "vlfleet checkpoint pad 'a b/c' c-tp2 --tp 2"
