"""normalise: from every nested or renamed form to the hub's, with the same bytes, the same answers, SRC untouched."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from tests.checkpoint.corpus import (
    CONFIG,
    PREPROCESSOR,
    TOKENIZER,
    WEIGHTS,
    Edit,
    edit,
    move_processor,
    nest,
    nest_v5,
    nested,
    rename,
    resave,
    rope,
    template_to_file,
    then,
)
from tests.checkpoint.test_preflight import split
from tests.conftest import TinyCheckpoint
from tests.published import MODELS, preprocessor, tokenizer
from vlfleet.checkpoint.headers import read_header
from vlfleet.checkpoint.lint import lint
from vlfleet.checkpoint.normalise import Normalised, plan_normalise, write_normalised
from vlfleet.checkpoint.normalise_config import normal_config
from vlfleet.checkpoint.normalise_files import normal_preprocessor, normal_tokenizer
from vlfleet.checkpoint.verify import plan_verification, verify
from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.families import KNOWN_FAMILIES

FAMILIES = ("qwen2_vl", "qwen2_5_vl")


def copy_of(source: Path, target: Path) -> Path:
    return Path(shutil.copytree(source, target))


@pytest.fixture
def model(tiny_checkpoint: TinyCheckpoint, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return copy_of(tiny_checkpoint("qwen2_5_vl"), tmp_path / "model")


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def run(source: Path, target: Path) -> Normalised:
    return write_normalised(plan_normalise(source), target)


def saved_by_transformers(folder: Path) -> None:
    """Everything as the installed transformers 5 writes it."""
    import transformers

    config = json.loads((folder / CONFIG).read_text())
    fresh = folder.with_name("fresh")
    getattr(transformers, config["architectures"][0]).from_pretrained(folder).save_pretrained(fresh)
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(fresh)
    transformers.Qwen2VLImageProcessorPil.from_pretrained(folder).save_pretrained(fresh)
    shutil.rmtree(folder)
    fresh.rename(folder)


FORMS: dict[str, Edit] = {
    "hub": lambda folder: None,
    "saved by transformers 5": saved_by_transformers,
    "nested by 4.52 to 4.57": nest,
    "nested by 5": nest_v5,
    "4.52 names": rename(nested),
    "vLLM's names": rename(lambda name: f"language_model.{name}" if name.startswith("model.") else name),
    "PEFT's names": rename(lambda name: f"base_model.model.{name}"),
    "a wrapper's names": rename(lambda name: f"module.{name}"),
    "everything at once": then(rename(nested), nest_v5, template_to_file, move_processor),
    "rope_type alone": rope({"rope_type": "default", "mrope_section": [4, 6, 6]}),
    "type default": rope({"rope_type": "default", "type": "default", "mrope_section": [4, 6, 6]}),
    "no format": resave(dict, {"total_size": "1"}),
}


def logits(folder: Path) -> Any:
    """Of a prompt with a picture, by plain transformers."""
    import torch
    import transformers

    config = json.loads((folder / CONFIG).read_text())
    loaded, info = getattr(transformers, config["architectures"][0]).from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    random = torch.Generator().manual_seed(1)
    pixels, grid = torch.randn(64, 1176, generator=random), torch.tensor([[1, 8, 8]])
    tokens = torch.tensor([[819, 5, 6, 7, 827, *[830] * 16, 828, 9, 10, 11, 820]])
    with torch.no_grad():
        out = loaded.eval()(
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens),
            pixel_values=pixels,
            image_grid_thw=grid,
            mm_token_type_ids=(tokens == 830).int(),
            use_cache=False,
        )
    return out.logits.numpy()


@pytest.fixture(scope="session")
def answers(tiny_checkpoint: TinyCheckpoint) -> dict[str, Any]:
    return {model_type: logits(tiny_checkpoint(model_type)) for model_type in FAMILIES}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("model_type", FAMILIES)
def test_every_form_becomes_the_hubs_with_the_same_answers(
    tiny_checkpoint: TinyCheckpoint, answers: dict[str, Any], tmp_path: Path, model_type: str, form: str
) -> None:
    hub = tiny_checkpoint(model_type)
    source, target = copy_of(hub, tmp_path / "source"), tmp_path / "target"
    FORMS[form](source)
    before = contents(source)
    run(source, target)
    assert contents(source) == before, "SRC stays as it is"
    assert lint(target) == []
    assert np.array_equal(logits(target), answers[model_type])
    assert plan_normalise(target).changes == ()
    config = json.loads((target / CONFIG).read_text())
    original = json.loads((hub / CONFIG).read_text())
    sizes = [key for key in original if key.endswith(("_size", "_id", "_heads", "_layers", "_theta", "_section"))]
    assert {key: config.get(key) for key in sizes} == {key: original[key] for key in sizes}
    assert config["rope_scaling"] == {"type": "mrope", "mrope_section": [4, 6, 6]}
    assert config["tie_word_embeddings"] is True
    assert not {"text_config", "rope_parameters", "dtype"} & config.keys()
    arrays, expected = load_file(target / WEIGHTS), load_file(hub / WEIGHTS)
    assert arrays.keys() == expected.keys()
    assert all(np.array_equal(arrays[name], expected[name]) for name in expected)


@pytest.mark.parametrize("form", ["saved by transformers 5", "everything at once"])
def test_the_embedded_engine_sees_and_reads_the_same(
    tiny_checkpoint: TinyCheckpoint, tmp_path: Path, form: str
) -> None:
    from vlfleet.checkpoint import preflight
    from vlfleet.engine.embedded.prompt import load_tokenizer

    hub = tiny_checkpoint("qwen2_5_vl")
    source, target = copy_of(hub, tmp_path / "source"), tmp_path / "target"
    FORMS[form](source)
    run(source, target)
    there, here = preflight(hub), preflight(target)
    assert (here.min_pixels, here.max_pixels, here.parameters) == (there.min_pixels, there.max_pixels, there.parameters)
    message = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "How many? 42"}]}]
    chats = [
        load_tokenizer(info).apply_chat_template(message, add_generation_prompt=True, tokenize=True)
        for info in (there, here)
    ]
    assert list(chats[0]["input_ids"]) == list(chats[1]["input_ids"])


def test_twice_changes_no_byte(model: Path, tmp_path: Path) -> None:
    FORMS["everything at once"](model)
    run(model, tmp_path / "once")
    done = run(tmp_path / "once", tmp_path / "twice")
    assert done.rewritten == 0
    assert contents(tmp_path / "twice") == contents(tmp_path / "once")


def test_the_hubs_form_comes_back_byte_for_byte(model: Path, tmp_path: Path) -> None:
    config = json.loads((model / CONFIG).read_text())
    (model / CONFIG).write_text(json.dumps(dict(reversed(config.items())), indent=7))
    before = contents(model)
    done = run(model, tmp_path / "target")
    assert contents(tmp_path / "target") == before
    assert done.rewritten == 0


def test_shards_that_stay_are_shared_and_only_others_are_written(model: Path, tmp_path: Path) -> None:
    split(model, index=True)
    first, second = (model / f"model-0000{number}-of-00002.safetensors" for number in (1, 2))
    arrays = load_file(second)
    from safetensors.numpy import save_file

    save_file({nested(name): array for name, array in arrays.items()}, second)
    index = json.loads((model / "model.safetensors.index.json").read_text())["weight_map"]
    places = {nested(name) if file == second.name else name: file for name, file in index.items()}
    (model / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"a": 1}, "weight_map": places}))
    done = run(model, tmp_path / "target")
    assert (done.linked + done.cloned, done.copied, done.rewritten) == (1, 0, 1)
    if done.linked:
        assert (tmp_path / "target" / first.name).samefile(first)
    new = json.loads((tmp_path / "target" / "model.safetensors.index.json").read_text())
    assert new["weight_map"] == index
    assert new["metadata"] == {"a": 1, "total_size": sum(a.nbytes for a in arrays.values()) + sum(
        tensor.end - tensor.start for tensor in read_header(first))}  # fmt: skip
    assert verify(plan_verification(tmp_path / "target"), lambda done_bytes: None).sound


def test_shards_are_copied_onto_another_filesystem(
    model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == model.stat().st_dev:
        pytest.skip("there is no other filesystem here")
    target = elsewhere / f"vlfleet-test-{os.getpid()}"
    try:
        done = run(model, target)
        assert (done.linked, done.cloned, done.copied, done.rewritten) == (0, 0, 1, 0)
        assert contents(target) == contents(model)
    finally:
        shutil.rmtree(target, ignore_errors=True)


def test_what_does_not_belong_to_a_checkpoint_stays_behind(model: Path, tmp_path: Path) -> None:
    verify(plan_verification(model), lambda done_bytes: None)
    (model / "pytorch_model.bin").write_bytes(b"old")
    (model / ".gitattributes").write_text("x")
    (model / "original").mkdir()
    (model / "README.md").write_text("hello")
    run(model, tmp_path / "target")
    names = {file.name for file in (tmp_path / "target").iterdir()}
    assert "README.md" in names
    assert not names & {"pytorch_model.bin", ".gitattributes", "original", "vlfleet-manifest.json"}


def test_a_checkpoint_in_the_hubs_cache_is_made_of_links(model: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    for file in model.iterdir():
        (cache / file.name).symlink_to(file)
    done = run(cache, tmp_path / "target")
    assert done.linked + done.cloned == 1
    assert not any(file.is_symlink() for file in (tmp_path / "target").iterdir())


@pytest.mark.parametrize("name", MODELS)
def test_published_files_are_left_alone(name: str) -> None:
    config, family = MODELS[name].config, KNOWN_FAMILIES[MODELS[name].model_type]
    assert normal_config(config, family, "BF16") == config
    assert normal_tokenizer(tokenizer(), "") == tokenizer()
    files = preprocessor(family.model_type)
    assert normal_preprocessor(files, family) == files


def test_qwen3_vl_keeps_its_nested_form(tmp_path: Path) -> None:
    config = MODELS["Qwen3-VL-8B"].config
    text = dict(config["text_config"])
    parameters = {**text.pop("rope_scaling"), "rope_theta": text.pop("rope_theta")}
    v5 = {
        **config,
        "text_config": {**text, "rope_parameters": parameters, "pad_token_id": None},
        "vision_config": {
            **config["vision_config"],
            "model_type": "qwen3_vl_vision",
            "dtype": "bfloat16",
            "rope_parameters": {"rope_type": "axial"},
        },
    }
    assert normal_config(v5, KNOWN_FAMILIES["qwen3_vl"], "BF16") == config


def test_a_tied_head_of_qwen3_vl_is_said_where_transformers_4_57_looks() -> None:
    config, family = MODELS["Qwen3-VL-2B"].config, KNOWN_FAMILIES["qwen3_vl"]
    text = {key: value for key, value in config["text_config"].items() if key != "tie_word_embeddings"}
    assert normal_config({**config, "text_config": text}, family, "BF16") == config


def test_the_section_of_the_published_models_is_known() -> None:
    """All of them have heads of 128; for others nobody can tell."""
    config = MODELS["Qwen2.5-VL-7B"].config
    family = KNOWN_FAMILIES["qwen2_5_vl"]
    without = {key: value for key, value in config.items() if key != "rope_scaling"}
    assert normal_config(without, family, "BF16") == config
    assert "rope_scaling" not in normal_config({**without, "num_attention_heads": 56}, family, "BF16")


def test_yarn_keeps_its_figures() -> None:
    config, family = MODELS["Qwen2.5-VL-7B"].config, KNOWN_FAMILIES["qwen2_5_vl"]
    yarn = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768, "mrope_section": [16, 24, 24]}
    assert normal_config({**config, "rope_scaling": yarn}, family, "BF16")["rope_scaling"] == yarn
    v5 = {**yarn, "rope_type": "yarn", "rope_theta": 1000000.0}
    flat = {key: value for key, value in config.items() if key not in ("rope_scaling", "rope_theta")}
    normal = normal_config({**flat, "rope_parameters": v5}, family, "BF16")
    assert (normal["rope_scaling"], normal["rope_theta"]) == (yarn, 1000000.0)


@pytest.mark.parametrize(("stored", "named"), [("BF16", "bfloat16"), ("F16", "float16"), ("I32", "bfloat16")])
def test_a_dtype_that_nobody_said(stored: str, named: str) -> None:
    config = {key: value for key, value in MODELS["Qwen2-VL-2B"].config.items() if key != "torch_dtype"}
    assert normal_config(config, KNOWN_FAMILIES["qwen2_vl"], stored)["torch_dtype"] == named


def test_sides_in_place_of_areas_are_not_spread(model: Path, tmp_path: Path) -> None:
    edit(PREPROCESSOR, size={"shortest_edge": 512, "longest_edge": 1280}, min_pixels=None, max_pixels=None)(model)
    run(model, tmp_path / "target")
    assert (tmp_path / "target" / PREPROCESSOR).read_bytes() == (model / PREPROCESSOR).read_bytes()
    assert "preprocessor-size-as-side" in {each.code for each in lint(tmp_path / "target")}


def test_v5_tokenizer_becomes_v4(model: Path) -> None:
    edit(TOKENIZER, tokenizer_class="TokenizersBackend", backend="tokenizers", is_local=True, chat_template=None,
         additional_special_tokens=None, extra_special_tokens=["<|im_start|>"])(model)  # fmt: skip
    made = normal_tokenizer(json.loads((model / TOKENIZER).read_text()), "{{ messages }}")
    assert made["tokenizer_class"] == "Qwen2Tokenizer"
    assert made["additional_special_tokens"] == ["<|im_start|>"]
    assert made["chat_template"] == "{{ messages }}"
    assert not {"backend", "is_local", "extra_special_tokens"} & made.keys()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 1 << 40) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@given(data=st.data(), name=st.sampled_from(["Qwen2-VL-2B", "Qwen2.5-VL-72B", "Qwen3-VL-4B"]))
def test_any_configuration_is_normal_the_second_time(data: st.DataObject, name: str) -> None:
    config, family = MODELS[name].config, KNOWN_FAMILIES[MODELS[name].model_type]
    keys = ("rope_scaling", "rope_parameters", "text_config", "vision_config", "architectures", "torch_dtype", "dtype",
            "rope_theta", "sliding_window", "layer_types", "tie_word_embeddings")  # fmt: skip
    changed = {**config, **data.draw(st.dictionaries(st.sampled_from(keys), JSON, max_size=4))}
    once = normal_config(changed, family, "BF16")
    assert normal_config(once, family, "BF16") == once


@given(
    preprocessor=st.dictionaries(st.sampled_from(["size", "min_pixels", "max_pixels", "image_processor_type"]), JSON)
)
def test_any_preprocessor_is_normal_the_second_time(preprocessor: dict[str, Any]) -> None:
    family = KNOWN_FAMILIES["qwen2_5_vl"]
    once = normal_preprocessor(preprocessor, family)
    assert normal_preprocessor(once, family) == once


def refusal(source: Path, target: Path) -> VlfleetError:
    before = contents(source) if source.is_dir() else {}
    with pytest.raises(VlfleetError) as caught:
        run(source, target)
    assert "\n" not in str(caught.value)
    assert caught.value.remedy
    assert (contents(source) if source.is_dir() else {}) == before
    return caught.value


def test_what_cannot_be_normalised(model: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    assert refusal(tmp_path / "nothing", target).exit_code == ExitCode.USAGE
    assert refusal(model, model / "inside").exit_code == ExitCode.USAGE
    target.mkdir()
    assert refusal(model, target).exit_code == ExitCode.USAGE
    assert list(target.iterdir()) == []
    target.rmdir()
    os.truncate(model / WEIGHTS, 100_000)
    assert "is truncated" in refusal(model, target).cause
    assert not target.exists()


def test_an_index_that_names_a_missing_file(model: Path, tmp_path: Path) -> None:
    split(model, index=True)[1].unlink()
    assert "is missing" in refusal(model, tmp_path / "target").cause


def test_an_index_that_leads_elsewhere(model: Path, tmp_path: Path) -> None:
    shutil.move(model / WEIGHTS, tmp_path / "outside.safetensors")
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../outside.safetensors"}}))
    assert "in another folder" in refusal(model, tmp_path / "target").cause


def test_not_a_qwen_vl(model: Path, tmp_path: Path) -> None:
    edit(CONFIG, model_type="llama")(model)
    assert "'llama'" in refusal(model, tmp_path / "target").cause


def test_adapters_and_mixtures_are_refused(model: Path, tmp_path: Path) -> None:
    from tests.checkpoint.corpus import add_adapter

    resave(lambda arrays: {**arrays, "model.language_model.norm.weight": arrays["model.norm.weight"]})(model)
    assert "two tensors would be called model.norm.weight" in refusal(model, tmp_path / "target").cause
    resave(lambda arrays: add_adapter({n: a for n, a in arrays.items() if "language_model" not in n}))(model)
    assert "adapter" in refusal(model, tmp_path / "target").cause


def test_a_full_disk_leaves_nothing_under_the_name(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename(nested)(model)

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("vlfleet.checkpoint.normalise.write_shard", full)
        error = refusal(model, tmp_path / "target")
    assert error.exit_code == ExitCode.DOES_NOT_FIT
    assert not (tmp_path / "target").exists()
    run(model, tmp_path / "target")
    assert lint(tmp_path / "target") == []
    assert sorted(each.name for each in tmp_path.iterdir()) == ["model", "target"]


def test_too_little_room_is_known_before(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename(nested)(model)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    assert refusal(model, tmp_path / "target").exit_code == ExitCode.DOES_NOT_FIT


def command(*args: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "vlfleet", "checkpoint", "normalise", *args]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def test_the_command(model: Path, tmp_path: Path) -> None:
    then(rename(nested), rope({"rope_type": "default", "mrope_section": [4, 6, 6]}))(model)
    done = command(str(model), str(tmp_path / "target"), "--dry-run")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "config.json: other rope_scaling",
        f"{len(load_file(model / WEIGHTS))} tensors get the hub's names: model.language_model.embed_tokens.weight -> "
        "model.embed_tokens.weight, ...",
        "nothing was written (--dry-run)",
    ]
    assert not (tmp_path / "target").exists()
    done = command(str(model), str(tmp_path / "target"), "--json")
    facts = json.loads(done.stdout)
    assert facts["shards"] == {"linked": 0, "cloned": 0, "copied": 0, "rewritten": 1}
    assert len(facts["changes"]) == 2
    done = command(str(tmp_path / "target"), str(tmp_path / "again"))
    first, second = done.stdout.splitlines()
    assert first == "it has the form of the hub already"
    assert second.startswith(("1 shard hard-linked", "1 shard cloned"))
    done = command(str(model), str(tmp_path / "again"))
    assert (done.returncode, done.stdout) == (ExitCode.USAGE, "")
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["error", "remedy"]


def test_what_stays_wrong_is_said(model: Path, tmp_path: Path) -> None:
    edit(CONFIG, tie_word_embeddings=None)(model)
    done = command(str(model), str(tmp_path / "target"))
    assert done.returncode == 0
    assert done.stderr.startswith("error lm-head-missing stays: does not say tie_word_embeddings")
