"""Notes: said where they hold, and not where they do not."""

from __future__ import annotations

import pytest

from tests.plan.questions import ask
from vlfleet.plan.demand import demand
from vlfleet.plan.explain_notes import host_bytes
from vlfleet.plan.search import search


def said(words: str, *args: str, **more: object) -> bool:
    plan = search(ask(*args, **more), finalists=0)  # type: ignore[arg-type]
    return any(words in note for note in plan.notes)


@pytest.mark.parametrize(
    ("release", "gap"), [((0, 24, 0), False), ((0, 25, 1), True), ((0, 26, 0), True), ((0, 32, 0), False)]
)
def test_the_gap_of_the_second_runner(release: tuple[int, int, int], gap: bool) -> None:
    assert said("without the vision tower", "Qwen2.5-VL-7B", "1xH200", release=release) == gap
    assert not said("without the vision tower", "Qwen3-VL-30B-A3B", "2xH200", release=(0, 26, 0))


def test_what_was_measured_is_not_called_a_guess() -> None:
    assert not said("nothing was measured", "Qwen2.5-VL-7B", "1xH200")
    assert said("nothing was measured", "Qwen2.5-VL-7B", "1xRTX4090")
    assert said("nothing was measured", "Qwen2.5-VL-7B", "1xH200", release=(0, 32, 0))


def test_an_slo_that_cannot_be_met() -> None:
    hard = demand("chat", ttft_p95_seconds=0.01)
    plan = search(ask("Qwen2.5-VL-7B", "1xRTX4090", hard), finalists=0)
    assert plan.chosen is not None
    assert not plan.chosen.in_time
    assert "the SLO is not met" in plan.notes[0]
    assert not said("SLO", "Qwen2.5-VL-7B", "1xH200", workload=demand("batch"))


def test_host_memory() -> None:
    plan = search(ask("Qwen2.5-VL-7B", "8xH100", host_memory_bytes=16 << 30), finalists=0)
    assert plan.chosen is not None
    assert plan.chosen.memory is not None
    settled, ranks = plan.chosen.memory.sizes, plan.chosen.candidate.gpus
    pinned = host_bytes(plan.chosen, 2) - host_bytes(plan.chosen, 1)
    assert pinned == ranks * settled.max_num_seqs * settled.max_model_len * 16 > 0, "by runner 2 alone"
    assert said("of host memory, of 8", "Qwen2.5-VL-7B", "8xH100", host_memory_bytes=8 << 30)
    assert not said("of host memory", "Qwen2.5-VL-7B", "1xH100", host_memory_bytes=512 << 30)


def test_smaller_pictures_are_told() -> None:
    assert said("scaled down", "Qwen2.5-VL-7B", "1xH200", max_pixels=200_704)


def test_a_rate_that_is_too_high_is_told_and_not_simulated() -> None:
    flood = demand(None, request_rate=5000.0)
    plan = search(ask("Qwen2.5-VL-7B", "1xRTX4090", flood))
    assert plan.chosen is not None
    assert plan.chosen.speed is not None
    assert not plan.chosen.speed.simulated
    assert any("the queue grows" in note for note in plan.notes)
    assert not said("the queue grows", "Qwen2.5-VL-7B", "1xH200", workload=demand(None, request_rate=1.0))
