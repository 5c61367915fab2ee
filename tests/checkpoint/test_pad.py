"""What pad decides, writes and refuses. That the result computes the same is in test_pad_equality.py."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from tests.quantisers import Format, quantise_checkpoint, write_mlp_checkpoint
from vlfleet import demo
from vlfleet.checkpoint import preflight
from vlfleet.checkpoint.destination_sink import Sink
from vlfleet.checkpoint.pad import pad, plan_pad
from vlfleet.checkpoint.pad_size import Attention, multiple_of, smallest
from vlfleet.cli.checkpoint_pad import summary
from vlfleet.errors import ExitCode, VlfleetError

AWQ, GPTQ = Format("awq", symmetric=False), Format("gptq")
INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="session")
def awq_demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model in AWQ's layout. Do not change it."""
    return quantise_checkpoint(demo.model_path(), tmp_path_factory.mktemp("awq") / "demo", AWQ)


@pytest.fixture
def sharded(awq_demo: Path, tmp_path: Path) -> Path:
    """The same in three shards with an index: vision and embeddings, then two of four layers each."""
    folder = tmp_path / "sharded"
    shutil.copytree(awq_demo, folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    parts: dict[int, dict[str, torch.Tensor]] = {1: {}, 2: {}, 3: {}}
    for name, tensor in tensors.items():
        layer = name.startswith("model.layers.") and int(name.split(".")[2])
        parts[1 if layer is False else 2 + (layer >= 4)][name] = tensor
    weight_map: dict[str, str] = {}
    for number, part in parts.items():
        file = f"model-{number:05d}-of-00003.safetensors"
        save_file(part, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    total = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total, "note": "kept"}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index))
    return folder


def state(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.iterdir() if file.is_file()}


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("size", "tp", "after"),
    [
        (29568, 2, 29696),  # the 72B
        (29568, 4, 29696),
        (29568, 8, 29696),
        (29568, 16, 30720),
        (29696, 8, 29696),
        (11008, 2, 11008),  # the 3B
        (11008, 4, 11264),
        (11008, 8, 11264),
        (8960, 2, 8960),  # the 2B
        (8960, 4, 9216),
        (18944, 4, 18944),  # the 7B
        (27648, 8, 27648),  # the 32B
        (640, 2, 768),  # the bundled model
        (640, 4, 1024),
    ],
)
def test_sizes_of_the_hub(size: int, tp: int, after: int) -> None:
    """qwen.md 1.2 and 1.3; the groups are of 128."""
    assert smallest(size, tp, multiple_of({"awq": 128}, None)) == after


@given(size=st.integers(1, 200_000), tp=st.integers(1, 64), multiple=st.integers(1, 512))
def test_smallest_is_the_smallest(size: int, tp: int, multiple: int) -> None:
    after = smallest(size, tp, multiple)
    assert size <= after < size + tp * multiple
    assert after % tp == 0
    assert after // tp % multiple == 0


@pytest.mark.parametrize(
    ("formats", "asked", "multiple"),
    [
        ({"plain": 0}, None, 1),
        ({"plain": 0}, 128, 128),
        ({"plain": 128}, None, 1),
        ({"awq": 128}, None, 128),
        ({"gptq": 32}, None, 128),
        ({"gptq": 0}, None, 128),
        ({"packed": 256}, None, 256),
        ({"scaled": 128}, None, 128),
        ({"scaled": 0}, None, 16),
        ({"scaled": 0, "plain": 0}, 128, 128),
    ],
)
def test_multiples(formats: dict[str, int], asked: int | None, multiple: int) -> None:
    assert multiple_of(formats, asked) == multiple


@pytest.mark.parametrize(
    ("heads", "kv_heads", "hidden", "vocabulary", "legal"),
    [
        (28, 4, 3584, 152064, [1, 2, 4]),  # 7B; 7, 14 and 28 fail on the key heads, whatever advice says
        (12, 2, 1536, 151936, [1, 2, 4]),  # 2B: 12 on the group of o_proj
        (16, 2, 2048, 151936, [1, 2, 4, 8, 16]),  # 3B
        (40, 8, 5120, 152064, [1, 2, 4, 8]),  # 32B
        (64, 8, 8192, 152064, [1, 2, 4, 8, 16, 32, 64]),  # 72B
        (4, 2, 256, 832, [1, 2]),  # the bundled model: at 4 half a group of o_proj is left
    ],
)
def test_legal_sizes(heads: int, kv_heads: int, hidden: int, vocabulary: int, legal: list[int]) -> None:
    config = {"num_attention_heads": heads, "num_key_value_heads": kv_heads, "hidden_size": hidden}
    assert Attention.of({**config, "vocab_size": vocabulary}, group=128).legal() == legal


