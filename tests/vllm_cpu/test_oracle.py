"""The oracle on the real vLLM: bytes to the byte, and the texts of its refusals, for GPUs that are not here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.published import MODELS
from tests.vllm_cpu.fleet import ROOT, VLLM
from vlfleet import demo
from vlfleet.plan.oracle import Answer, Device, Question, Verdict, WeightFormat, prove, stored_as
from vlfleet.plan.oracle.table import lookup
from vlfleet.plan.shape import read_shape
from vlfleet.plan.weights import ranks, weights

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]
RTX4090 = Device("NVIDIA GeForce RTX 4090", (8, 9), 24 << 30)
T4 = Device("Tesla T4", (7, 5), 15 << 30)
V100 = Device("Tesla V100-SXM2-32GB", (7, 0), 32 << 30)


def about(model: str, stored: WeightFormat = WeightFormat.BF16, device: Device = RTX4090, **asked: Any) -> Question:
    config = MODELS[model].config | ({"intermediate_size": asked.pop("inner")} if "inner" in asked else {})
    return Question(stored_as(config, stored), device, **asked)


SIZES = {
    "7B": (about("Qwen2.5-VL-7B"), 15.5680),
    "7B TP2 data": (about("Qwen2.5-VL-7B", tensor_parallel_size=2, mm_encoder_tp_mode="data"), 8.4756),
    "72B TP8": (about("Qwen2.5-VL-72B", tensor_parallel_size=8), 17.2198),
    "72B AWQ, padded, TP2": (about("Qwen2.5-VL-72B", WeightFormat.AWQ, inner=29696, tensor_parallel_size=2), 20.1511),
    "8B FP8": (about("Qwen3-VL-8B", WeightFormat.FP8_BLOCK), 9.9259),
    "30B-A3B FP8 TP2": (about("Qwen3-VL-30B-A3B", WeightFormat.FP8_BLOCK, tensor_parallel_size=2), 15.10),
}
"""GiB of the first GPU, from research/planner.md 3.3: another program, the same vLLM."""
REFUSALS = {
    "C1": (
        about("Qwen2.5-VL-7B", tensor_parallel_size=8),
        "Total number of attention heads (28) must be divisible by tensor parallel size (8).",
    ),
    "C2": (about("Qwen2-VL-2B", tensor_parallel_size=3, mm_encoder_tp_mode="data"), "151936 is not divisible by 3"),
    "C3": (about("Qwen2.5-VL-7B", tensor_parallel_size=7), "16 is not divisible by 7"),
    "C4": (about("Qwen2.5-VL-3B", tensor_parallel_size=8), ""),
    "C5": (
        about("Qwen2.5-VL-3B", WeightFormat.AWQ, tensor_parallel_size=4, dtype="float16"),
        "The input size is not aligned with the quantized weight shape. "
        "This can be caused by too large tensor parallel size.",
    ),
    "C9": (
        about("Qwen3-VL-4B", WeightFormat.FP8_BLOCK, tensor_parallel_size=8),
        "Weight input_size_per_partition = 1216 is not divisible by weight quantization block_k = 128.",
    ),
    "C11": (
        about("Qwen2.5-VL-7B", device=T4, dtype="bfloat16"),
        "Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your Tesla T4 GPU has compute "
        "capability 7.5. You can use float16 instead by explicitly setting the `dtype` flag in CLI, for example: "
        "--dtype=half.",
    ),
    "C12": (
        about("Qwen2.5-VL-7B", WeightFormat.AWQ, V100, dtype="float16"),
        "The quantization method auto_awq is not supported for the current GPU. Minimum capability: 75. "
        "Current capability: 70.",
    ),
}
OTHERS = {
    "C6": about("Qwen2.5-VL-72B", WeightFormat.GPTQ_INT4, tensor_parallel_size=2),
    "C16": about("Qwen2.5-VL-7B", max_model_len=200_000),
    "stages": about(
        "Qwen2-VL-7B", pipeline_parallel_size=2, env={"VLLM_PP_LAYER_PARTITION": "10,18"}, tensor_parallel_size=2
    ),
    "stages of experts": about("Qwen3-VL-30B-A3B", pipeline_parallel_size=2),
    "experts in parallel": about("Qwen3-VL-30B-A3B", tensor_parallel_size=4, enable_expert_parallel=True),
    "T4": about("Qwen2.5-VL-7B", device=T4),
}
ALL = {**{name: asked for name, (asked, _) in (SIZES | REFUSALS).items()}, **OTHERS}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answer]:
    """All questions at once: three processes, one for each GPU."""
    assert VLLM.is_dir(), "run `make test-engine`, which installs it"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLFLEET_HOME", str(tmp_path_factory.mktemp("home")))
        found = prove(list(ALL.values()), str(VLLM / "bin" / "python"), "0.32.0")
    assert {answer.source for answer in found} == {"vLLM 0.32.0 here"}
    return dict(zip(ALL, found, strict=True))


@pytest.mark.parametrize("name", SIZES)
def test_bytes_of_one_gpu(name: str, answers: dict[str, Answer]) -> None:
    question, gib = SIZES[name]
    [rank] = answers[name].ranks
    assert round((rank.total - rank.scratch) / 2**30, 2 if gib == round(gib, 2) else 4) == gib
    table = lookup(question, "0.32.0")
    assert table is not None
    assert table.ranks[0].total == pytest.approx(rank.total, abs=1024)
    assert table.ranks[0].kv_per_token == rank.kv_per_token


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_are_verbatim(name: str, answers: dict[str, Answer]) -> None:
    answer = answers[name]
    assert answer.verdict is Verdict.REFUSED
    assert answer.error == REFUSALS[name][1]
    assert answer.error_type == ("AssertionError" if name in ("C2", "C3", "C4") else "ValueError")
    assert answer.stage == {"C1": "configuration", "C11": "worker", "C12": "configuration"}.get(name, "model")
    if name == "C4":
        assert answer.where == "model_executor/layers/linear.py:718"


def test_every_kernel_says_why_it_cannot(answers: dict[str, Answer]) -> None:
    lines = [line.strip() for line in answers["C6"].error.splitlines()]
    assert lines[0] == "Failed to find a kernel that can implement the WNA16 linear layer. Reasons:"
    marlin = "MarlinLinearKernel cannot implement due to: in_features per partition 14784 is not divisible by"
    assert f"{marlin} group_size = 128." in lines
    assert "MacheteLinearKernel requires capability 90, current compute  capability is 89" in lines


def test_a_context_that_is_too_long(answers: dict[str, Answer]) -> None:
    said = "User-specified max_model_len (200000) is greater than the derived max_model_len"
    assert answers["C16"].error.startswith(said)
    assert answers["C16"].stage == "configuration"


def test_pipeline_stages(answers: dict[str, Answer]) -> None:
    first, last = answers["stages"].ranks
    assert first.kv_per_token == 10 * 2 * 2 * 128 * 2
    assert last.kv_per_token == 18 * 2 * 2 * 128 * 2
    assert (first.lm_head, last.embeddings) == (0, 0)
    assert first.embeddings == last.lm_head == MODELS["Qwen2-VL-7B"].embed
    assert first.vision == last.vision
    both = answers["stages of experts"].ranks
    assert [rank.embeddings for rank in both] == [rank.lm_head for rank in both] == [2 * 311_164_928] * 2


@pytest.mark.parametrize("name", [*SIZES, "stages", "stages of experts", "experts in parallel"])
def test_the_closed_form_agrees(name: str, answers: dict[str, Answer]) -> None:
    """Within 0.01 %: scalars, and frequencies of rotary tables, are not counted there."""
    asked, answer = ALL[name], answers[name]
    assert not isinstance(asked.model, Path)
    shape = read_shape(asked.model)
    found = ranks(
        shape,
        asked.tensor_parallel_size,
        asked.pipeline_parallel_size,
        data_mode=asked.mm_encoder_tp_mode == "data",
        expert_parallel=asked.enable_expert_parallel,
        partition=(10, 18) if asked.env else None,
    )
    tokens = answer.decided["max_num_batched_tokens"]
    for rank, said in zip(found, answer.ranks, strict=True):
        assert weights(shape, rank, (0, 32, 0), tokens).tensors_bytes == pytest.approx(said.total, rel=1e-4)


def test_what_vllm_settles_by_itself(answers: dict[str, Answer]) -> None:
    assert (
        answers["7B"].decided.items()
        >= {
            "dtype": "bfloat16",
            "max_model_len": 128_000,
            "max_num_batched_tokens": 2048,
            "max_num_seqs": 256,
            "v2_model_runner": True,
            "attention": "FLASH_ATTN",
            "vision_attention": "FLASH_ATTN",
            "methods": ["UnquantizedLinearMethod"],
        }.items()
    )
    turing = answers["T4"].decided
    assert turing["dtype"] == "float16"
    assert (turing["attention"], turing["vision_attention"]) == ("TRITON_ATTN", "TORCH_SDPA")
    assert answers["72B AWQ, padded, TP2"].decided["methods"] == ["AutoAWQMarlinLinearMethod"]
    experts = answers["experts in parallel"]
    assert experts.decided["methods"] == ["UnquantizedFusedMoEMethod", "UnquantizedLinearMethod"]
    split = lookup(about("Qwen3-VL-30B-A3B", tensor_parallel_size=4), "0.32.0")
    assert split is not None
    assert experts.ranks[0].language == split.ranks[0].language


def test_a_folder_of_headers_alone(tmp_path: Path) -> None:
    """The demo checkpoint without its weights' data, on a GPU, exactly as large as its header says."""
    source = demo.model_path()
    file = next(source.glob("*.safetensors"))
    with file.open("rb") as data:
        size = data.read(8)
        text = data.read(int.from_bytes(size, "little"))
    (tmp_path / file.name).write_bytes(size + text)
    (tmp_path / "config.json").write_bytes((source / "config.json").read_bytes())
    header = {name: entry for name, entry in json.loads(text).items() if name != "__metadata__"}
    stored = sum(entry["data_offsets"][1] - entry["data_offsets"][0] for entry in header.values())
    [answer] = prove([Question(tmp_path, RTX4090, max_model_len=2048)], str(VLLM / "bin" / "python"), "0.32.0")
    assert answer.ok, answer.error
    [rank] = answer.ranks
    assert rank.total - rank.buffers - rank.scratch == stored


def test_the_table_is_what_vllm_says() -> None:
    """A few of its rows."""
    env = {"VLFLEET_VLLM": str(VLLM), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "scripts/oracle_table.py", "--check", "5"]
    checked = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=200)
    assert checked.returncode == 0, checked.stderr
