"""FP8 on a CPU: E4M3 by definition, the layout of llm-compressor, streaming, padded for the ranks asked for."""

from __future__ import annotations

import itertools
import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from tests.conftest import TinyCheckpoint
from vlfleet import demo
from vlfleet.checkpoint import preflight, quantise_fp8, writer
from vlfleet.checkpoint.headers import BITS
from vlfleet.checkpoint.pad import plan_pad
from vlfleet.checkpoint.quantise_e4m3 import to_bf16, to_e4m3
from vlfleet.checkpoint.quantise_fp8 import plan_fp8, quantise_rows, write_fp8
from vlfleet.errors import VlfleetError


def e4m3_by_definition() -> dict[int, float]:
    """Every finite number of the format with its code: sign, exponent with a bias of 7, three bits of mantissa."""
    numbers = {}
    for code in range(256):
        sign, exponent, mantissa = -1 if code >> 7 else 1, (code >> 3) & 15, code & 7
        if (exponent, mantissa) != (15, 7):
            number = (8 + mantissa) * 2.0 ** (exponent - 10) if exponent else mantissa * 2.0**-9
            numbers[code] = sign * number
    return numbers


NUMBERS = e4m3_by_definition()


def nearest(value: float) -> int:
    """The code of the nearest number; of two, the one with an even mantissa. The sign of a zero is kept."""
    sign = 0x80 if np.signbit(value) else 0
    codes = [code for code in NUMBERS if (code & 0x80) == sign]
    return min(codes, key=lambda code: (abs(NUMBERS[code] - value), code & 1))


def test_the_table_is_right() -> None:
    assert max(NUMBERS.values()) == 448
    assert len(NUMBERS) == 254
    assert min(value for value in NUMBERS.values() if value > 0) == 2.0**-9


def test_each_number_is_its_own() -> None:
    codes = np.array(list(NUMBERS), np.uint8)
    assert to_e4m3(np.array(list(NUMBERS.values()), np.float32)).tolist() == codes.tolist()


def test_ties_and_neighbours() -> None:
    """The middle between two neighbours, and the float32 on either side of it."""
    positive = sorted(value for value in NUMBERS.values() if value >= 0)
    middles = [np.float32((low + high) / 2) for low, high in itertools.pairwise(positive)]
    values = [v for m in middles for v in (np.nextafter(m, np.float32(0)), m, np.nextafter(m, np.float32(1e9)))]
    values += [-value for value in values] + [np.float32(v) for v in (1e-30, 448, 463.9, 464, 1e30, -1e30)]
    got = to_e4m3(np.array(values, np.float32))
    assert got.tolist() == [nearest(min(448.0, max(-448.0, float(value)))) for value in values]


@given(st.lists(st.floats(-500, 500, width=32), min_size=1, max_size=50))
def test_any_number_goes_to_the_nearest(values: list[float]) -> None:
    got = to_e4m3(np.array(values, np.float32))
    assert got.tolist() == [nearest(min(448.0, max(-448.0, value))) for value in values]


def test_every_bfloat16_as_torch_does_it() -> None:
    values = (np.arange(1 << 16, dtype=np.uint32) << 16).view(np.float32)
    values = values[np.isfinite(values)]
    want = torch.from_numpy(np.clip(values, -448, 448)).to(torch.float8_e4m3fn).view(torch.uint8).numpy()
    np.testing.assert_array_equal(to_e4m3(values), want)


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=50))
def test_bfloat16_as_torch_does_it(values: list[float]) -> None:
    array = np.array(values, np.float32)
    array = array[np.abs(array) < 3e38]
    codes, again = to_bf16(array)
    want = torch.from_numpy(array).to(torch.bfloat16)
    assert codes.view(np.int16).tolist() == want.view(torch.int16).tolist()
    assert again.tolist() == want.float().tolist()