def test_files_of_the_result(sharded: Path, tmp_path: Path) -> None:
    before = state(sharded)
    plan = pad(sharded, tmp_path / "padded", 2)
    assert (plan.before, plan.after, plan.multiple, plan.formats) == (640, 768, 128, ("awq",))
    assert state(sharded) == before
    after = tmp_path / "padded"
    assert {file.name for file in after.iterdir()} == set(before)
    config, old = (json.loads((folder / "config.json").read_text()) for folder in (after, sharded))
    assert config == {**old, "intermediate_size": 768}
    assert list(config) == list(old)
    index, old = (json.loads((folder / INDEX).read_text()) for folder in (after, sharded))
    tensors = {name: tensor for file in after.glob("*.safetensors") for name, tensor in load_file(file).items()}
    assert index["metadata"] == {"total_size": sum(t.nbytes for t in tensors.values()), "note": "kept"}
    assert index["weight_map"] == old["weight_map"]
    assert set(tensors) == set(index["weight_map"])
    written = [after / f"model-0000{number}-of-00003.safetensors" for number in (2, 3)]
    assert plan.rewrite.written_bytes == sum(file.stat().st_size for file in written)
    shared = "model-00001-of-00003.safetensors"
    assert (after / shared).samefile(sharded / shared) or (after / shared).read_bytes() == before[shared][0]
    for name in ("tokenizer.json", "chat_template.jinja", "generation_config.json"):
        assert (after / name).read_bytes() == before[name][0]
    assert preflight(after).config["intermediate_size"] == 768
    assert not plan_pad(after, 2).needed


def test_a_nested_configuration(awq_demo: Path, tmp_path: Path) -> None:
    """As transformers 5 writes it: the size stands in text_config, alone or twice."""
    for number, keep in enumerate((True, False)):
        source = tmp_path / f"nested{number}"
        shutil.copytree(awq_demo, source)
        config = json.loads((source / "config.json").read_text())
        config["text_config"] = {"intermediate_size": 640, "hidden_size": 256}
        if not keep:
            del config["intermediate_size"]
        (source / "config.json").write_text(json.dumps(config))
        pad(source, tmp_path / f"padded{number}", 2)
        padded = json.loads((tmp_path / f"padded{number}" / "config.json").read_text())
        assert padded["text_config"] == {"intermediate_size": 768, "hidden_size": 256}
        assert padded.get("intermediate_size") == (768 if keep else None)


