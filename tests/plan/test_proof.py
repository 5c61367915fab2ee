"""What vLLM is asked about a plan, and how its answers read; on the real vLLM, the bytes of every pipeline stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.plan.questions import ask
from tests.vllm_cpu.fleet import VLLM
from vlfleet.plan import proof
from vlfleet.plan.flags import Flags
from vlfleet.plan.judge import Bench, judge
from vlfleet.plan.oracle.prove import prove
from vlfleet.plan.oracle.question import Answer, Question, Verdict
from vlfleet.plan.plan import Candidate, Inputs, Judged, Plan, Refusal
from vlfleet.plan.search import search

STAGES = Candidate(1, 2, flags=Flags(max_model_len=8192, max_num_batched_tokens=8192, layer_partition=(10, 18)))


def judged(inputs: Inputs, candidate: Candidate) -> Judged:
    found = judge(Bench.of(inputs), candidate, None)
    assert found.refusal is None
    return found


def test_a_question_names_the_partition_of_layers() -> None:
    inputs = ask("Qwen2.5-VL-7B", "2xH200")
    assert proof.question(inputs, STAGES).env == {"VLLM_PP_LAYER_PARTITION": "10,18"}
    assert proof.question(inputs, Candidate(1, 2)).env == {}


def test_what_is_shown_is_asked_and_odd_sizes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Question] = []

    def listen(questions: Sequence[Question], python: str | None, version: str) -> tuple[Answer, ...]:
        assert (python, version) == (None, "0.26.0")
        said.extend(questions)
        return tuple(Answer(Verdict.REFUSED, "a fake", error="no") for _ in questions)

    monkeypatch.setattr(proof, "prove", listen)
    plan = proof.proved(search(ask("Qwen2.5-VL-7B", "8xRTX4090"), finalists=0), None)
    assert [question.tensor_parallel_size for question in said[1:]] == [8, 3], "3, 5, 6 and 7 share a line"
    assert plan.proof[0].endswith('a fake refuses it, NOT AS PLANNED: "no"')
    assert plan.proof[1].endswith('a fake refuses it, as planned: "no"')


def test_what_vllm_does_not_notice_is_no_contradiction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "prove", lambda *_: [Answer(Verdict.STARTS, "a fake")])
    inputs = ask("Qwen2.5-VL-7B", "2xH200")
    refused = Judged(Candidate(2), Refusal("legality", "it cuts groups"))
    [line] = proof.proved(Plan(inputs, None, refused=(refused,)), None).proof
    assert line == "TP2 weights: a fake does not refuse it, as planned: it cuts groups"
    told = replace(refused, refusal=Refusal("legality", "heads", "not divisible"))
    [line] = proof.proved(Plan(inputs, None, refused=(told,)), None).proof
    assert line == "TP2 weights: a fake starts it, NOT AS PLANNED"


@pytest.mark.engine
def test_every_stage_holds_what_vllm_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PP 2 as vLLM deals the layers out, dealt out by hand, and of Qwen3-VL: one process, four questions."""
    monkeypatch.setenv("VLFLEET_HOME", str(tmp_path))
    python = str(VLLM / "bin" / "python")
    old, new = (ask(model, "4xH200", release=(0, 32, 0)) for model in ("Qwen2.5-VL-7B", "Qwen3-VL-8B"))
    even = replace(STAGES, flags=replace(STAGES.flags, layer_partition=None))
    deep = replace(STAGES, flags=replace(STAGES.flags, layer_partition=(12, 24)))
    asked = ((old, even), (old, STAGES), (old, replace(even, tensor_parallel_size=2)), (new, deep))
    answers = prove([proof.question(*each) for each in asked], python, "0.32.0")
    for each, answer in zip(asked, answers, strict=True):
        memory = judged(*each).memory
        assert memory is not None
        planned = [proof.weight_bytes(rank) for rank in memory.ranks]
        assert [rank.total for rank in answer.ranks] == pytest.approx(planned, rel=proof.CLOSE)
        assert len(planned) == 2
    [line] = proof.proved(Plan(old, judged(old, STAGES)), python).proof  # remembered, not asked again
    assert "of stage 0, planned" in line
    assert line.count(", the same") == 2