@pytest.mark.parametrize(
    ("dtype", "torch_dtype"), [("BF16", torch.bfloat16), ("F16", torch.float16), ("F32", torch.float32)]
)
def test_rows(dtype: str, torch_dtype: torch.dtype) -> None:
    weights = torch.randn(16, 512, generator=torch.Generator().manual_seed(0)) * 0.02
    weights[3] = 0
    weights[5, 7] = 1.0  # an outlier costs its row alone
    weights = weights.to(torch_dtype)
    raw = memoryview(bytearray(weights.view(torch.uint8).numpy().tobytes()))
    codes, scales = quantise_rows(raw, dtype, 16)
    assert codes is not None
    kind = torch.bfloat16 if dtype == "BF16" else torch.float32
    scale = torch.frombuffer(bytearray(scales), dtype=kind).double()[:, None]
    again = torch.from_numpy(codes).view(torch.float8_e4m3fn).double() * scale
    step = torch.maximum(weights.double().abs() / 16, scale * 2.0**-10)  # half a step: 2^-4 of the number, or 2^-10
    assert ((again - weights.double()).abs() <= step * 1.0001 + scale * 2).all()
    inner = weights.double().abs() < 0.99 * weights.double().abs().amax(1, keepdim=True)
    assert ((again - weights.double()).abs() <= step * 1.0001)[inner].all()
    assert not again[3].any()
    assert scale[3] == 1


def test_the_layout_of_llm_compressor(tmp_path: Path) -> None:
    """Names, dtypes and shapes as llm-compressor 0.14 leaves the bundled model (looked at, not run, here)."""
    source = load_file(demo.model_path() / "model.safetensors")
    write_fp8(plan_fp8(demo.model_path()), tmp_path / "fp8")
    tensors = load_file(tmp_path / "fp8" / "model.safetensors")
    linears = [name for name in source if ".layers." in name and name.endswith("_proj.weight")]
    assert len(linears) == 56
    assert set(tensors) == set(source) | {f"{name}_scale" for name in linears}
    for name in source:
        if name in linears:
            assert tensors[name].dtype == torch.float8_e4m3fn
            assert tensors[name].shape == source[name].shape
            scale = tensors[f"{name}_scale"]
            assert (scale.dtype, scale.shape) == (torch.bfloat16, (source[name].shape[0], 1))
            assert torch.equal(scale, (source[name].float().abs().amax(1, keepdim=True) / 448).to(torch.bfloat16))
            error = tensors[name].double() * scale.double() - source[name].double()
            assert error.norm() / source[name].double().norm() < 0.028
        else:
            assert torch.equal(tensors[name], source[name])
    config = json.loads((tmp_path / "fp8" / "config.json").read_text())
    quantization = config.pop("quantization_config")
    assert config == json.loads((demo.model_path() / "config.json").read_text())
    assert quantization["quant_method"] == "compressed-tensors"
    assert quantization["format"] == "float-quantized"
    group = quantization["config_groups"]["group_0"]
    assert (group["weights"]["strategy"], group["weights"]["dynamic"]) == ("channel", False)
    assert (group["input_activations"]["strategy"], group["input_activations"]["dynamic"]) == ("token", True)
    assert len(quantization["ignore"]) == 33
    for name in ("lm_head", "visual.blocks.0.attn.qkv", "visual.blocks.5.mlp.down_proj", "visual.merger.mlp.2"):
        assert name in quantization["ignore"]
    assert preflight(tmp_path / "fp8").quantization == "compressed-tensors"
    assert not plan_pad(tmp_path / "fp8", 2).needed


@pytest.mark.parametrize("model_type", ["qwen2_vl", "qwen2_5_vl"])
def test_both_families_in_float32(tiny_checkpoint: TinyCheckpoint, tmp_path: Path, model_type: str) -> None:
    source = tiny_checkpoint(model_type)
    plan = plan_fp8(source)
    assert plan.layers == 4 * 7
    write_fp8(plan, tmp_path / "fp8")
    old, new = (load_file(folder / "model.safetensors") for folder in (source, tmp_path / "fp8"))
    for name in new:
        if name.endswith("weight_scale"):
            assert new[name].dtype == torch.float32
            weight = name.removesuffix("_scale")
            error = new[weight].double() * new[name].double() - old[weight].double()
            assert error.norm() / old[weight].double().norm() < 0.028
    ignored = json.loads((tmp_path / "fp8" / "config.json").read_text())["quantization_config"]["ignore"]
    assert all(name.startswith("visual.") or name == "lm_head" for name in ignored)
    assert {f"{name}.weight" for name in ignored if name != "lm_head"} <= set(new)


