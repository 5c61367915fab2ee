"""The offline table, and who answers when."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.plan import fake_oracle
from tests.published import MODELS
from vlfleet.plan.oracle import ask as asking
from vlfleet.plan.oracle import table
from vlfleet.plan.oracle.prove import prove
from vlfleet.plan.oracle.question import Answer, Device, Question, Verdict
from vlfleet.plan.oracle.weight_formats import WeightFormat, stored_as

H200 = Device("NVIDIA H200", (9, 0), 150_754_820_096)
RTX4090 = Device("NVIDIA GeForce RTX 4090", (8, 9), 24 << 30)
T4 = Device("Tesla T4", (7, 5), 15 << 30)
V100 = Device("Tesla V100-SXM2-32GB", (7, 0), 32 << 30)


@cache
def checkpoint(model: str, stored: WeightFormat, inner: int | None = None) -> dict[str, Any]:
    return stored_as(MODELS[model].config | ({"intermediate_size": inner} if inner else {}), stored)


def about(
    model: str, stored: WeightFormat = WeightFormat.BF16, device: Device = H200, inner: int | None = None, **asked: Any
) -> Question:
    return Question(checkpoint(model, stored, inner), device, **asked)


def looked_up(*arguments: Any, version: str = "0.32.0", **asked: Any) -> Answer:
    answer = table.lookup(about(*arguments, **asked), version)
    assert answer is not None
    return answer


def test_it_knows_every_model_release_and_way_of_splitting() -> None:
    for version in ("0.26.0", "0.32.0"):
        for model in MODELS:
            moe = "moe" in MODELS[model].model_type
            for stored in (WeightFormat.BF16, WeightFormat.AWQ, WeightFormat.FP8_BLOCK, WeightFormat.FP8_CHANNEL):
                for mode in ("weights", "data"):
                    for ranks in (1, 2, 4, 8):
                        for spread in (False, True) if moe else (False,):
                            answer = looked_up(
                                model, stored, version=version, tensor_parallel_size=ranks, mm_encoder_tp_mode=mode,
                                enable_expert_parallel=spread,
                            )  # fmt: skip
                            assert answer.vllm_version == version
                            assert answer.source == f"table of vLLM {version}"
                            assert answer.ok == bool(answer.ranks) != bool(answer.error_type)
    assert table.FILE.stat().st_size < 150_000


def test_one_gpu_holds_every_parameter() -> None:
    """Against the exact counts of the 13 models, which come from their files."""
    for model in MODELS.values():
        [rank] = looked_up(model.name).ranks
        assert rank.vision == 2 * model.vision
        assert rank.embeddings == 2 * model.embed
        assert rank.lm_head == 2 * model.lm_head
        assert rank.language == 2 * model.language
        assert rank.kv_per_token % (2 * 2 * 128 * model.layers) == 0


@pytest.mark.parametrize(
    ("gib", "question"),
    [
        (15.5680, about("Qwen2.5-VL-7B")),
        (7.8471, about("Qwen2.5-VL-7B", tensor_parallel_size=2)),
        (3.9866, about("Qwen2.5-VL-7B", tensor_parallel_size=4)),
        (8.4756, about("Qwen2.5-VL-7B", tensor_parallel_size=2, mm_encoder_tp_mode="data")),
        (17.2198, about("Qwen2.5-VL-72B", tensor_parallel_size=8)),
        (40.1739, about("Qwen2.5-VL-72B", WeightFormat.AWQ, inner=29696)),
        (20.1511, about("Qwen2.5-VL-72B", WeightFormat.AWQ, inner=29696, tensor_parallel_size=2)),
        (5.1340, about("Qwen2.5-VL-72B", WeightFormat.AWQ, inner=29696, tensor_parallel_size=8)),
        (19.4071, about("Qwen2.5-VL-32B", WeightFormat.AWQ)),
        (6.5710, about("Qwen2.5-VL-7B", WeightFormat.AWQ)),
        (9.9259, about("Qwen3-VL-8B", WeightFormat.FP8_BLOCK)),
        (30.10, about("Qwen3-VL-30B-A3B", WeightFormat.FP8_BLOCK)),
        (15.10, about("Qwen3-VL-30B-A3B", WeightFormat.FP8_BLOCK, tensor_parallel_size=2)),
        (7.60, about("Qwen3-VL-30B-A3B", WeightFormat.FP8_BLOCK, tensor_parallel_size=4)),
        (27.88, about("Qwen3-VL-235B-A22B", WeightFormat.FP8_BLOCK, tensor_parallel_size=8)),
    ],
)
def test_the_research_counted_the_same(gib: float, question: Question) -> None:
    """What another program got from vLLM 0.32's classes before this one was written (it did not look for scratch)."""
    answer = table.lookup(question, "0.32.0")
    assert answer is not None
    [rank] = answer.ranks
    digits = 4 if gib != round(gib, 2) else 2
    assert round((rank.total - rank.scratch) / 2**30, digits) == gib


