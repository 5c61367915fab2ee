"""inspect: exact parameters of every published model, quantised or not, from headers, in well under a second."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import TinyCheckpoint
from tests.published import MODELS, shapes, write
from tests.quantised import CONFIGS, LAYOUTS, replace_linear
from vlfleet.checkpoint.inspection import Inspection, inspect
from vlfleet.checkpoint.layout import Part
from vlfleet.checkpoint.quantization import Format
from vlfleet.demo import model_path
from vlfleet.errors import ExitCode, VlfleetError


def parameters(found: Inspection) -> dict[Part, int]:
    return {each.part: each.parameters for each in found.parts}


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of checkpoints in the shapes of all published models; holes instead of numbers."""
    folder = tmp_path_factory.mktemp("published")
    for model in MODELS.values():
        write(folder / model.name, model.config, shapes(model))
    return folder


@pytest.mark.parametrize("name", MODELS)
def test_parameters_of_every_published_model(published: Path, name: str) -> None:
    model, found = MODELS[name], inspect(published / name)
    parts = parameters(found)
    assert found.parameters == model.total
    assert parts[Part.VISION] + parts[Part.MERGER] == model.vision
    assert parts[Part.EMBEDDINGS] == model.embed
    assert parts.get(Part.HEAD, 0) == model.lm_head
    assert parts[Part.LANGUAGE] == model.language
    assert found.tensor_bytes == 2 * model.total
    assert found.tied is model.tied
    assert found.quantization is None
    assert found.disagreements == ()


@pytest.mark.parametrize(
    ("name", "kv_bytes", "factor"),
    [("Qwen2-VL-2B", 28_672, 28), ("Qwen2.5-VL-72B", 327_680, 28), ("Qwen3-VL-235B-A22B", 192_512, 32)],
)
def test_what_a_picture_and_a_token_cost(published: Path, name: str, kv_bytes: int, factor: int) -> None:
    found = inspect(published / name)
    assert found.kv_bytes_per_token == kv_bytes
    assert found.max_visual_tokens == 16_384
    assert found.max_pixels == 16_384 * factor**2
    assert found.min_visual_tokens == (64 if factor == 32 else 4)


def test_linear_layers_are_counted(published: Path) -> None:
    layers = {
        each.part: (each.quantised_layers, each.linear_layers) for each in inspect(published / "Qwen2-VL-7B").parts
    }
    assert layers == {
        Part.VISION: (0, 4 * 32),
        Part.MERGER: (0, 2),
        Part.EMBEDDINGS: (0, 0),
        Part.LANGUAGE: (0, 7 * 28),
        Part.HEAD: (0, 1),
    }


@pytest.mark.parametrize("kind", LAYOUTS)
def test_a_quantised_model_has_the_parameters_of_the_one_it_was_made_from(tmp_path: Path, kind: str) -> None:
    model = MODELS["Qwen2.5-VL-7B"]
    config = {**model.config, "quantization_config": CONFIGS[kind]}
    found = inspect(write(tmp_path, config, replace_linear(shapes(model), LAYOUTS[kind])))
    assert found.parameters == model.total
    assert found.disagreements == ()
    language = next(each for each in found.parts if each.part is Part.LANGUAGE)
    assert (language.quantised_layers, language.linear_layers) == (196, 196)
    assert language.bytes < 0.75 * 2 * model.language


def test_experts_one_by_one_as_in_fp8_releases(tmp_path: Path) -> None:
    model = MODELS["Qwen3-VL-30B-A3B"]
    tensors = shapes(model)
    for layer in range(model.layers):
        start = f"model.language_model.layers.{layer}.mlp.experts"
        del tensors[f"{start}.gate_up_proj"], tensors[f"{start}.down_proj"]
        for expert in range(128):
            for name, out, inputs in (("gate", 768, 2048), ("up", 768, 2048), ("down", 2048, 768)):
                tensors |= LAYOUTS["fp8_block"](f"{start}.{expert}.{name}_proj", out, inputs)
    config = {**model.config, "quantization_config": CONFIGS["fp8_block"]}
    found = inspect(write(tmp_path, config, tensors))
    assert found.parameters == model.total
    assert found.quantization is not None
    assert len(found.quantization.modules) == 48 * 128 * 3


def test_gptq_is_completed_by_config_json(tmp_path: Path) -> None:
    model = MODELS["Qwen2-VL-2B"]
    config = {**model.config, "quantization_config": CONFIGS["gptq"]}
    found = inspect(write(tmp_path, config, replace_linear(shapes(model), LAYOUTS["gptq"])))
    assert found.scheme is not None
    assert (found.scheme.format, found.scheme.symmetric, found.scheme.desc_act) == (Format.GPTQ, True, False)
    assert found.from_config == ("symmetric", "desc_act")


def test_autogptqs_own_file_is_read(tmp_path: Path) -> None:
    model = MODELS["Qwen2-VL-2B"]
    folder = write(tmp_path, model.config, replace_linear(shapes(model), LAYOUTS["gptq"]))
    (folder / "quantize_config.json").write_text(
        json.dumps({"bits": 4, "group_size": 128, "desc_act": True, "sym": True})
    )
    found = inspect(folder)
    assert found.disagreements == ()
    assert found.scheme is not None
    assert found.scheme.desc_act is True