def odd_model(tmp_path: Path, size: int = 648) -> Path:
    """The bundled model with a few more neurons, in two shards with an index."""
    folder = tmp_path / "odd"
    shutil.copytree(demo.model_path(), folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    random = torch.Generator().manual_seed(1)
    for name, tensor in tensors.items():
        if ".layers." in name and ".mlp." in name:
            shape = (256, size) if "down_proj" in name else (size, 256)
            more = (torch.randn(shape, generator=random) * 0.02).to(tensor.dtype)
            more[: tensor.shape[0], : tensor.shape[1]] = tensor
            tensors[name] = more
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": size}))
    parts = {
        1: {n: t for n, t in tensors.items() if ".layers." not in n},
        2: {n: t for n, t in tensors.items() if ".layers." in n},
    }
    weight_map: dict[str, str] = {}
    for number, part in parts.items():
        save_file(part, folder / f"model-{number}.safetensors", metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, f"model-{number}.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


@pytest.mark.parametrize(("block", "workers"), [(1, 1), (4096, 2), (1 << 20, 8)])
def test_padded_in_the_same_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, workers: int) -> None:
    """What is padded and then quantised is what is quantised padded; whatever the blocks and the threads."""
    monkeypatch.setattr(quantise_fp8, "BLOCK_BYTES", block)
    monkeypatch.setattr(quantise_fp8, "WORKERS", workers)
    source = odd_model(tmp_path)
    plan = plan_fp8(source, 2)
    assert (plan.before, plan.after) == (648, 672)
    write_fp8(plan, tmp_path / "fp8")
    old, new = (load_file(folder / "model-2.safetensors") for folder in (source, tmp_path / "fp8"))
    for name in ("gate_proj", "up_proj", "down_proj"):
        for layer in range(8):
            weight, full = f"model.layers.{layer}.mlp.{name}.weight", old[f"model.layers.{layer}.mlp.{name}.weight"]
            raw = memoryview(bytearray(full.contiguous().view(torch.uint8).numpy().tobytes()))
            codes, _ = quantise_rows(raw, "BF16", full.shape[0])
            assert codes is not None
            got = new[weight].view(torch.uint8)
            assert torch.equal(got[: full.shape[0], : full.shape[1]], torch.from_numpy(codes))
            scale = new[f"{weight}_scale"]
            assert not got[full.shape[0] :].any()
            assert not got[:, full.shape[1] :].any()
            assert (scale[full.shape[0] :] == 1).all()
            assert got.shape == ((256, 672) if name == "down_proj" else (672, 256))
    index = json.loads((tmp_path / "fp8" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(new) | set(load_file(tmp_path / "fp8" / "model-1.safetensors"))
    assert index["weight_map"]["model.layers.0.mlp.up_proj.weight_scale"] == "model-2.safetensors"
    assert plan.rewrite.written_bytes == (tmp_path / "fp8" / "model-2.safetensors").stat().st_size
    assert not plan_pad(tmp_path / "fp8", 2).needed


def test_scales_may_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they do where the order of the source would misalign a tensor."""
    source = odd_model(tmp_path)
    write_fp8(plan_fp8(source, 2), tmp_path / "one")
    by_size = partial(sorted, key=lambda tensor: -BITS[tensor.dtype])
    monkeypatch.setattr(writer, "aligned", by_size)
    write_fp8(plan_fp8(source, 2), tmp_path / "other")
    one, other = (load_file(tmp_path / name / "model-2.safetensors") for name in ("one", "other"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name].view(torch.uint8), other[name].view(torch.uint8)) for name in one)


def test_a_weight_that_is_no_number(tmp_path: Path) -> None:
    source = odd_model(tmp_path)
    tensors = load_file(source / "model-2.safetensors")
    tensors["model.layers.3.mlp.up_proj.weight"][5, 5] = float("nan")
    save_file(tensors, source / "model-2.safetensors")
    with pytest.raises(VlfleetError, match=r"layers\.3\.mlp\.up_proj\.weight holds NaN or infinity"):
        write_fp8(plan_fp8(source), tmp_path / "fp8")
    assert not (tmp_path / "fp8").exists()


def test_an_edited_size(tmp_path: Path) -> None:
    source = odd_model(tmp_path)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "intermediate_size": 640}))
    with pytest.raises(VlfleetError, match=r"intermediate_size in config\.json is 640"):
        plan_fp8(source)
