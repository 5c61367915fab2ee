"""Whole checkpoints: found, complete, and every damage named in one line before anything heavy is loaded."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from tests.conftest import TinyCheckpoint
from vlfleet.checkpoint import CheckpointInfo, locate, preflight
from vlfleet.errors import ExitCode, VlfleetError

FAMILIES = ("qwen2_5_vl", "qwen2_vl")


@pytest.fixture
def model(tiny_checkpoint: TinyCheckpoint, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(tiny_checkpoint("qwen2_5_vl"), tmp_path / "model"))


def change(file: Path, **fields: Any) -> None:
    """Set fields of a JSON file; None takes one out."""
    content = {**json.loads(file.read_text()), **fields}
    file.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


def refusal(model: Path | str) -> VlfleetError:
    with pytest.raises(VlfleetError) as caught:
        preflight(model)
    error = caught.value
    assert "\n" not in str(error)
    assert error.remedy
    return error


def attempt(model: Path) -> CheckpointInfo | VlfleetError:
    try:
        return preflight(model)
    except VlfleetError as error:
        return error


@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_whole_checkpoint_is_described(tiny_checkpoint: TinyCheckpoint, model_type: str) -> None:
    info = preflight(tiny_checkpoint(model_type))
    weights = load_file(info.path / "model.safetensors")
    assert info.family.model_type == model_type
    assert info.parameters == sum(array.size for array in weights.values())
    assert info.bytes == sum(array.nbytes for array in weights.values())
    assert (info.dtype, info.quantization, info.max_model_len) == ("F32", "", 4096)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_the_nested_config_of_transformers_5_reads_the_same(
    tiny_checkpoint: TinyCheckpoint, tmp_path: Path, model_type: str
) -> None:
    import transformers

    flat = preflight(tiny_checkpoint(model_type))
    model_class = getattr(transformers, flat.family.architecture)
    folder = Path(shutil.copytree(flat.path, tmp_path / "nested"))
    (folder / "model.safetensors").unlink()
    model_class.from_pretrained(flat.path).save_pretrained(folder)
    assert "num_hidden_layers" not in json.loads((folder / "config.json").read_text())
    nested = preflight(folder)
    assert nested.family is flat.family
    assert nested.max_model_len == flat.max_model_len
    assert nested.parameters == flat.parameters
    for key in ("hidden_size", "num_hidden_layers", "image_token_id", "video_token_id"):
        assert nested.config[key] == flat.config[key]


def test_preflight_imports_nothing_heavy(model: Path) -> None:
    code = (
        "import sys; from vlfleet.checkpoint import preflight; preflight(sys.argv[1]);"
        "print([name for name in ('torch', 'transformers', 'numpy', 'aiohttp') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(model)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"])
def test_a_missing_file_is_named(model: Path, name: str) -> None:
    (model / name).unlink()
    assert name in refusal(model).cause


def test_no_weights(model: Path) -> None:
    (model / "model.safetensors").unlink()
    assert "no safetensors file" in refusal(model).cause


def test_a_truncated_shard(model: Path) -> None:
    file = model / "model.safetensors"
    size = file.stat().st_size
    with file.open("r+b") as stream:
        stream.truncate(size - 5)
    assert refusal(model).cause == f"model.safetensors is truncated: {size - 5:,} of {size:,} bytes"


def split(model: Path, *, index: bool) -> list[Path]:
    """Two shards instead of one file, by layer."""
    weights = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    parts: list[dict[str, Any]] = [{}, {}]
    for name, array in weights.items():
        parts[".3." in name or ".2." in name][name] = array
    files = [model / f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for file, part in zip(files, parts, strict=True):
        save_file(part, file)
    if index:
        places = {name: file.name for file, part in zip(files, parts, strict=True) for name in part}
        (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return files


@pytest.mark.parametrize("index", [True, False])
def test_two_shards_are_read_as_one(model: Path, index: bool) -> None:
    whole = preflight(model).parameters
    split(model, index=index)
    assert preflight(model).parameters == whole


def test_a_missing_shard_by_the_index(model: Path) -> None:
    split(model, index=True)[1].unlink()
    assert refusal(model).cause == "shard model-00002-of-00002.safetensors of 2 is missing"


def test_a_missing_shard_without_an_index(model: Path) -> None:
    split(model, index=False)[1].unlink()
    assert "lacks layer 2 of the language model (2 of 4 missing)" in refusal(model).cause


def test_another_family_is_refused(model: Path) -> None:
    change(model / "config.json", model_type="llama")
    assert "'llama'" in refusal(model).cause


JUNK: list[Any] = [5, "abc", [], [1], {}, {"size": 1}, True, -1, 10**15, 1e300]


@pytest.mark.parametrize("junk", JUNK, ids=str)
@pytest.mark.parametrize(
    "key",
    [
        "text_config",
        "vision_config",
        "model_type",
        "num_hidden_layers",
        "hidden_size",
        "max_position_embeddings",
        "quantization_config",
    ],
)
def test_junk_in_the_configuration_never_escapes(model: Path, key: str, junk: Any) -> None:
    change(model / "config.json", **{key: junk})
    outcome = attempt(model)
    assert outcome.remedy if isinstance(outcome, VlfleetError) else outcome.max_model_len > 0


@pytest.mark.parametrize("junk", JUNK, ids=str)
@pytest.mark.parametrize("key", ["size", "min_pixels", "max_pixels"])
def test_junk_in_the_preprocessor_never_escapes(model: Path, key: str, junk: Any) -> None:
    change(model / "preprocessor_config.json", **{key: junk})
    outcome = attempt(model)
    if isinstance(outcome, VlfleetError):
        assert "preprocessor_config.json" in outcome.cause
    else:
        assert 0 < outcome.min_pixels <= outcome.max_pixels


@pytest.mark.parametrize("junk", [*JUNK, {"a": 1}, {"a": None}, {"a": ["b"]}, {"a": "../nothing"}], ids=str)
def test_junk_in_the_index_never_escapes(model: Path, junk: Any) -> None:
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": junk}))
    assert refusal(model).exit_code == ExitCode.FAILED


@pytest.mark.parametrize("text", ["", "{", "[]", "5", "null", "[" * 100_000, "\ufeff{}"], ids=lambda text: text[:5])
@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors.index.json"])
def test_files_that_are_no_json_object(model: Path, name: str, text: str) -> None:
    (model / name).write_text(text)
    assert name in refusal(model).cause


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, (12544, 200704)),
        ({"min_pixels": None, "max_pixels": None}, (12544, 200704)),
        ({"size": None}, (12544, 200704)),
        ({"min_pixels": None, "max_pixels": None, "size": None}, (3136, 1003520)),
        ({"min_pixels": 3136, "max_pixels": 401408}, (3136, 401408)),
        ({"max_pixels": None, "size": {"shortest_edge": 3136, "longest_edge": 501760}}, (12544, 501760)),
    ],
)
def test_pixel_limits_are_those_of_transformers(model: Path, fields: dict[str, Any], expected: tuple[int, int]) -> None:
    from transformers import Qwen2VLImageProcessorPil

    change(model / "preprocessor_config.json", **fields)
    info = preflight(model)
    size = Qwen2VLImageProcessorPil.from_pretrained(model).size
    assert (info.min_pixels, info.max_pixels) == (size["shortest_edge"], size["longest_edge"]) == expected


def test_a_path_that_does_not_exist_is_a_usage_error(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing", "./nothing/at/all", "no such folder"):
        error = refusal(path)
        assert error.exit_code == ExitCode.USAGE
        assert "does not exist" in error.cause


def test_a_file_is_no_checkpoint(model: Path) -> None:
    error = refusal(model / "config.json")
    assert (error.exit_code, "is a file" in error.cause) == (ExitCode.USAGE, True)


@pytest.mark.parametrize("name", ["Qwen/does-not-exist-anywhere", "-a/b", "a--b/c", "../nothing", ".a/b.", "a/b.git"])
def test_a_hub_name_without_network_is_one_line(name: str) -> None:
    error = refusal(name)
    assert name in error.cause
    assert "folder" in error.remedy


def test_a_folder_is_found_by_any_spelling(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model.parent)
    monkeypatch.setenv("HOME", str(model.parent))
    assert locate("model") == locate("./model/") == locate("~/model") == locate(model) == model.resolve()


@given(st.binary(max_size=60))
def test_random_bytes_as_config_are_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.getbasetemp() / "random-config"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_bytes(content)
    refusal(folder)