@pytest.mark.parametrize("model_type", ["qwen2_vl", "qwen2_5_vl"])
@pytest.mark.parametrize("prefixes", [("model.language_model.", "model.visual."), ("language_model.model.", "visual.")])
def test_other_layouts_have_the_same_parts(
    tiny_checkpoint: TinyCheckpoint, tmp_path: Path, model_type: str, prefixes: tuple[str, str]
) -> None:
    from safetensors.numpy import load_file, save_file

    hub = inspect(tiny_checkpoint(model_type))
    for file in hub.path.glob("*.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    renamed = {
        prefixes[0] + name.removeprefix("model.")
        if name.startswith("model.")
        else prefixes[1] + name.removeprefix("visual."): array
        for name, array in load_file(hub.path / "model.safetensors").items()
    }
    save_file(renamed, tmp_path / "model.safetensors")
    assert inspect(tmp_path).parts == hub.parts


def test_the_demo_model() -> None:
    found = inspect(model_path())
    assert (found.parameters, found.tied, found.max_visual_tokens) == (11_880_192, True, 256)


def test_a_damaged_preprocessor_does_not_hide_the_rest(tmp_path: Path) -> None:
    model = MODELS["Qwen2-VL-2B"]
    folder = write(tmp_path, model.config, shapes(model))
    (folder / "preprocessor_config.json").write_text("{")
    assert inspect(folder).max_pixels == 0


def refusal(path: Path) -> VlfleetError:
    with pytest.raises(VlfleetError) as caught:
        inspect(path)
    assert "\n" not in str(caught.value)
    assert caught.value.remedy
    return caught.value


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nothing").exit_code == ExitCode.USAGE
    assert refusal(tmp_path).exit_code == ExitCode.FAILED
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert "'llama' in config.json is no Qwen-VL" in refusal(tmp_path).cause
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2_vl"}))
    assert "holds no safetensors file" in refusal(tmp_path).cause


def test_an_adapter_is_named(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "is an adapter (PEFT), not a model" in refusal(tmp_path).cause


@pytest.mark.parametrize("value", [None, "many", -1, True, 1.5])
def test_a_size_that_is_none(tmp_path: Path, value: Any) -> None:
    model = MODELS["Qwen2-VL-2B"]
    folder = write(tmp_path, {**model.config, "num_hidden_layers": value}, shapes(model))
    assert "num_hidden_layers" in refusal(folder).cause


def run(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vlfleet", "checkpoint", "inspect", *args]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_shows_what_a_person_asks(published: Path, tmp_path: Path) -> None:
    shown = run(str(published / "Qwen2.5-VL-3B")).stdout
    for line in (
        "Qwen2.5-VL-3B: Qwen2.5-VL, 3,754,622,976 parameters, 7.51 GB on disk in 2 shards",
        "quantisation  none",
        "a picture     4 to 16,384 visual tokens (3,136 to 12,845,056 pixels)",
        "--mm-encoder-tp-mode weights  1 2 4\n",
        "--mm-encoder-tp-mode data     1 2 4 8 16\n",
        "refused 8 16 weights: C4 AssertionError, without a message\n  remedy: --mm-encoder-tp-mode data\n",
        "refused 3 5-7 9-15: C1 Total number of attention heads (16) must be divisible by tensor parallel size (3).",
        "lm_head is the embedding (tied)",
    ):
        assert line in shown, line
    model = MODELS["Qwen2.5-VL-72B"]
    config = {**model.config, "quantization_config": CONFIGS["awq"]}
    first_upload = write(tmp_path, config, replace_linear(shapes(model), LAYOUTS["awq"]))
    shown = run(str(first_upload)).stdout
    assert "AWQ GEMM, 4 bits, groups of 128, asymmetric (language model 560 of 560 layers)" in shown
    assert "refused 2 4 8 16: C5 The input size is not aligned with the quantized weight shape." in shown
    assert "  remedy: vlfleet checkpoint pad SRC DST --tp N" in shown


def test_the_command_in_json(published: Path) -> None:
    facts = json.loads(run(str(published / "Qwen2.5-VL-3B"), "--json").stdout)
    assert facts["parameters"] == 3_754_622_976
    assert facts["parts"]["merger"]["parameters"] + facts["parts"]["vision tower"]["parameters"] == 668_684_288
    assert facts["tensor_parallel"]["weights"]["legal"] == [1, 2, 4]
    refused = {each["tp"]: each for each in facts["tensor_parallel"]["weights"]["refused"]}
    assert refused[8] == {"tp": 8, "rule": "C4", "error": "", "remedy": "--mm-encoder-tp-mode data"}
    assert len(refused) == 13


def test_the_command_refuses_in_two_lines(tmp_path: Path) -> None:
    done = run(str(tmp_path / "nothing"))
    assert done.returncode == ExitCode.USAGE
    assert done.stderr.splitlines()[0].startswith("error: ")
    assert done.stderr.splitlines()[1].startswith("remedy: ")


def test_nothing_heavy_is_imported(published: Path) -> None:
    code = (
        "import sys; from vlfleet.checkpoint.inspection import inspect; inspect(sys.argv[1]);"
        "import vlfleet.plan.legality;"
        "print([name for name in ('torch', 'transformers', 'numpy', 'aiohttp', 'rich') if name in sys.modules])"
    )
    path = str(published / "Qwen2.5-VL-72B")
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