def test_scratch_is_as_wide_as_the_step() -> None:
    """Qwen3-VL keeps three visual features a token; the default width moves with the GPU's memory."""

    def scratch(device: Device, tokens: int | None = None) -> int:
        return looked_up("Qwen3-VL-8B", WeightFormat.AWQ, device, max_num_batched_tokens=tokens).ranks[0].scratch

    assert scratch(H200) == pytest.approx(3 * 8192 * 4096 * 2, rel=1e-4)
    assert scratch(RTX4090) == pytest.approx(3 * 2048 * 4096 * 2, rel=1e-4)
    assert scratch(RTX4090, 16384) == pytest.approx(3 * 16384 * 4096 * 2, rel=1e-4)


def test_errors_are_verbatim() -> None:
    refused = looked_up("Qwen2.5-VL-7B", tensor_parallel_size=8)
    assert refused.verdict is Verdict.REFUSED
    assert refused.error == "Total number of attention heads (28) must be divisible by tensor parallel size (8)."
    empty = looked_up("Qwen2.5-VL-3B", tensor_parallel_size=8)
    assert (empty.error, empty.error_type, empty.where) == ("", "AssertionError", "model_executor/layers/linear.py:718")
    assert looked_up("Qwen2.5-VL-3B", tensor_parallel_size=8, mm_encoder_tp_mode="data").ok
    experts = about("Qwen3-VL-30B-A3B", WeightFormat.FP8_BLOCK, tensor_parallel_size=4)
    old, new = table.lookup(experts, "0.26.0"), table.lookup(experts, "0.32.0")
    assert old is not None
    assert new is not None
    assert old.error == (
        "The output_size of gate's and up's weight = 192 is not divisible by weight quantization block_n = 128."
    )
    assert new.ok
    spread = table.lookup(replace(experts, enable_expert_parallel=True), "0.26.0")
    assert spread is not None
    assert spread.ok


def test_old_gpus_refuse_in_their_own_name() -> None:
    said = looked_up("Qwen2.5-VL-32B", WeightFormat.BF16, T4, dtype="bfloat16").error
    assert said == (
        "Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your Tesla T4 GPU has compute "
        "capability 7.5. You can use float16 instead by explicitly setting the `dtype` flag in CLI, for example: "
        "--dtype=half."
    )
    assert looked_up("Qwen2.5-VL-7B", WeightFormat.AWQ, T4, dtype="half").ok
    assert looked_up("Qwen2.5-VL-7B", WeightFormat.AWQ, T4).ok, "vLLM falls back to float16 by itself"
    awq = looked_up("Qwen2.5-VL-7B", WeightFormat.AWQ, V100, dtype="float16").error
    assert awq == (
        "The quantization method auto_awq is not supported for the current GPU. Minimum capability: 75. "
        "Current capability: 70."
    )
    assert looked_up("Qwen2.5-VL-7B", WeightFormat.AWQ, RTX4090).ok


def test_it_says_when_it_does_not_know() -> None:
    for question in (
        about("Qwen2.5-VL-7B", tensor_parallel_size=3),
        about("Qwen2.5-VL-7B", pipeline_parallel_size=2),
        about("Qwen2.5-VL-7B", quantization="fp8"),
        about("Qwen2.5-VL-7B", options={"seed": 1}),
        about("Qwen2.5-VL-7B", env={"A": "1"}),
        about("Qwen2.5-VL-7B", WeightFormat.W4A16),
        about("Qwen2.5-VL-7B", inner=18945),
        about("Qwen2.5-VL-7B", dtype="float32"),
        Question({"model_type": "llama"}, H200),
        Question(Path("/nowhere"), H200),
    ):
        assert table.lookup(question) is None


