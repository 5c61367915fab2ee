"""The conversation with the oracle's subprocess, which is a fake here."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.plan import fake_oracle
from tests.published import MODELS
from vlfleet.plan.oracle import ask as asking
from vlfleet.plan.oracle.ask import UnusableError, ask, read
from vlfleet.plan.oracle.folder import folder_of
from vlfleet.plan.oracle.question import Answer, Device, Question, RankBytes, Verdict
from vlfleet.plan.oracle.weight_formats import WeightFormat, stored_as

H200 = Device("NVIDIA H200", (9, 0), 141 << 30)
T4 = Device("Tesla T4", (7, 5), 15 << 30)
CONFIG = MODELS["Qwen2.5-VL-7B"].config


@pytest.fixture(autouse=True)
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The GPUs that were imagined, one line for each process."""
    file = tmp_path / "log"
    monkeypatch.setenv("FAKE_ORACLE_LOG", str(file))
    monkeypatch.setattr(asking, "INSIDE", Path(fake_oracle.__file__))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    return file


def question(does: str = "start", device: Device = H200) -> Question:
    return Question(CONFIG, device, options={"does": does})


def asked(*questions: Question) -> list[Answer]:
    found = dict(ask(sys.executable, questions))
    return [found[at] for at in range(len(questions))]


def test_what_is_asked_arrives_as_it_was_said() -> None:
    [answer] = asked(
        Question(
            CONFIG,
            H200,
            tensor_parallel_size=2,
            pipeline_parallel_size=4,
            quantization="fp8",
            mm_encoder_tp_mode="data",
            max_model_len=4096,
            options={"seed": 1},
            env={"VLLM_PP_LAYER_PARTITION": "7,7,7,7"},
        )
    )
    assert answer.ok
    assert answer.decided["config"] == CONFIG
    said = answer.decided["asked"]
    assert said["env"] == {"VLLM_PP_LAYER_PARTITION": "7,7,7,7"}
    assert said["arguments"] == {
        "tensor_parallel_size": 2,
        "pipeline_parallel_size": 4,
        "dtype": "auto",
        "mm_encoder_tp_mode": "data",
        "enable_expert_parallel": False,
        "quantization": "fp8",
        "max_model_len": 4096,
        "seed": 1,
    }
    assert answer.source == "vLLM 0.32.0 here"
    assert answer.ranks == (RankBytes(**fake_oracle.RANK),)
    assert answer.ranks[0].total == 21


def test_one_process_for_each_kind_of_gpu_and_none_of_them_sees_a_real_one(log: Path) -> None:
    answers = asked(question(), question(device=T4), question("no"), question("too", T4))
    assert [answer.verdict for answer in answers] == [
        Verdict.STARTS, Verdict.STARTS, Verdict.REFUSED, Verdict.REFUSED,
    ]  # fmt: skip
    assert log.read_text().splitlines() == ["NVIDIA H200 ''", "Tesla T4 ''"]


@pytest.mark.parametrize(
    ("does", "error"),
    [
        ("crash", "it ended with exit code 7: out of luck"),
        ("mumble", "it ended with exit code 3"),
        ("hang", "no answer in 1 s"),
    ],
)
def test_what_kills_the_oracle_costs_one_answer(
    does: str, error: str, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "QUESTION_SECONDS", 1.0)
    began = time.monotonic()
    before, lost, after = asked(question(), question(does), question("refused"))
    assert before.ok
    assert (lost.verdict, lost.stage, lost.error) == (Verdict.UNKNOWN, "oracle", error)
    assert (after.verdict, after.error, after.where) == (Verdict.REFUSED, "refused", "linear.py:1")
    assert len(log.read_text().splitlines()) == 2
    assert time.monotonic() - began < 20


def test_answers_come_one_by_one() -> None:
    answers = ask(sys.executable, [question(), question("hang")])
    assert next(answers)[1].ok
    answers.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("broken", "vLLM 0.32.0 cannot be asked: ImportError: no kernels"),
        ("silent", "vLLM cannot be asked: it ended with exit code 1: Segmentation fault"),
    ],
)
def test_a_vllm_that_cannot_be_imported_is_told_at_once(name: str, error: str, log: Path) -> None:
    with pytest.raises(UnusableError, match=error):
        asked(question(device=Device(name, (9, 0), 1)), question())
    assert len(log.read_text().splitlines()) == 1


def test_a_python_that_is_not_there() -> None:
    with pytest.raises(UnusableError, match="/nowhere/python cannot be run"):
        list(ask("/nowhere/python", [question()]))


def test_a_checkpoint_that_cannot_be_read_costs_one_answer(tmp_path: Path) -> None:
    gone, fine = asked(Question(tmp_path, H200), question())
    assert gone.verdict is Verdict.UNKNOWN
    assert "the checkpoint cannot be read" in gone.error
    assert fine.ok


def test_errors_of_the_imagination_are_not_vllms() -> None:
    def said(error: str, kind: str = "RuntimeError") -> Answer:
        reply = {"error": error, "error_type": kind, "stage": "model", "where": "", "seconds": 1}
        return read(reply, "0.32.0")

    assert said("16 is not divisible by 3", "AssertionError").verdict is Verdict.REFUSED
    assert said("", "AssertionError").verdict is Verdict.REFUSED
    assert said("Tensor.item() cannot be called on meta tensors").verdict is Verdict.UNKNOWN
    assert said("'ImaginedOperator' object has no attribute 'x'", "AttributeError").verdict is Verdict.UNKNOWN
    assert said("Found no NVIDIA driver on your system.").verdict is Verdict.UNKNOWN
    assert said("cannot import name 'x'", "ImportError").verdict is Verdict.UNKNOWN


def header(folder: Path) -> Mapping[str, Any]:
    data = (folder / "model.safetensors").read_bytes()
    found: dict[str, Any] = json.loads(data[8:])
    assert int.from_bytes(data[:8], "little") == len(data) - 8
    return found


def test_folders_without_headers_get_those_that_vllm_looks_for(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    plain = folder_of(CONFIG, scratch)
    assert [file.name for file in plain.iterdir()] == ["config.json"]
    gptq = folder_of(stored_as(CONFIG, WeightFormat.GPTQ_INT4), scratch)
    names = header(gptq)
    assert names["model.layers.27.mlp.down_proj.qweight"] == {"dtype": "I32", "shape": [0], "data_offsets": [0, 0]}
    assert names["visual.blocks.31.attn.qkv.weight"]["dtype"] == "F16"
    assert sum(entry["dtype"] == "I32" for entry in names.values()) == 28 * 7
    assert folder_of(stored_as(CONFIG, WeightFormat.GPTQ_INT4), scratch) == gptq
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_text(json.dumps(stored_as(CONFIG, WeightFormat.GPTQ_INT4)))
    assert folder_of(bare, scratch) == gptq
    (bare / "model.safetensors").touch()
    assert folder_of(bare, scratch) == bare