def test_what_is_not_the_checkpoint_stays(awq_demo: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(awq_demo, source)
    (source / INDEX).write_text(
        json.dumps({"weight_map": dict.fromkeys(load_file(source / "model.safetensors"), "model.safetensors")})
    )
    for name in ("pytorch_model.bin", "consolidated.safetensors", ".gitattributes"):
        (source / name).write_text("x")
    (source / "original").mkdir()
    (source / "README.md").write_text("read me")
    plan = pad(source, tmp_path / "padded", 2)
    assert plan.notes == ("not taken along: consolidated.safetensors, original, pytorch_model.bin",)
    names = {file.name for file in (tmp_path / "padded").iterdir()}
    assert names == {file.name for file in source.iterdir()} - {
        "pytorch_model.bin", "consolidated.safetensors", ".gitattributes", "original"
    }  # fmt: skip


def test_the_vision_tower_is_told_about(awq_demo: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(awq_demo, source)
    edit(source, lambda config: config["vision_config"].update(intermediate_size=3421))
    (note,) = plan_pad(source, 2).notes
    assert note == "the vision tower's 3421 MLP neurons cannot be cut for TP 2: start with --mm-encoder-tp-mode data"


def test_nothing_to_do(awq_demo: Path, tmp_path: Path) -> None:
    plan = pad(awq_demo, tmp_path / "padded", 1)
    assert not plan.needed
    assert not (tmp_path / "padded").exists()
    assert summary(plan, tmp_path, done=False).startswith("nothing to do: 640 is legal for TP 1 (awq, 640 = 5 x 128")


@pytest.mark.parametrize("stop", [0, 40, 100])
def test_interrupted_and_continued(sharded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int) -> None:
    """Fails while shard after shard is written, in the end continues: the same bytes as in one go."""
    pad(sharded, tmp_path / "once", 2)
    real, left = Sink.copy, stop

    def copy(self: Sink, *arguments: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Sink, "copy", copy)
        with pytest.raises(VlfleetError, match="is full") as caught:
            pad(sharded, tmp_path / "padded", 2)
    assert caught.value.exit_code == ExitCode.DOES_NOT_FIT
    assert not (tmp_path / "padded").exists()
    done: list[int] = []
    plan = pad(sharded, tmp_path / "padded", 2, report=done.append)
    once, padded = ({name: c for name, (c, _) in state(tmp_path / f).items()} for f in ("once", "padded"))
    assert once == padded
    assert sum(done) >= plan.rewrite.total_bytes
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["once", "padded", "sharded"]


def refused(source: Path, tp: int = 2, group_size: int | None = None) -> VlfleetError:
    before = state(source)
    with pytest.raises(VlfleetError) as caught:
        pad(source, source.parent / "refused", tp, group_size)
    assert state(source) == before
    assert not (source.parent / "refused").exists()
    assert not (source.parent / ".refused.partial").exists()
    assert caught.value.remedy
    assert "\n" not in str(caught.value)
    return caught.value


def test_heads_that_forbid_it(awq_demo: Path) -> None:
    error = refused(awq_demo, tp=3)
    assert str(error).startswith(
        "4 attention heads cannot be cut for TP 3: padding the MLP cannot cure that (use TP 1, 2"
    )
    assert error.exit_code == ExitCode.DOES_NOT_FIT
    assert "o_proj 64 inputs a rank, no multiple of its group of 128" in refused(awq_demo, tp=4).cause


@pytest.mark.parametrize(("tp", "group_size"), [(0, None), (-1, None), (2, 0), (2, 100), (2, 64)])
def test_senseless_numbers(awq_demo: Path, tp: int, group_size: int | None) -> None:
    assert refused(awq_demo, tp, group_size).exit_code == ExitCode.USAGE


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"quant_method": "gptq", "desc_act": True}, "desc_act"),
        ({"quant_method": "gptq", "checkpoint_format": "marlin"}, "Marlin"),
        ({"quant_method": "awq", "version": "gemv"}, "'gemv'"),
        ({"quant_method": "bitsandbytes"}, "nothing can be appended"),
        ({"quant_method": "aqlm"}, "'aqlm'"),
        ({"quant_method": "compressed-tensors", "sparsity_config": {"format": "sparse-24-bitmask"}}, "sparsity"),
        (
            {"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": {"actorder": "group"}}}},
            "actorder",
        ),
    ],
)
def test_formats_in_which_nothing_can_be_appended(
    awq_demo: Path, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    source = tmp_path / "source"
    shutil.copytree(awq_demo, source)
    edit(source, lambda config: config.update(quantization_config=change))
    assert words in refused(source).cause


def mlp(form: Format, size: int = 640, **config: Any) -> dict[str, dict[str, torch.Tensor]]:
    random = torch.Generator().manual_seed(3)
    shapes = {"gate_proj": (size, 256), "up_proj": (size, 256), "down_proj": (256, size)}
    return {name: form.quantise(torch.randn(shape, generator=random)) for name, shape in shapes.items()}


def test_desc_act_that_the_configuration_does_not_admit(tmp_path: Path) -> None:
    layers = mlp(GPTQ)
    layers["down_proj"]["g_idx"] = layers["down_proj"]["g_idx"].flip(0).contiguous()
    assert "desc_act" in refused(write_mlp_checkpoint(tmp_path / "source", GPTQ, layers)).cause


def test_zero_points_of_old_inputs_do_not_suit_new_ones(tmp_path: Path) -> None:
    form = Format("packed", group=-1, symmetric=False)
    layers = mlp(form)
    assert "none is free for new inputs" in refused(write_mlp_checkpoint(tmp_path / "source", form, layers)).cause


def test_a_group_that_is_not_full_is_filled_up(tmp_path: Path) -> None:
    """FP8 blocks may end early: 600 = 4 x 128 + 88. The last block keeps its scale for the neurons that join it."""
    form = Format("fp8_block")
    source = write_mlp_checkpoint(tmp_path / "source", form, mlp(form, 600), intermediate_size=600)
    plan = pad(source, tmp_path / "padded", 2)
    assert plan.after == 768
    padded = load_file(tmp_path / "padded" / "model.safetensors")
    scale = padded["model.layers.0.mlp.down_proj.weight_scale_inv"]
    assert scale.shape == (2, 6)
    assert torch.equal(
        scale[:, :5], load_file(source / "model.safetensors")["model.layers.0.mlp.down_proj.weight_scale_inv"]
    )
    assert torch.equal(scale[:, 5], torch.ones(2))


def test_a_size_that_somebody_edited(awq_demo: Path, tmp_path: Path) -> None:
    """The folk cure: a smaller intermediate_size in config.json, which silently drops neurons."""
    for size in (512, 632, 768):
        source = tmp_path / str(size)
        shutil.copytree(awq_demo, source)
        edit(source, lambda config: config.update(intermediate_size=size))  # noqa: B023 - called at once
        error = refused(source)
        assert f"inputs and {size} outputs" in error.cause or f"none of {size} inputs" in error.cause
        assert "drops neurons" in error.remedy


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("truncated", "truncated"),
        ("missing shard", "is missing"),
        ("missing projection", "23 layers of the MLP are there, 24 should be"),
        ("missing scales", "has no scales"),
        ("unknown tensor", "belongs to no format"),
        ("fused", "two layers in one"),
        ("elsewhere", "in another folder"),
        ("not Qwen-VL", "model_type 'llava'"),
        ("no config", "has no config.json"),
        ("size is no number", "intermediate_size in config.json is '640'"),
    ],
)
def test_damaged_checkpoints(sharded: Path, damage: str, words: str) -> None:
    last = sharded / "model-00003-of-00003.safetensors"
    tensors = load_file(last)
    name = "model.layers.5.mlp.up_proj"
    if damage == "truncated":
        last.write_bytes(last.read_bytes()[:-1])
    elif damage == "missing shard":
        last.unlink()
    elif damage == "missing projection":
        save_file({key: tensor for key, tensor in tensors.items() if not key.startswith(name)}, last)
    elif damage == "missing scales":
        save_file({key: tensor for key, tensor in tensors.items() if key != f"{name}.scales"}, last)
    elif damage == "unknown tensor":
        save_file({**tensors, f"{name}.lut": torch.ones(4)}, last)
    elif damage == "fused":
        save_file({**tensors, "model.layers.5.mlp.gate_up_proj.qweight": torch.ones(4)}, last)
    elif damage == "elsewhere":
        (sharded / "sub").mkdir()
        last.rename(sharded / "sub" / last.name)
        (sharded / INDEX).write_text((sharded / INDEX).read_text().replace(last.name, f"sub/{last.name}"))
    elif damage == "no config":
        (sharded / "config.json").unlink()
    else:
        change = {"model_type": "llava"} if damage == "not Qwen-VL" else {"intermediate_size": "640"}
        edit(sharded, lambda config: config.update(change))
    assert words in refused(sharded).cause


