"""The published models as the planner knows them: the same as those that the checkpoints' tests know."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import published as known
from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.plan.model import read_model
from vlfleet.plan.oracle.table import signature
from vlfleet.plan.published import MODELS, config_of, find
from vlfleet.plan.shape import read_shape


@pytest.mark.parametrize("name", known.MODELS)
def test_sizes_and_parameters(name: str) -> None:
    config = config_of(name)
    assert read_shape(config) == read_shape(known.MODELS[name].config)
    assert signature(config) == signature(known.MODELS[name].config)
    assert read_shape(config).parameters == known.MODELS[name].total


def test_all_are_there() -> None:
    assert set(MODELS) == set(known.MODELS)


@pytest.mark.parametrize(
    ("told", "name", "quantised"),
    [
        ("qwen2.5-vl-7b", "Qwen/Qwen2.5-VL-7B-Instruct", "bf16"),
        ("Qwen/Qwen2.5-VL-7B-Instruct", "Qwen/Qwen2.5-VL-7B-Instruct", "bf16"),
        ("Qwen2.5-VL-72B-Instruct-AWQ", "Qwen/Qwen2.5-VL-72B-Instruct-AWQ", "awq 4 bits"),
        ("qwen2-vl-7b-instruct-gptq-int8", "Qwen/Qwen2-VL-7B-Instruct-GPTQ-Int8", "gptq"),
        ("Qwen3-VL-8B-Instruct-FP8", "Qwen/Qwen3-VL-8B-Instruct-FP8", "fp8"),
        ("Qwen3-VL-235B-A22B", "Qwen/Qwen3-VL-235B-A22B-Instruct", "bf16"),
    ],
)
def test_names(told: str, name: str, quantised: str) -> None:
    model = read_model(told)
    assert (model.name, model.quantised) == (name, quantised)


def test_the_quantised_72b_is_padded() -> None:
    assert read_model("Qwen2.5-VL-72B-Instruct-AWQ").shape.intermediate_size == 29696


def test_awq_leaves_the_vision_tower_alone() -> None:
    awq, bf16 = read_model("Qwen2-VL-7B-Instruct-AWQ").shape, read_model("Qwen2-VL-7B").shape
    assert awq.quantized is not None
    assert not awq.quantized.covers("visual.blocks.0.mlp.fc1")
    assert awq.quantized.covers("model.layers.0.mlp.down_proj")
    assert awq.vision == bf16.vision


@pytest.mark.parametrize("told", ["qwen2.5-vl-8b", "gpt-4", "Qwen/Qwen2.5-VL-7B-Instruct-EXL2", ""])
def test_unknown_names(told: str) -> None:
    with pytest.raises(VlfleetError) as caught:
        find(told)
    assert caught.value.exit_code == ExitCode.USAGE
    assert "Qwen2" in caught.value.remedy


def test_a_config_alone(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(known.MODELS["Qwen2.5-VL-3B"].config))
    model = read_model(str(file))
    assert model.name == str(tmp_path)
    assert "no weights" in model.source
    file.write_text("[1")
    with pytest.raises(VlfleetError, match="is no config"):
        read_model(str(file))


def test_a_folder_is_read_by_its_headers(tmp_path: Path) -> None:
    published = known.MODELS["Qwen2.5-VL-3B"]
    folder = known.write(tmp_path / "m", published.config, known.shapes(published))
    model = read_model(str(folder))
    assert model.path == folder
    assert model.shape.parameters == published.total
    assert model.max_pixels == 12845056
