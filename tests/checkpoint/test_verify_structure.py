"""Headers against index and configuration: every published model, every format, every way to be wrong."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from tests.published import MODELS, Shapes, shapes, write
from tests.quantised import CONFIGS, LAYOUTS, replace_linear
from vlfleet.checkpoint.headers import read_header
from vlfleet.checkpoint.layout_files import read
from vlfleet.checkpoint.verify_structure import Kind, check_index, check_shard, check_tensors, read_shards

MODEL = MODELS["Qwen2.5-VL-3B"]


def problems(folder: Path) -> list[tuple[Kind, str, str]]:
    return [(problem.kind, problem.where, problem.what) for problem in check_tensors(read(folder))]


@pytest.mark.parametrize("name", MODELS)
def test_published_models_are_whole(tmp_path: Path, name: str) -> None:
    model = MODELS[name]
    folder = write(tmp_path, model.config, shapes(model))
    assert problems(folder) == []
    contents = read(folder)
    index = folder / "model.safetensors.index.json"
    assert index.is_file()
    assert list(check_index(contents, json.loads(index.read_text())["weight_map"])) == []
    for shard in contents.shards:
        assert list(check_shard(shard, read_header(shard))) == []


@pytest.mark.parametrize("kind", LAYOUTS)
@pytest.mark.parametrize("name", ["Qwen2.5-VL-7B", "Qwen3-VL-8B"])
def test_quantised_models_are_whole(tmp_path: Path, name: str, kind: str) -> None:
    model = MODELS[name]
    config = {**model.config, "quantization_config": CONFIGS[kind]}
    assert problems(write(tmp_path, config, replace_linear(shapes(model), LAYOUTS[kind]))) == []


@pytest.mark.parametrize("kind", LAYOUTS)
def test_every_tensor_of_a_quantised_layer_is_needed_or_known(tmp_path: Path, kind: str) -> None:
    """Without one of them something is told, unless engines can do without it."""
    tensors = replace_linear(shapes(MODEL), LAYOUTS[kind])
    layer = "model.layers.5.mlp.down_proj"
    can_do_without = {"g_idx", "weight_g_idx", "input_scale", "weight.quant_map", "weight.nested_absmax",
                      "weight.nested_quant_map", "weight.quant_state.bitsandbytes__nf4"}  # fmt: skip
    for name in [name for name in tensors if name.startswith(f"{layer}.")]:
        less = {key: value for key, value in tensors.items() if key != name}
        found = problems(write(tmp_path / name, MODEL.config, less))
        needed = name.removeprefix(f"{layer}.") not in can_do_without
        assert bool(found) is needed, name
        assert all(layer in where for _, where, _ in found)


@pytest.mark.parametrize("kind", LAYOUTS)
def test_a_wrong_shape_in_a_quantised_layer_is_told(tmp_path: Path, kind: str) -> None:
    """One row more than config.json says, in every tensor that has rows."""
    tensors = replace_linear(shapes(MODEL), LAYOUTS[kind])
    layer = "model.layers.5.mlp.down_proj"
    for name, (dtype, shape) in [(name, tensors[name]) for name in tensors if name.startswith(f"{layer}.")]:
        if "weight." in name.removeprefix(layer) or shape in ((1,), (2,)):
            continue  # states of bitsandbytes, whose shapes the header does not tell, and scalars
        changed = {**tensors, name: (dtype, (shape[0] + 64, *shape[1:]))}
        found = problems(write(tmp_path / name, MODEL.config, changed))
        assert found, name
        assert any(layer in where for _, where, _ in found)


def test_missing_extra_and_wrong_tensors_are_named(tmp_path: Path) -> None:
    tensors = shapes(MODEL)
    del tensors["model.norm.weight"]
    tensors["model.layers.0.mlp.up_proj.weight"] = ("BF16", (11008, 1024))
    tensors["model.layers.1.mlp.up_proj.weight"] = ("I32", (11008, 2048))
    tensors["model.something"] = ("BF16", (1,))
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = ("F32", (64,))
    assert sorted(problems(write(tmp_path, MODEL.config, tensors))) == [
        (Kind.DTYPE, "model.layers.1.mlp.up_proj.weight", "is I32, which nothing here says how to read"),
        (Kind.EXTRA, "model.something", "is no tensor of this model"),
        (Kind.MISSING, "model.norm.weight", "is in no file; it should have [2048]"),
        (Kind.SHAPE, "model.layers.0.mlp.up_proj.weight", "has [11008, 1024], config.json says [11008, 2048]"),
    ]


def test_a_tied_head_may_be_there_another_must(tmp_path: Path) -> None:
    head: Shapes = {"lm_head.weight": ("BF16", (151936, 2048))}
    assert problems(write(tmp_path / "a", MODEL.config, {**shapes(MODEL), **head})) == []
    untied = {**MODEL.config, "tie_word_embeddings": False}
    assert [kind for kind, _, _ in problems(write(tmp_path / "b", untied, shapes(MODEL)))] == [Kind.MISSING]


def test_a_tensor_that_is_there_twice(tmp_path: Path) -> None:
    tensors: Shapes = {**shapes(MODEL), "model.language_model.norm.weight": ("BF16", (2048,))}
    assert (Kind.DUPLICATE, "model.norm.weight", "is there more than once") in problems(
        write(tmp_path, MODEL.config, tensors)
    )


def test_an_index_that_lies(tmp_path: Path) -> None:
    folder = write(tmp_path, MODEL.config, shapes(MODEL))
    weight_map: dict[str, str] = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    other = "model-00002-of-00002.safetensors"
    weight_map["nothing"] = other
    weight_map["visual.patch_embed.proj.weight"] = other
    del weight_map["model.norm.weight"]
    found = {problem.where: problem.what for problem in check_index(read(folder), weight_map)}
    index = "model.safetensors.index.json"
    assert found == {
        "nothing": f"{index} puts it in {other}, no file has it",
        "visual.patch_embed.proj.weight": f"{index} puts it in {other}, it is in model-00001-of-00002.safetensors",
        "model.norm.weight": f"is in {other}, but not in {index}: engines do not load it",
    }


def shard(file: Path, *places: tuple[int, int], dtype: str = "U8", size: int | None = None) -> Path:
    header: dict[str, Any] = {
        f"t{number}": {"dtype": dtype, "shape": [end - start], "data_offsets": [start, end]}
        for number, (start, end) in enumerate(places)
    }
    text = json.dumps(header).encode()
    data = bytes(max(end for _, end in places) if size is None else size)
    file.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return file


def test_offsets_that_leave_gaps_or_overlap(tmp_path: Path) -> None:
    file = shard(tmp_path / "a.safetensors", (0, 4), (6, 8), (7, 12))
    found = [str(problem) for problem in check_shard(file, read_header(file))]
    assert found == [
        "t1: leaves 2 bytes before it, in a.safetensors",
        "t2: overlaps the one before, in a.safetensors",
    ]
    file = shard(tmp_path / "b.safetensors", (3, 5))
    assert len(list(check_shard(file, read_header(file)))) == 1
    file = shard(tmp_path / "c.safetensors", (0, 4), dtype="X9")
    assert [problem.kind for problem in check_shard(file, read_header(file))] == [Kind.DTYPE]


def test_every_broken_shard_is_told_not_only_the_first(tmp_path: Path) -> None:
    good = shard(tmp_path / "good.safetensors", (0, 4))
    short = shard(tmp_path / "short.safetensors", (0, 40), size=30)
    junk = tmp_path / "junk.safetensors"
    junk.write_bytes(b"<html>not found</html>")
    tensors, found = read_shards((good, short, junk))
    assert list(tensors) == [good]
    assert [(problem.kind, problem.where) for problem in found] == [
        (Kind.SHARD, "short.safetensors"),
        (Kind.SHARD, "junk.safetensors"),
    ]
    assert all(problem.what for problem in found)
