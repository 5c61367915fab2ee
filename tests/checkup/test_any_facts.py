"""Whatever is gathered: no check breaks, and each says one word and one line."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

from tests.checkup.worlds import ALL, GPUS, MACHINE, server
from vlfleet.checkup.check import Verdict
from vlfleet.checkup.checks import CHECKS
from vlfleet.checkup.examine import judge
from vlfleet.checkup.facts.gpus import Gpus, GpuState
from vlfleet.checkup.known import Known
from vlfleet.hardware.machine import Gpu

EDGES: dict[type, tuple[Any, ...]] = {
    bool: (False, True),
    int: (0, 1, 1 << 60),
    float: (0.0, 1e-9, 4e9),
    str: ("", "²", "²,³", "-1", "1", "0.26.0", "13", "a" * 300, "tcp://x", "::1", "powersave"),
    tuple: ((),),
    frozenset: (frozenset(),),
    dict: ({},),
}
"""What a field may hold at its ends, by the type of what it holds on the sound server."""


def variants(fact: Any) -> Iterator[tuple[str, Any]]:
    """The fact with one field at an end, one after the other."""
    for field in dataclasses.fields(fact):
        value = getattr(fact, field.name)
        edges = () if "tuple[int, int]" in str(field.type) else EDGES.get(type(value), ())
        if "None" in str(field.type):
            edges = (None, *edges, *((0, 1) if value is None else ()))
        for edge in edges:
            yield field.name, dataclasses.replace(fact, **{field.name: edge})


def holds(*facts: object) -> None:
    for outcome in judge(server(*facts), CHECKS):
        found = outcome.finding
        assert not found.saw.startswith("this check broke"), (outcome.check.name, found.saw, facts)
        assert found.saw
        assert found.verdict.bad == bool(outcome.remedy), outcome


@pytest.mark.parametrize("fact", ALL, ids=[type(fact).__name__ for fact in ALL])
def test_a_field_at_its_end_breaks_no_check(fact: object) -> None:
    for _, changed in variants(fact):
        holds(changed)


@pytest.mark.parametrize("of", [Gpu, GpuState])
def test_a_gpu_with_a_field_at_its_end_breaks_no_check(of: type) -> None:
    for _, changed in variants(MACHINE.gpus[0] if of is Gpu else GPUS.states[0]):
        holds(with_first(changed))


def with_first(changed: Any) -> Gpus:
    if isinstance(changed, GpuState):
        return dataclasses.replace(GPUS, states=(changed, *GPUS.states[1:]))
    return dataclasses.replace(GPUS, machine=dataclasses.replace(MACHINE, gpus=(changed, *MACHINE.gpus[1:])))


@pytest.mark.parametrize("value", EDGES[str])
def test_variables_with_any_value_break_no_check(value: str) -> None:
    from vlfleet.checkup.facts.environment import Environment

    names = ("CUDA_VISIBLE_DEVICES", "VLLM_PORT", "VLLM_HOST_IP", "VLLM_MAX_IMAGE_PIXELS", "HTTP_PROXY", "NO_PROXY")
    for name in names:
        holds(Environment({"HTTP_PROXY": "http://p", name: value}))


def test_without_any_facts_everything_is_unknown() -> None:
    verdicts = {outcome.finding.verdict for outcome in judge(Known(), CHECKS)}
    assert verdicts == {Verdict.UNKNOWN}
