"""Which GPUs are measured, and with which model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.checkpoints import DEMO_MODEL
from tests.plan.shapes import CONFIGS
from vlfleet.calibrate import folders, target
from vlfleet.calibrate.cuts import Depth, cut_config
from vlfleet.calibrate.target import choose, read
from vlfleet.checkpoint import preflight
from vlfleet.engine.vllm.install import WHERE
from vlfleet.errors import VlfleetError
from vlfleet.hardware.catalogue import find_model, imagined_machine
from vlfleet.hardware.machine import Gpu, Link, Machine
from vlfleet.plan.model import read_model
from vlfleet.plan.shape import read_shape


def machine(*names: str) -> Machine:
    return imagined_machine([find_model(name) for name in names])


def test_two_alike_are_taken_the_second_the_nearest() -> None:
    four = machine("A6000", "A6000", "A6000", "A6000")
    assert [gpu.index for gpu in choose(four, None, None)] == [0, 1]
    assert [gpu.index for gpu in choose(four, "2,1", None)] == [2, 1], "as CUDA_VISIBLE_DEVICES has them"
    linked = Machine(four.gpus, {**four.links, frozenset((0, 3)): Link.NVLINK, frozenset((0, 1)): Link.SYSTEM})
    assert [gpu.index for gpu in choose(linked, None, None)] == [0, 3]
    assert [gpu.name for gpu in choose(machine("H200", "L4"), None, None)] == ["H200"]


def test_gpus_by_index() -> None:
    four = machine("H200", "H200", "H200", "L4")
    assert [gpu.index for gpu in choose(four, None, "2")] == [2]
    assert [gpu.index for gpu in choose(four, None, "2,0")] == [2, 0]
    for wrong, cause in (
        ("0,1,2", "not one index or two"),
        ("a", "not one index or two"),
        ("7", "GPU 7 is not there"),
        ("0,3", "of two kinds"),
    ):
        with pytest.raises(VlfleetError, match=cause) as error:
            choose(four, None, wrong)
        assert error.value.exit_code == 2


def test_a_busy_gpu_is_left_alone() -> None:
    busy = Gpu(0, "", "NVIDIA H200", 140 << 30, 10 << 30, (9, 0))
    with pytest.raises(VlfleetError, match="GPU 0") as error:
        choose(Machine((busy,)), None, None)
    assert error.value.exit_code == 3
    with pytest.raises(VlfleetError, match="has no NVIDIA GPU"):
        choose(Machine(), None, None)


def test_without_vllm_the_exit_code_is_1(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(WHERE, str(tmp_path))
    with pytest.raises(VlfleetError) as error:
        target.find(None, None)
    assert error.value.exit_code == 1


def test_a_folder_without_weights_will_do(tmp_path: Path) -> None:
    for file in DEMO_MODEL.iterdir():
        if file.is_file() and file.suffix != ".safetensors":
            shutil.copy(file, tmp_path / file.name)
    found = read(str(tmp_path))
    assert (found.path, found.shape) == (tmp_path, read(str(DEMO_MODEL)).shape)
    cut = folders.write(tmp_path / "cut", found, cut_config(found.config, Depth(2, 3)))
    assert preflight(cut, weights=False).config["num_hidden_layers"] == 2
    assert (cut / "tokenizer.json").resolve() == tmp_path / "tokenizer.json"
    assert json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"] == 8


@pytest.mark.parametrize("name", ["Qwen2-VL-72B", "Qwen2.5-VL-7B"])
def test_a_name_gets_the_bundled_tokenizer_and_its_own_limits(name: str, tmp_path: Path) -> None:
    model = read(name)
    folder = folders.write(tmp_path / "whole", model, model.config)
    info = preflight(folder, weights=False)
    assert read_shape(info.config) == read_shape(CONFIGS[name])
    assert info.max_pixels == model.family.max_pixels
    special = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))["added_tokens_decoder"]
    assert special[str(info.config["image_token_id"])]["content"] == "<|image_pad|>"
    assert special[str(info.config["eos_token_id"])]["content"] == "<|im_end|>"
    processor = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
    family = info.config["architectures"][0].removesuffix("ForConditionalGeneration")
    assert processor["processor_class"] == f"{family}Processor"


def test_other_families_need_a_folder(tmp_path: Path) -> None:
    model = read_model("Qwen3-VL-8B")
    with pytest.raises(VlfleetError, match="no tokenizer here for Qwen/Qwen3-VL-8B-Instruct"):
        folders.write(tmp_path / "x", model, model.config)
