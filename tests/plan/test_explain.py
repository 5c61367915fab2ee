"""Tables and explanations: every number is there, nothing is wider than a terminal, nothing unknown is explained."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tests.plan.questions import ask
from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.plan.explain import explained
from vlfleet.plan.plan import Plan
from vlfleet.plan.render_table import NOT_PREDICTED, WIDTH, row, seconds, table
from vlfleet.plan.search import search


@pytest.fixture(scope="module")
def plan() -> Plan:
    return search(ask("Qwen2.5-VL-7B", "4xRTX4090"))


def test_memory_lists_every_term_and_adds_up(plan: Plan) -> None:
    assert plan.chosen is not None
    assert plan.chosen.memory is not None
    lines = explained(plan, "memory")
    matches = [match for line in lines if (match := re.fullmatch(r" +(-?[\d.]+) GiB  (.+)", line))]
    found = {match[2]: float(match[1]) for match in matches}
    terms = plan.chosen.memory.ranks[0].terms
    assert set(found) == {term.name for term in terms}
    assert sum(found.values()) == pytest.approx(plan.inputs.gpu.cuda_gib, abs=0.01)


def test_every_formula_has_its_source(plan: Plan) -> None:
    assert plan.chosen is not None
    assert plan.chosen.memory is not None
    for term in plan.chosen.memory.ranks[0].terms:
        if term.formula:
            assert term.source or term.fitted, term.name


def test_speed_tells_percentiles_bottleneck_and_where_the_time_goes(plan: Plan) -> None:
    text = "\n".join(explained(plan, "speed"))
    assert "simulated" in text
    assert "TTFT p50" in text
    assert "bottleneck: GPU" in text
    shares = [float(share) for share in re.findall(r"ms +([\d.]+) %", text)]
    assert sum(shares) == pytest.approx(100, abs=1)


def test_a_term_by_part_of_its_name(plan: Plan) -> None:
    lines = explained(plan, "kv cache")
    assert any("57,344" in line for line in lines)
    assert any("ms of GPU time" in line for line in explained(plan, "vision gemm"))


def test_an_unknown_term_lists_the_known_ones(plan: Plan) -> None:
    with pytest.raises(VlfleetError) as caught:
        explained(plan, "nonsense")
    assert caught.value.exit_code == ExitCode.USAGE
    assert "KV cache" in caught.value.remedy


@pytest.mark.parametrize(
    ("model", "gpus"),
    [
        ("Qwen2.5-VL-7B", "4xRTX4090"),
        ("Qwen2.5-VL-72B", "8xL40S"),
        ("Qwen3-VL-235B-A22B", "8xH200"),
        ("Qwen2.5-VL-72B", "2xRTX4090"),
        ("Qwen2.5-VL-3B", "8xH100"),
        ("Qwen2.5-VL-7B", "1xV100"),
    ],
)
def test_a_table_fits_a_terminal(model: str, gpus: str) -> None:
    lines = table(search(ask(model, gpus), finalists=0))
    assert [line for line in lines if len(line) > WIDTH] == []
    assert lines[0].startswith(f"Qwen/{model}")


def test_speed_that_was_not_predicted_is_no_number(plan: Plan) -> None:
    assert plan.chosen is not None
    blind = replace(plan.chosen, speed=None)
    assert row(blind)[3] == NOT_PREDICTED
    assert not any(re.search(r"\d", cell) for cell in row(blind)[4:7])
    assert explained(replace(plan, chosen=blind), "speed") == [NOT_PREDICTED]


def test_closed_form_is_marked(plan: Plan) -> None:
    closed = search(plan.inputs, finalists=0)
    assert closed.chosen is not None
    assert row(closed.chosen)[3].startswith("~")
    assert plan.chosen is not None
    assert not row(plan.chosen)[3].startswith("~")


@pytest.mark.parametrize(("value", "text"), [(0.0314, "31 ms"), (1.5, "1.50 s"), (float("inf"), "never")])
def test_seconds(value: float, text: str) -> None:
    assert seconds(value) == text
