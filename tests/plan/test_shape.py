"""Sizes from config.json: parameters of the 13 models on the hub, both forms of the file, and what is missing."""

from __future__ import annotations

import json

import pytest

from tests.checkpoints import DEMO_MODEL, tiny_config
from tests.plan.shapes import AWQ, CONFIGS, FP8_BLOCK, FP8_CHANNEL, config
from vlfleet.errors import VlfleetError
from vlfleet.plan.shape import read_shape

PARAMETERS = {
    "Qwen2-VL-2B": (2_208_985_600, 665_271_296, 1_310_340_608),
    "Qwen2-VL-7B": (8_291_375_616, 675_759_104, 6_525_621_760),
    "Qwen2-VL-72B": (73_405_560_320, 699_356_672, 70_214_787_072),
    "Qwen2.5-VL-3B": (3_754_622_976, 668_684_288, 2_774_773_760),
    "Qwen2.5-VL-7B": (8_292_166_656, 676_550_144, 6_525_621_760),
    "Qwen2.5-VL-32B": (33_452_718_336, 688_841_984, 31_206_740_992),
    "Qwen2.5-VL-72B": (73_410_777_344, 704_573_696, 70_214_787_072),
    "Qwen3-VL-2B": (2_127_532_032, 406_957_056, 1_409_410_048),
    "Qwen3-VL-4B": (4_437_815_808, 415_347_712, 3_633_511_936),
    "Qwen3-VL-8B": (8_767_123_696, 576_388_336, 6_946_075_648),
    "Qwen3-VL-32B": (33_357_390_064, 595_266_800, 31_206_298_624),
    "Qwen3-VL-30B-A3B": (31_070_754_032, 538_631_408, 29_909_792_768),
    "Qwen3-VL-235B-A22B": (235_670_022_896, 576_388_336, 233_848_974_848),
}
"""Total, vision tower, and language layers with their last norm: transformers' own count on the meta device."""


@pytest.mark.parametrize("model", CONFIGS)
def test_parameters_are_those_of_the_published_model(model: str) -> None:
    shape = read_shape(config(model))
    layers = shape.num_hidden_layers * shape.layer_parameters + shape.hidden_size
    assert (shape.parameters, shape.vision_parameters, layers) == PARAMETERS[model]


def test_the_flat_and_the_nested_form_are_one_shape() -> None:
    nested = json.loads((DEMO_MODEL / "config.json").read_text(encoding="utf-8"))
    shape = read_shape(nested)
    assert "text_config" in nested or shape.hidden_size == nested["hidden_size"]
    flat = config("Qwen2.5-VL-7B")
    vision = flat.pop("vision_config")
    assert read_shape({"model_type": "qwen2_5_vl", "text_config": flat, "vision_config": vision}) == read_shape(
        config("Qwen2.5-VL-7B")
    )


def test_a_null_at_the_top_does_not_hide_the_text_config() -> None:
    found = {**config("Qwen3-VL-8B"), "vocab_size": None}
    assert read_shape(found).vocab_size == 151936


def test_tiny_checkpoints_of_the_other_tests_can_be_read() -> None:
    for model_type in ("qwen2_vl", "qwen2_5_vl"):
        assert read_shape(tiny_config(model_type)).num_hidden_layers == 4


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"hidden_size": None}, "config.json lacks hidden_size"),
        ({"num_hidden_layers": 0}, "num_hidden_layers in config.json is 0, no positive whole number"),
        ({"vocab_size": "many"}, "vocab_size in config.json is 'many', no positive whole number"),
        ({"vision_config": None}, "config.json lacks vision_config"),
        ({"vision_config": {"depth": 32}}, "config.json lacks vision_config.num_heads"),
        ({"model_type": "llama"}, "model_type 'llama' in config.json is not planned for"),
        ({"quantization_config": {"quant_method": "hqq"}}, "quant_method 'hqq' in config.json is none that"),
    ],
)
def test_what_is_missing_is_named_in_one_line(change: dict[str, object], cause: str) -> None:
    with pytest.raises(VlfleetError) as raised:
        read_shape({**config("Qwen2.5-VL-7B"), **change})
    assert raised.value.cause.startswith(cause)
    assert "\n" not in raised.value.cause
    assert raised.value.remedy


def test_schemes_of_quantised_checkpoints() -> None:
    awq = read_shape(config("Qwen2.5-VL-7B", AWQ)).quantized
    assert awq is not None
    assert (awq.kind, awq.bits, awq.group_size, awq.symmetric) == ("awq", 4, 128, False)
    assert not awq.covers("model.visual.blocks.0.attn.qkv")
    assert awq.covers("model.layers.0.mlp.down_proj")
    unlisted = {key: value for key, value in AWQ.items() if key != "modules_to_not_convert"}
    for nothing in (unlisted, {**unlisted, "modules_to_not_convert": None}):  # Qwen2-VL's releases: headers tell vLLM
        assert read_shape(config("Qwen2-VL-7B", nothing)).quantized == awq
    listed = read_shape(config("Qwen2.5-VL-7B", {**AWQ, "modules_to_not_convert": ["lm_head"]})).quantized
    assert listed is not None
    assert listed.covers("model.visual.blocks.0.attn.qkv"), "as vLLM takes a list"
    channel = read_shape(config("Qwen2.5-VL-7B", FP8_CHANNEL)).quantized
    assert channel is not None
    assert (channel.kind, channel.per_tensor, channel.block) == ("fp8", False, (0, 0))
    assert not channel.covers("visual.merger.mlp.0")
    assert not channel.covers("lm_head")
    block = read_shape(config("Qwen3-VL-8B", FP8_BLOCK)).quantized
    assert block is not None
    assert block.block == (128, 128)
    packed = {
        "quant_method": "compressed-tensors",
        "config_groups": {
            "group_0": {"weights": {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 64}}
        },
    }
    int4 = read_shape(config("Qwen2.5-VL-7B", packed)).quantized
    assert int4 is not None
    assert (int4.kind, int4.bits, int4.group_size) == ("packed", 4, 64)
    int8 = {
        "quant_method": "compressed-tensors",
        "config_groups": {
            "group_0": {
                "weights": {"num_bits": 8, "type": "int", "strategy": "channel"},
                "input_activations": {"num_bits": 8},
            }
        },
    }
    w8a8 = read_shape(config("Qwen2.5-VL-7B", int8)).quantized
    assert w8a8 is not None
    assert w8a8.kind == "int8"
    assert read_shape(config("Qwen2.5-VL-7B")).quantized is None
    on_the_fly = read_shape(config("Qwen2.5-VL-7B"), "fp8").quantized
    assert on_the_fly is not None
    assert on_the_fly.per_tensor
    bnb = read_shape(config("Qwen2.5-VL-7B", {"quant_method": "bitsandbytes", "load_in_4bit": True})).quantized
    assert bnb is not None
    assert bnb.kind == "bnb4"


def test_a_quantisation_that_needs_its_own_checkpoint_is_refused() -> None:
    with pytest.raises(VlfleetError, match="--quantization awq needs a checkpoint that is quantised so"):
        read_shape(config("Qwen2.5-VL-7B"), "awq")