def test_a_tensor_in_two_shards(sharded: Path) -> None:
    (sharded / INDEX).unlink()
    shutil.copy(sharded / "model-00003-of-00003.safetensors", sharded / "model-00004-of-00004.safetensors")
    assert "is in two shards" in refused(sharded).cause


def test_no_room(awq_demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=5 << 20))
    with pytest.raises(VlfleetError, match="5 MiB free, 15 MiB are needed") as caught:
        pad(awq_demo, tmp_path / "padded", 2)
    assert caught.value.exit_code == ExitCode.DOES_NOT_FIT
    assert list(tmp_path.iterdir()) == []


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vlfleet", "checkpoint", "pad", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command(awq_demo: Path, tmp_path: Path) -> None:
    target = tmp_path / "with space"
    dry = run(awq_demo, target, "--tp", "2", "--dry-run")
    assert (dry.returncode, dry.stderr, target.exists()) == (0, "", False)
    assert dry.stdout.splitlines()[0] == "intermediate_size 640 -> 768: 384 = 3 x 128 for each of 2 ranks"
    assert dry.stdout.splitlines()[-1] == "nothing was written (--dry-run)"
    done = run(awq_demo, target, "--tp", "2", "--json")
    facts = json.loads(done.stdout)
    assert facts["intermediate_size"] == {"before": 640, "after": 768}
    assert facts["written_bytes"] == (target / "model.safetensors").stat().st_size
    assert facts["target"] == str(target)
    again = run(awq_demo, target, "--tp", "2")
    assert (again.returncode, again.stdout) == (ExitCode.USAGE, "")
    assert again.stderr == f"error: {target} exists\nremedy: give a DST that does not, or remove it first\n"
    nothing = run(target, tmp_path / "more", "--tp", "2")
    assert (nothing.returncode, (tmp_path / "more").exists()) == (0, False)
    assert nothing.stdout == "nothing to do: 768 is legal for TP 2 (awq, 384 = 3 x 128 a rank)\n"


def test_bf16_that_is_to_be_quantised(tmp_path: Path) -> None:
    """640 is legal for bf16; the groups that come later are what it is padded for."""
    source = demo.model_path()
    plan = plan_pad(source, 2)
    assert not plan.needed
    assert summary(plan, tmp_path, done=False).endswith("say in which groups: --group-size 128")
    assert pad(source, tmp_path / "padded", 2, group_size=128).after == 768
    old, new = (load_file(folder / "model.safetensors") for folder in (source, tmp_path / "padded"))
    assert list(old) == list(new)
    grown = [name for name in old if old[name].shape != new[name].shape]
    assert len(grown) == 24
    assert all(torch.equal(old[name], new[name]) for name in set(old) - set(grown))
