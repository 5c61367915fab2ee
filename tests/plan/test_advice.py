"""What would make a plan fit: every change that is told must be enough by itself."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plan.questions import ask, with_memory
from vlfleet.plan.advice import Change, anything_fits, changes, what_would_fit, with_gpus
from vlfleet.plan.plan import Inputs
from vlfleet.plan.search import search

models = st.sampled_from(["Qwen2-VL-2B", "Qwen2.5-VL-7B", "Qwen2.5-VL-32B", "Qwen2.5-VL-72B", "Qwen3-VL-30B-A3B"])


@given(model=models, gpu=st.sampled_from(["RTX3060", "T4", "RTX4090", "A100-40GB"]), count=st.integers(1, 3))
@settings(max_examples=20, deadline=None)
def test_where_nothing_fits_each_change_is_enough(model: str, gpu: str, count: int) -> None:
    inputs = ask(model, f"{count}x{gpu}", "ocr")
    plan = search(inputs, finalists=0)
    if plan.chosen:
        assert plan.changes == ()
        return
    told = plan.changes
    assert 1 <= len(told) <= 3
    assert len(set(told)) == len(told)
    possible = {change.text: change for change in changes(inputs)}
    for text in told:
        assert _is_enough(inputs, text, possible), text


def _is_enough(inputs: Inputs, text: str, possible: dict[str, Change]) -> bool:
    if text in possible:
        change = possible[text]
        return anything_fits(change.inputs, change.quantization)
    if " in all)" in text:
        return anything_fits(with_gpus(inputs, int(text.split("(")[1].split()[0])))
    count, _, name = text.removesuffix(" instead").split()
    return anything_fits(with_gpus(inputs, int(count), name))


def test_one_gpu_more_is_the_least_that_is_enough() -> None:
    inputs = ask("Qwen2.5-VL-72B", "1xA100-80GB", "ocr")
    (text,) = [text for text in what_would_fit(inputs) if "more" in text]
    count = int(text.split("(")[1].split()[0])
    assert anything_fits(with_gpus(inputs, count))
    assert not anything_fits(with_gpus(inputs, count - 1))


def test_a_refusal_for_memory_names_the_nearest_change() -> None:
    """7B on the largest GPU that is just too small: smaller pictures are enough, and cost less than anything else."""
    asked = ask("Qwen2.5-VL-7B", "1xRTX4090", "ocr", quantise="none")
    plans = (search(with_memory(asked, tenths / 10), finalists=0) for tenths in range(185, 160, -1))
    plan = next(plan for plan in plans if plan.chosen is None)
    (refused,) = plan.refused
    assert refused.refusal is not None
    assert refused.refusal.change.startswith("--max-pixels")
    assert plan.changes[0] == refused.refusal.change


@pytest.mark.parametrize("model", ["Qwen2.5-VL-7B-Instruct-AWQ", "Qwen2.5-VL-7B"])
def test_int4_is_advice_and_only_for_what_is_not_quantised(model: str) -> None:
    texts = [change.text for change in changes(ask(model, "1xRTX3060"))]
    assert any("int4" in text for text in texts) == (not model.endswith("AWQ"))
