"""The bundled model in the real vLLM at TP 2: in int4 refused or served wrong before `pad`, right after; and in FP8.

640 neurons are five groups of 128: two ranks cut the third. What vLLM 0.32 does then depends on where it runs: with
CUDA it refuses AWQ and GPTQ (benchmarks/pad_gpu.py); on the CPU it refuses compressed-tensors, but serves AWQ and GPTQ
with the scales of other groups, without a word.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.quantisers import Format, quantise_checkpoint
from tests.vllm_cpu.fleet import VLLM, content
from vlfleet import demo
from vlfleet.checkpoint.pad import pad
from vlfleet.checkpoint.quantise import plan_quantise, write_quantised

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]

FORMATS = {
    "awq": Format("awq", symmetric=False),
    "gptq": Format("gptq"),
    "packed": Format("packed", symmetric=False),
}
JOBS = (
    ("bf16", 1), ("bf16 padded", 2),
    ("awq", 1), ("awq", 2), ("awq padded", 1), ("awq padded", 2),
    ("gptq", 1), ("gptq padded", 2),
    ("packed", 2), ("packed padded", 2), ("fp8", 2),
)  # fmt: skip
Results = dict[tuple[str, int], dict[str, Any]]


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, logs: Path) -> Results:
    """What vLLM makes of every job: answers to the demo's questions, or the error."""
    assert VLLM.is_dir(), "run `make test-engine`, which installs it"
    folder = tmp_path_factory.mktemp("checkpoints")
    models = {"bf16": demo.model_path()}
    models |= {name: quantise_checkpoint(models["bf16"], folder / name, form) for name, form in FORMATS.items()}
    for name, source in list(models.items()):
        plan = pad(source, folder / f"{name} padded", 2, group_size=128)
        assert (plan.before, plan.after) == (640, 768)
        models[f"{name} padded"] = folder / f"{name} padded"
    write_quantised(plan_quantise(models["bf16"], "fp8", 2), folder / "fp8")
    models["fp8"] = folder / "fp8"
    (folder / "questions").write_text(json.dumps([content(question) for question in demo.QUESTIONS]))
    jobs = [
        {"model": str(models[name]), "tp": tp, "dtype": "bfloat16", "log": str(logs / f"{name}.{tp}")}
        for name, tp in JOBS
    ]
    command = [VLLM / "bin" / "python", Path(__file__).with_name("offline.py"), folder / "questions"]
    lines = "".join(json.dumps(job) + "\n" for job in jobs)
    with (logs / "offline").open("wb") as log:
        done = subprocess.run(command, input=lines.encode(), stdout=subprocess.PIPE, stderr=log, check=True)
    return {job: json.loads(line) for job, line in zip(JOBS, done.stdout.splitlines(), strict=True)}


def answers(results: Results, name: str, tp: int) -> list[str]:
    assert "answers" in results[name, tp], results[name, tp]
    return [answer["text"] for answer in results[name, tp]["answers"]]


def distance(results: Results, one: tuple[str, int], other: tuple[str, int]) -> float:
    """The largest difference of a token's log-probability, over the tokens that both said alike from the start."""
    worst = 0.0
    for a, b in zip(results[one]["answers"], results[other]["answers"], strict=True):
        for same, x, y in zip(
            (p == q for p, q in zip(a["tokens"], b["tokens"], strict=False)), a["logprobs"], b["logprobs"], strict=False
        ):
            if not same:
                break
            worst = max(worst, abs(x - y))
    return worst


def test_refused_without_padding(results: Results, logs: Path) -> None:
    assert "answers" not in results["packed", 2]
    text = (logs / "packed.2").read_text()
    assert "input_size_per_partition=320" in text
    assert "is not divisible by group_size=128" in text


def test_served_wrong_without_padding(results: Results) -> None:
    """Eight times as far off as the order of summation makes it, in the tokens that are still the same."""
    right = distance(results, ("awq", 1), ("awq padded", 2))
    assert distance(results, ("awq", 1), ("awq", 2)) > 8 * max(right, 1e-3) or answers(results, "awq", 2) != answers(
        results, "awq", 1
    )


@pytest.mark.parametrize("name", ["bf16", "awq", "gptq"])
def test_the_same_answers_padded_and_on_two_ranks(results: Results, name: str) -> None:
    want = answers(results, name, 1)
    assert len(want) == len(demo.QUESTIONS)
    assert all(want)
    assert answers(results, f"{name} padded", 2) == want
    assert distance(results, (name, 1), (f"{name} padded", 2)) < 0.1


def test_padding_alone_changes_nothing(results: Results) -> None:
    assert answers(results, "awq padded", 1) == answers(results, "awq", 1)
    assert distance(results, ("awq", 1), ("awq padded", 1)) == 0


def test_the_formats_agree(results: Results) -> None:
    """AWQ and compressed-tensors hold the same numbers here, in different layouts."""
    assert answers(results, "packed padded", 2) == answers(results, "awq padded", 2)


def test_what_the_demo_expects_is_said(results: Results) -> None:
    for name in ("bf16 padded", "awq padded", "gptq padded", "packed padded", "fp8"):
        for question, answer in zip(demo.QUESTIONS, answers(results, name, 2), strict=True):
            assert demo.matches(question.expected, answer), (name, answer)