def test_whether_gptq_finds_a_kernel_depends_on_the_gpu() -> None:
    """Half a group of 128 inputs: Machete, which only Hopper has, takes it."""
    gptq = about(
        "Qwen2.5-VL-72B", WeightFormat.GPTQ_INT4, Device("NVIDIA A10", (8, 6), 24 << 30), tensor_parallel_size=2
    )
    told = table.lookup(gptq)
    assert told is not None
    assert "in_features per partition 14784 is not divisible by group_size = 128." in told.error
    assert "MacheteLinearKernel requires capability 90, current compute  capability is 86" in told.error
    assert table.lookup(replace(gptq, dtype="float16")) is None, "Exllama may take it"
    assert not looked_up("Qwen2.5-VL-3B", WeightFormat.AWQ, RTX4090, tensor_parallel_size=4, dtype="float16").ok
    hopper = table.lookup(replace(gptq, device=H200))
    assert hopper is not None
    assert hopper.ok
    assert table.lookup(replace(gptq, device=Device("NVIDIA B200", (10, 0), 180 << 30))) is None


NEAREST = {"": "0.32.0", "0.32.0+cpu": "0.32.0", "0.33.1": "0.32.0", "0.31.9": "0.26.0", "0.20": "0.26.0"}


@pytest.mark.parametrize(("asked", "made"), NEAREST.items())
def test_the_nearest_version_answers(asked: str, made: str) -> None:
    assert table.nearest(asked, {"0.32.0": 1, "0.26.0": 1}) == made


def test_releases_are_recognised_from_what_is_published() -> None:
    config = MODELS["Qwen3-VL-8B"].config
    for stored in WeightFormat:
        assert table.weight_format_of(stored_as(config, stored)) is stored
    other: list[dict[str, Any]] = [
        {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": True},
        {"quant_method": "awq", "bits": 4, "group_size": 64},
        {"quant_method": "fp8"},
        {"quant_method": "compressed-tensors", "config_groups": {}},
        {"quant_method": "bitsandbytes"},
    ]
    assert [table.weight_format_of({**config, "quantization_config": section}) for section in other] == [None] * 5


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A vLLM that is a fake, in a home of its own; the file has a line for each process that was started."""
    monkeypatch.setenv("VLFLEET_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FAKE_ORACLE_LOG", str(tmp_path / "log"))
    monkeypatch.setattr(asking, "INSIDE", Path(fake_oracle.__file__))
    return tmp_path / "log"


def test_an_installed_vllm_is_asked_once_and_remembered(installed: Path) -> None:
    questions = [about("Qwen2.5-VL-7B"), about("Qwen2.5-VL-7B", options={"does": "no such thing"})]
    first = prove(questions, sys.executable, "0.32.0")
    assert [answer.source for answer in first] == ["vLLM 0.32.0 here"] * 2
    assert [answer.ok for answer in first] == [True, False]
    assert prove(questions, sys.executable, "0.32.0") == first
    assert len(installed.read_text().splitlines()) == 1
    prove(questions, sys.executable, "0.33.0")
    assert len(installed.read_text().splitlines()) == 2, "another vLLM may say something else"


def test_a_checkpoint_that_changed_is_asked_about_anew(installed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    config = folder / "config.json"
    for layers in (28, 14):
        config.write_text(json.dumps({**MODELS["Qwen2.5-VL-7B"].config, "num_hidden_layers": layers}))
        [answer] = prove([Question(folder, H200)], sys.executable)
        assert answer.decided["config"]["num_hidden_layers"] == layers
    assert len(installed.read_text().splitlines()) == 2


def test_the_table_answers_where_vllm_cannot(installed: Path) -> None:
    [here] = prove([about("Qwen2.5-VL-7B")], None)
    assert here.source == "table of vLLM 0.32.0"
    assert here.ranks[0].language == 2 * 6_525_621_760
    broken = Device("broken", (9, 0), 141 << 30)
    [known, unknown] = prove(
        [about("Qwen2.5-VL-7B", device=broken), about("Qwen2.5-VL-7B", device=broken, options={"seed": 1})],
        sys.executable,
    )
    assert known.source == "table of vLLM 0.32.0"
    assert unknown.verdict is Verdict.UNKNOWN
    assert unknown.error == "vLLM 0.32.0 cannot be asked: ImportError: no kernels; the table does not have this"
    [crashed] = prove([about("Qwen2.5-VL-7B", options={"does": "crash"})], sys.executable)
    assert crashed.verdict is Verdict.UNKNOWN
    assert crashed.error == "it ended with exit code 7: out of luck"


def test_errors_stand_once_in_the_table() -> None:
    errors = table.load()["errors"]
    assert len({json.dumps(error) for error in errors}) == len(errors)
