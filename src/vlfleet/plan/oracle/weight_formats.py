"""How a quantised release of a model describes itself: its config.json, and the names in its headers. Pure.

For what does not exist yet, or is not downloaded: the oracle wants a folder as vLLM would find it. Sources: config.json
of Qwen2.5-VL-7B-Instruct-AWQ, Qwen2-VL-7B-Instruct-GPTQ-Int4 and -Int8, Qwen3-VL-8B-Instruct-FP8 (blocks of 128 x 128),
and of RedHatAI/Qwen2.5-VL-7B-Instruct-FP8-dynamic and -quantized.w4a16 (llm-compressor).
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from typing import Any

from vlfleet.checkpoint.layout import Part, part_of
from vlfleet.checkpoint.layout_expected import Weight, expected, separate_experts
from vlfleet.families import KNOWN_FAMILIES


class WeightFormat(enum.StrEnum):
    """What is on the hub for a Qwen-VL, by how its weights are stored. Groups have 128 inputs."""

    BF16 = "bf16"
    AWQ = "awq"
    GPTQ_INT4 = "gptq-int4"
    GPTQ_INT8 = "gptq-int8"
    W4A16 = "w4a16"
    FP8_BLOCK = "fp8-block"
    FP8_CHANNEL = "fp8-channel"


_GPTQ = {
    "quant_method": "gptq",
    "group_size": 128,
    "damp_percent": 0.1,
    "desc_act": False,
    "static_groups": False,
    "sym": True,
    "true_sequential": True,
    "lm_head": False,
}
_GROUPED_INT4 = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 128}
_CHANNEL_FP8 = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "channel"}
_TOKEN_FP8 = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "token", "dynamic": True}


def stored_as(config: Mapping[str, Any], stored: WeightFormat) -> dict[str, Any]:
    """config.json in this format of the bfloat16 model that `config` describes.

    Raises:
        VlfleetError: `config` lacks a size.
    """
    return dict(config) if stored is WeightFormat.BF16 else {**config, "quantization_config": _section(config, stored)}


def headers(config: Mapping[str, Any]) -> dict[str, str]:
    """dtype by name of every tensor, where vLLM must look into the headers to know what is quantised; else nothing.

    That is so for GPTQ, and for AWQ whose config.json does not list it. AutoGPTQ and AutoAWQ quantise the linear layers
    of the language model but for the routers of experts.
    """
    section = config.get("quantization_config") or {}
    listed = section.get("modules_to_not_convert") or section.get("modules_in_block_to_quantize")
    known = config.get("model_type") in KNOWN_FAMILIES
    if section.get("quant_method") not in ("gptq", "awq") or listed or not known:
        return {}
    quantised = {weight.name for weight in _quantised(config)}
    names = {weight.name: "F16" for weight in _weights(config) if weight.name not in quantised}
    return names | {f"{name.removesuffix('.weight')}.qweight": "I32" for name in quantised}


def _section(config: Mapping[str, Any], stored: WeightFormat) -> dict[str, Any]:
    if stored is WeightFormat.AWQ:
        bits: dict[str, Any] = {"bits": 4, "group_size": 128, "version": "gemm", "zero_point": True}
        routers = ["mlp.gate"] if config["model_type"].endswith("_moe") else []
        return {"quant_method": "awq", **bits, "modules_to_not_convert": ["visual", *routers]}
    if stored in (WeightFormat.GPTQ_INT4, WeightFormat.GPTQ_INT8):
        return {**_GPTQ, "bits": 8 if stored is WeightFormat.GPTQ_INT8 else 4, "modules_in_block_to_quantize": None}
    quantised = {weight.name for weight in _quantised(config)}
    whole = [w.name.removesuffix(".weight") for w in _weights(config) if w.linear and w.name not in quantised]
    if stored is WeightFormat.FP8_BLOCK:
        fp8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3", "weight_block_size": [128, 128]}
        return {**fp8, "modules_to_not_convert": whole}
    four = stored is WeightFormat.W4A16
    group = {
        "targets": ["Linear"],
        "weights": _GROUPED_INT4 if four else _CHANNEL_FP8,
        "input_activations": None if four else _TOKEN_FP8,
        "output_activations": None,
    }
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized" if four else "float-quantized",
        "quantization_status": "compressed",
        "config_groups": {"group_0": group},
        "ignore": whole,
    }


def _weights(config: Mapping[str, Any]) -> Iterator[Weight]:
    """Of the model that is on disk: experts one by one, no head where it is tied."""
    for weight in expected(dict(config), KNOWN_FAMILIES[config["model_type"]]):
        if ".experts." in weight.name:
            yield from separate_experts(weight)
        elif not weight.optional:
            yield weight


def _quantised(config: Mapping[str, Any]) -> Iterator[Weight]:
    for weight in _weights(config):
        if weight.linear and part_of(weight.name) is Part.LANGUAGE and not weight.name.endswith(".mlp.gate.weight"):
            yield weight
