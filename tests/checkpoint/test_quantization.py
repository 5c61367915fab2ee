"""Quantisation told by headers alone: every format, every group, and what config.json says against it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.published import MODELS, Shapes, shapes
from tests.quantised import CONFIGS, LAYOUTS, replace_linear
from vlfleet.checkpoint.headers import Tensor
from vlfleet.checkpoint.layout import Part
from vlfleet.checkpoint.quantization import Format, Quantization, Scheme, Strategy, detect
from vlfleet.checkpoint.quantization_claim import Claim, completed, disagreements, read_claim

SCHEMES = {
    "awq": Scheme(Format.AWQ, 4, Strategy.GROUP, group_size=128, symmetric=False),
    "gptq": Scheme(Format.GPTQ, 4, Strategy.GROUP, group_size=128),
    "packed": Scheme(Format.PACKED, 4, Strategy.GROUP, group_size=128, symmetric=True),
    "fp8_block": Scheme(Format.FP8, 8, Strategy.BLOCK, block=(128, 128), symmetric=True),
    "fp8_channel": Scheme(Format.FP8, 8, Strategy.CHANNEL, symmetric=True),
    "fp8_tensor": Scheme(Format.FP8, 8, Strategy.TENSOR, symmetric=True),
    "int8": Scheme(Format.INT8, 8, Strategy.CHANNEL, symmetric=True),
    "nf4": Scheme(Format.BNB_4BIT, 4, Strategy.GROUP, group_size=64, symmetric=True),
    "bnb_int8": Scheme(Format.BNB_8BIT, 8, Strategy.CHANNEL, symmetric=True),
}


def found_in(tensors: Shapes, expected: Shapes) -> Quantization | None:
    headers = {
        name: Tensor(name, dtype, shape, Path("x.safetensors"), 0, 0) for name, (dtype, shape) in tensors.items()
    }
    return detect(headers, {name: shape for name, (_, shape) in expected.items()})


@pytest.mark.parametrize("kind", LAYOUTS)
@pytest.mark.parametrize("name", ["Qwen2-VL-2B", "Qwen2.5-VL-7B", "Qwen3-VL-4B"])
def test_every_format_of_every_family(name: str, kind: str) -> None:
    plain = shapes(MODELS[name])
    found = found_in(replace_linear(plain, LAYOUTS[kind]), plain)
    assert found is not None
    assert found.schemes == (SCHEMES[kind],)
    assert len(found.modules) == 7 * MODELS[name].layers
    assert found.parts == (Part.LANGUAGE,)
    for module in found.modules:
        assert (module.out_features, module.in_features) == plain[f"{module.name}.weight"][1]


@pytest.mark.parametrize("name", MODELS)
def test_nothing_is_quantised_in_the_published_bf16_models(name: str) -> None:
    plain = shapes(MODELS[name])
    assert found_in(plain, plain) is None


@given(
    out=st.integers(1, 40).map(lambda each: 32 * each),
    groups=st.integers(2, 40),
    group=st.sampled_from([32, 64, 128]),
    bits=st.sampled_from([2, 4, 8]),
    kind=st.sampled_from(["gptq", "packed"]),
    symmetric=st.booleans(),
)
def test_bits_and_groups_come_from_the_shapes(
    out: int, groups: int, group: int, bits: int, kind: str, symmetric: bool
) -> None:
    plain: Shapes = {"model.layers.0.mlp.up_proj.weight": ("BF16", (out, groups * group))}
    options: dict[str, Any] = {"symmetric": symmetric} if kind == "packed" else {}
    found = found_in(replace_linear(plain, LAYOUTS[kind], group=group, bits=bits, **options), plain)
    assert found is not None
    assert (found.scheme.bits, found.scheme.group_size) == (bits, group)
    assert (found.modules[0].out_features, found.modules[0].in_features) == (out, groups * group)
    assert found.scheme.symmetric is (symmetric if kind == "packed" else None)


def test_bits_of_pack_quantized_though_config_json_is_wrong() -> None:
    """Its headers alone leave bits open; an edited intermediate_size does not mislead."""
    real: Shapes = {"model.layers.0.mlp.down_proj.weight": ("BF16", (8192, 29696))}
    said: Shapes = {"model.layers.0.mlp.down_proj.weight": ("BF16", (8192, 29568))}
    for bits in (4, 8):
        found = found_in(replace_linear(real, LAYOUTS["packed"], bits=bits), said)
        assert found is not None
        assert (found.scheme.bits, found.modules[0].in_features) == (bits, 29696)


def test_layers_smaller_than_a_group_or_a_block_follow_their_neighbours() -> None:
    small: Shapes = {
        "model.layers.0.self_attn.q_proj.weight": ("BF16", (64, 128)),
        "model.layers.0.mlp.up_proj.weight": ("BF16", (256, 128)),
        "model.layers.0.mlp.down_proj.weight": ("BF16", (128, 256)),
    }
    for kind in ("awq", "fp8_block"):
        found = found_in(replace_linear(small, LAYOUTS[kind]), small)
        assert found is not None
        assert found.schemes == (SCHEMES[kind],)


def test_layers_in_two_schemes() -> None:
    plain = shapes(MODELS["Qwen2.5-VL-7B"])
    mixed = replace_linear(plain, LAYOUTS["gptq"])
    mixed |= LAYOUTS["gptq"]("model.layers.3.mlp.up_proj", 18944, 3584, group=64, bits=8)
    found = found_in(mixed, plain)
    assert found is not None
    assert found.scheme == SCHEMES["gptq"]
    assert found.schemes[1] == Scheme(Format.GPTQ, 8, Strategy.GROUP, group_size=64)


def test_a_vision_tower_that_is_quantised_is_told() -> None:
    plain = shapes(MODELS["Qwen2.5-VL-7B"])
    tensors = plain | LAYOUTS["fp8_channel"]("visual.blocks.0.mlp.up_proj", 3420, 1280)
    found = found_in(tensors, plain)
    assert found is not None
    assert found.parts == (Part.VISION,)


@pytest.mark.parametrize("kind", CONFIGS)
def test_what_the_tools_write_agrees_with_what_they_save(kind: str) -> None:
    plain = shapes(MODELS["Qwen2.5-VL-7B"])
    found = found_in(replace_linear(plain, LAYOUTS[kind]), plain)
    assert disagreements(found, read_claim(CONFIGS[kind])) == []


@pytest.mark.parametrize(
    ("kind", "change", "sentence"),
    [
        ("awq", {"quant_method": "gptq"}, "config.json says quant_method 'gptq', the tensors are AWQ GEMM"),
        ("awq", {"bits": 8}, "config.json says 8 bits, the tensors have 4"),
        ("awq", {"group_size": 64}, "config.json says group_size 64, the scales have 128"),
        ("awq", {"zero_point": False}, "config.json says symmetric is True, the tensors have zero points"),
        ("gptq", {"group_size": -1}, "config.json says group_size -1, the scales have 128"),
        ("fp8_block", {"weight_block_size": [64, 128]},
         "config.json says blocks of (64, 128), the scales have (128, 128)"),
    ],
)  # fmt: skip
def test_a_config_that_is_wrong(kind: str, change: dict[str, Any], sentence: str) -> None:
    plain = shapes(MODELS["Qwen2.5-VL-7B"])
    found = found_in(replace_linear(plain, LAYOUTS[kind]), plain)
    assert disagreements(found, read_claim({**CONFIGS[kind], **change})) == [sentence]


def test_a_config_that_says_nothing_or_too_much() -> None:
    plain = shapes(MODELS["Qwen2.5-VL-7B"])
    found = found_in(replace_linear(plain, LAYOUTS["awq"]), plain)
    assert "has no quantization_config" in disagreements(found, read_claim({}))[0]
    assert disagreements(None, read_claim(CONFIGS["awq"])) == ["config.json says awq, but no tensor is quantised"]
    assert disagreements(None, None) == []


def test_gptq_needs_config_json_to_say_what_headers_do_not() -> None:
    claim = read_claim({**CONFIGS["gptq"], "desc_act": True})
    assert claim is not None
    assert completed(SCHEMES["gptq"], claim) == replace(SCHEMES["gptq"], symmetric=True, desc_act=True)
    assert completed(SCHEMES["awq"], Claim("awq", symmetric=True)).symmetric is False, "headers win"
    assert str(completed(SCHEMES["gptq"], claim)) == "GPTQ, 4 bits, groups of 128, symmetric, desc_act"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=6,
    )
)
def test_junk_in_the_configuration_never_escapes(junk: Any) -> None:
    for key in ("config_groups", "bits", "group_size", "weight_block_size", "zero_point", "sym", "quant_method"):
        for kind in ("awq", "packed", "fp8_block"):
            read_claim({**CONFIGS[kind], key: junk})
