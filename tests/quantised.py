"""Shapes of quantised releases, written down from published files and not from vlfleet's own tables."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from tests.published import Shapes

LANGUAGE_LINEAR = re.compile(r"\.layers\.\d+\.(self_attn|mlp)\.\w+_proj\.weight$")


def awq(name: str, out: int, inputs: int, group: int = 128) -> Shapes:
    """Qwen2.5-VL-72B-Instruct-AWQ, down_proj: qweight [29696, 1024], qzeros [232, 1024], scales [232, 8192]."""
    return {
        f"{name}.qweight": ("I32", (inputs, out // 8)),
        f"{name}.qzeros": ("I32", (inputs // group, out // 8)),
        f"{name}.scales": ("F16", (inputs // group, out)),
    }


def gptq(name: str, out: int, inputs: int, group: int = 128, bits: int = 4) -> Shapes:
    """Qwen2-VL-7B-Instruct-GPTQ-Int4, gate_proj: qweight [448, 18944], qzeros [28, 2368], g_idx [3584]."""
    return {
        f"{name}.qweight": ("I32", (inputs * bits // 32, out)),
        f"{name}.qzeros": ("I32", (inputs // group, out * bits // 32)),
        f"{name}.scales": ("F16", (inputs // group, out)),
        f"{name}.g_idx": ("I32", (inputs,)),
    }


def packed(name: str, out: int, inputs: int, group: int = 128, bits: int = 4, symmetric: bool = True) -> Shapes:
    """llm-compressor's W4A16: weight_packed [out, in/8], weight_scale [out, in/128], weight_shape [2]."""
    tensors: Shapes = {
        f"{name}.weight_packed": ("I32", (out, inputs * bits // 32)),
        f"{name}.weight_scale": ("BF16", (out, inputs // group)),
        f"{name}.weight_shape": ("I64", (2,)),
    }
    if not symmetric:
        tensors[f"{name}.weight_zero_point"] = ("I32", (out * bits // 32, inputs // group))
    return tensors


def fp8_block(name: str, out: int, inputs: int, block: int = 128) -> Shapes:
    """Qwen3-VL-8B-Instruct-FP8: weight F8_E4M3, weight_scale_inv a number a block of 128 x 128."""
    blocks = (-(-out // block), -(-inputs // block))
    return {f"{name}.weight": ("F8_E4M3", (out, inputs)), f"{name}.weight_scale_inv": ("BF16", blocks)}


def fp8_channel(name: str, out: int, inputs: int) -> Shapes:
    """llm-compressor's FP8_DYNAMIC."""
    return {f"{name}.weight": ("F8_E4M3", (out, inputs)), f"{name}.weight_scale": ("BF16", (out, 1))}


def fp8_tensor(name: str, out: int, inputs: int) -> Shapes:
    """AutoFP8's static scheme."""
    scales: Shapes = {f"{name}.weight_scale": ("F32", (1,)), f"{name}.input_scale": ("F32", (1,))}
    return {f"{name}.weight": ("F8_E4M3", (out, inputs)), **scales}


def int8(name: str, out: int, inputs: int) -> Shapes:
    """llm-compressor's W8A8."""
    return {f"{name}.weight": ("I8", (out, inputs)), f"{name}.weight_scale": ("BF16", (out, 1))}


def nf4(name: str, out: int, inputs: int) -> Shapes:
    """transformers with bitsandbytes, double quantisation."""
    return {
        f"{name}.weight": ("U8", (out * inputs // 2, 1)),
        f"{name}.weight.absmax": ("U8", (out * inputs // 64,)),
        f"{name}.weight.quant_map": ("F32", (16,)),
        f"{name}.weight.nested_absmax": ("F32", (-(-out * inputs // 64 // 256),)),
        f"{name}.weight.nested_quant_map": ("F32", (256,)),
        f"{name}.weight.quant_state.bitsandbytes__nf4": ("U8", (104,)),
    }


def bnb_int8(name: str, out: int, inputs: int) -> Shapes:
    """transformers with load_in_8bit."""
    return {f"{name}.weight": ("I8", (out, inputs)), f"{name}.SCB": ("F32", (out,))}


def replace_linear(tensors: Shapes, layout: Callable[..., Shapes], **options: Any) -> Shapes:
    """`tensors` with the language model's linear layers in `layout`, everything else as it is."""
    quantised: Shapes = {}
    for name, tensor in tensors.items():
        if LANGUAGE_LINEAR.search(name):
            quantised |= layout(name.removesuffix(".weight"), *tensor[1], **options)
        else:
            quantised[name] = tensor
    return quantised


CONFIGS: dict[str, dict[str, Any]] = {
    "awq": {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm", "zero_point": True,
            "modules_to_not_convert": ["visual"]},
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True, "desc_act": False,
             "true_sequential": True, "damp_percent": 0.1},
    "packed": {"quant_method": "compressed-tensors", "format": "pack-quantized", "ignore": ["re:.*visual.*"],
               "config_groups": {"group_0": {"targets": ["Linear"], "weights": {
                   "num_bits": 4, "group_size": 128, "strategy": "group", "symmetric": True, "type": "int"}}}},
    "fp8_block": {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic",
                  "weight_block_size": [128, 128]},
    "fp8_channel": {"quant_method": "compressed-tensors", "format": "float-quantized",
                    "config_groups": {"group_0": {"targets": ["Linear"], "weights": {
                        "num_bits": 8, "strategy": "channel", "symmetric": True, "type": "float"}}}},
    "fp8_tensor": {"quant_method": "fp8", "activation_scheme": "static"},
    "int8": {"quant_method": "compressed-tensors", "format": "int-quantized",
             "config_groups": {"group_0": {"targets": ["Linear"], "weights": {
                 "num_bits": 8, "strategy": "channel", "symmetric": True, "type": "int"}}}},
    "nf4": {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "bnb_int8": {"quant_method": "bitsandbytes", "load_in_8bit": True},
}  # fmt: skip
"""quantization_config of each, as the tools write it."""
LAYOUTS: dict[str, Callable[..., Shapes]] = {
    "awq": awq,
    "gptq": gptq,
    "packed": packed,
    "fp8_block": fp8_block,
    "fp8_channel": fp8_channel,
    "fp8_tensor": fp8_tensor,
    "int8": int8,
    "nf4": nf4,
    "bnb_int8": bnb_int8,
}
