"""Quantised layers and checkpoints for tests, by definition: rounding to nearest, and packing element by element.

Written from the formats' descriptions, not from the code under test, and slow on purpose where that is clearer.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from tests.checkpoints import COPIED, DEMO_MODEL

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""Nibble k of an int32 holds output AWQ_ORDER[k] of its eight (AutoAWQ, WQLinear_GEMM.from_linear)."""
LINEAR = re.compile(r"(.*\blayers\.\d+\.(?:self_attn\.[qkvo]|mlp\.(?:gate|up|down))_proj)\.weight$")


def pack(values: Tensor, bits: int, axis: int, order: tuple[int, ...] = ()) -> Tensor:
    """Unsigned `values` [rows, columns]; 32/bits neighbours along `axis` become an int32, the first in its low bits."""
    count = 32 // bits
    values = values.movedim(axis, -1).long()
    values = values.reshape(*values.shape[:-1], -1, count)
    words = torch.zeros(values.shape[:-1], dtype=torch.long)
    for place, number in enumerate(order or range(count)):
        words |= values[..., number] << (bits * place)
    return torch.where(words >= 1 << 31, words - (1 << 32), words).int().movedim(-1, axis).contiguous()


def unpack(words: Tensor, bits: int, axis: int, order: tuple[int, ...] = ()) -> Tensor:
    """The inverse of `pack`, as int64."""
    count = 32 // bits
    words = words.movedim(axis, -1).long() & 0xFFFFFFFF
    values = torch.zeros((*words.shape, count), dtype=torch.long)
    for place, number in enumerate(order or range(count)):
        values[..., number] = (words >> (bits * place)) & ((1 << bits) - 1)
    return values.flatten(-2).movedim(-1, axis)


@dataclass(frozen=True)
class Format:
    """How a linear layer is stored. `group`: inputs with a common scale, -1 for all of them."""

    name: str
    bits: int = 4
    group: int = 128
    symmetric: bool = True

    @property
    def awq(self) -> bool:
        return self.name == "awq"

    def config(self) -> dict[str, Any] | None:
        """quantization_config of config.json, as the tool that writes this format does."""
        if self.name == "awq":
            config: dict[str, Any] = {"bits": self.bits, "group_size": self.group, "quant_method": "awq"}
            return config | {"version": "gemm", "zero_point": True, "modules_to_not_convert": ["visual"]}
        if self.name.startswith("gptq"):
            config = {"bits": self.bits, "group_size": self.group, "sym": self.symmetric, "desc_act": False}
            return config | {"quant_method": "gptq", "checkpoint_format": self.name, "true_sequential": True}
        if self.name == "fp8_block":
            return {"quant_method": "fp8", "weight_block_size": [self.group] * 2, "activation_scheme": "dynamic"}
        if self.name == "plain":
            return None
        weights: dict[str, Any] = {
            "num_bits": self.bits,
            "symmetric": self.symmetric,
            "dynamic": False,
            "actorder": None,
        }
        if self.name == "packed":
            weights |= {"type": "int", "strategy": "group", "group_size": self.group}
        else:
            weights |= {"type": "int" if self.name == "int8" else "float", "strategy": "channel", "num_bits": 8}
        layout = {"packed": "pack-quantized", "int8": "int-quantized", "fp8": "float-quantized"}[self.name]
        group = {"targets": ["Linear"], "weights": weights, "input_activations": None}
        config = {"quant_method": "compressed-tensors", "format": layout, "config_groups": {"group_0": group}}
        return config | {"ignore": ["lm_head", "re:visual.*"], "quantization_status": "compressed"}

    def quantise(self, weight: Tensor, scale_dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
        """`weight` [outputs, inputs] as the tensors of this format, by the last part of their names."""
        if self.name == "plain":
            return {"weight": weight}
        if self.name == "fp8_block":
            return self._blocks(weight.float())
        if self.name in ("fp8", "int8"):
            top = 448.0 if self.name == "fp8" else 127.0
            scale = weight.float().abs().amax(1, keepdim=True).clamp(min=1e-6) / top
            scaled = weight.float() / scale
            stored = scaled.to(torch.float8_e4m3fn) if self.name == "fp8" else scaled.round().to(torch.int8)
            return {"weight": stored, "weight_scale": scale}
        return self._packed(weight.float(), scale_dtype)

    def dequantise(self, stored: dict[str, Tensor]) -> Tensor:
        """Back to [outputs, inputs], float64."""
        if self.name == "plain":
            return stored["weight"].double()
        if self.name == "fp8_block":
            scale = stored["weight_scale_inv"].double()
            scale = scale.repeat_interleave(self.group, 0).repeat_interleave(self.group, 1)
            weight = stored["weight"].double()
            return weight * scale[: weight.shape[0], : weight.shape[1]]
        if self.name in ("fp8", "int8"):
            return stored["weight"].double() * stored["weight_scale"].double()
        values, zeros, scales = self._unpacked(stored)
        group = self.group if self.group > 0 else values.shape[1]
        groups = torch.arange(values.shape[1]) // group
        if "g_idx" in stored:
            groups = stored["g_idx"].long()
        return (values - zeros[:, groups]).double() * scales.double()[:, groups]

    def part(self, stored: dict[str, Tensor], dim: str, tp: int, rank: int) -> dict[str, Tensor]:
        """What vLLM gives rank `rank` of `tp`: an even cut along "outputs" or "inputs" of every tensor that has them.

        Raises:
            ValueError: a tensor cannot be cut evenly.
        """
        return {name: self._cut(name, tensor, dim, tp, rank) for name, tensor in stored.items()}

    def _cut(self, name: str, tensor: Tensor, dim: str, tp: int, rank: int) -> Tensor:
        by_inputs = name in ("qweight", "qzeros", "scales")  # [inputs, outputs]; the others are [outputs, inputs]
        axis = (dim == "outputs") if by_inputs else (dim == "inputs")
        whole = tensor.ndim == 2 and tensor.shape[axis] == 1  # one scale for all inputs
        if name == "weight_shape" or (name == "g_idx" and dim == "outputs") or (whole and dim == "inputs"):
            return tensor
        size, rest = divmod(tensor.shape[0 if tensor.ndim == 1 else axis], tp)
        if rest:
            raise ValueError(f"{name} {list(tensor.shape)} cannot be cut for {tp}")
        cut = tensor.narrow(0 if tensor.ndim == 1 else int(axis), rank * size, size)
        return cut - cut.min() if name == "g_idx" else cut

    def _packed(self, weight: Tensor, scale_dtype: torch.dtype) -> dict[str, Tensor]:
        outputs, inputs = weight.shape
        group = self.group if self.group > 0 else inputs
        middle, top = 1 << (self.bits - 1), (1 << self.bits) - 1
        grouped = weight.reshape(outputs, -1, group)
        if self.symmetric:
            scales = (grouped.abs().amax(2).clamp(min=1e-6) / (middle - 1)).to(scale_dtype)
            zeros = torch.full(scales.shape, middle)
        else:
            low, high = grouped.amin(2).clamp(max=0), grouped.amax(2).clamp(min=0)
            scales = ((high - low).clamp(min=1e-6) / top).to(scale_dtype)
            zeros = (-low / scales.float()).round().clamp(0, top).long()
        values = (grouped / scales.float()[..., None]).round().long() + zeros[..., None]
        values = values.clamp(0, top).flatten(1)
        if self.awq:
            qweight, qzeros = (pack(part.T, self.bits, 1, AWQ_ORDER) for part in (values, zeros))
            return {"qweight": qweight, "qzeros": qzeros, "scales": scales.T.contiguous()}
        if self.name.startswith("gptq"):
            stored_zeros = zeros - (0 if self.name == "gptq_v2" else 1)
            return {
                "qweight": pack(values.T, self.bits, 0),
                "qzeros": pack(stored_zeros.T & top, self.bits, 1),
                "scales": scales.T.contiguous(),
                "g_idx": (torch.arange(inputs) // group).int(),
            }
        packed = {"weight_packed": pack(values, self.bits, 1), "weight_scale": scales}
        packed["weight_shape"] = torch.tensor([outputs, inputs])
        return packed if self.symmetric else packed | {"weight_zero_point": pack(zeros, self.bits, 0)}

    def _unpacked(self, stored: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Values [outputs, inputs], zero points and scales [outputs, groups]."""
        if self.awq:
            values, zeros = (unpack(stored[name], self.bits, 1, AWQ_ORDER).T for name in ("qweight", "qzeros"))
            return values, zeros, stored["scales"].T
        if self.name.startswith("gptq"):
            zeros = unpack(stored["qzeros"], self.bits, 1).T + (0 if self.name == "gptq_v2" else 1)
            return unpack(stored["qweight"], self.bits, 0).T, zeros & ((1 << self.bits) - 1), stored["scales"].T
        values, scales = unpack(stored["weight_packed"], self.bits, 1), stored["weight_scale"]
        if "weight_zero_point" in stored:
            return values, unpack(stored["weight_zero_point"], self.bits, 0), scales
        return values, torch.full(scales.shape, 1 << (self.bits - 1)), scales

    def _blocks(self, weight: Tensor) -> dict[str, Tensor]:
        outputs, inputs = weight.shape
        rows, columns = -(-outputs // self.group), -(-inputs // self.group)
        scales, stored = torch.ones(rows, columns), torch.zeros(outputs, inputs)
        for row in range(rows):
            for column in range(columns):
                place = (
                    slice(row * self.group, (row + 1) * self.group),
                    slice(column * self.group, (column + 1) * self.group),
                )
                scales[row, column] = weight[place].abs().max().clamp(min=1e-6) / 448
                stored[place] = weight[place] / scales[row, column]
        return {"weight": stored.to(torch.float8_e4m3fn), "weight_scale_inv": scales}


def quantise_checkpoint(source: Path, target: Path, form: Format) -> Path:
    """Every linear layer of the language model in `form`, everything else as it is; `target` is made and returned."""
    target.mkdir(parents=True)
    for name in COPIED:
        shutil.copy(source / name, target / name)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = form.config()
    (target / "config.json").write_text(json.dumps(config), encoding="utf-8")
    tensors: dict[str, Tensor] = {}
    with safe_open(source / "model.safetensors", "pt") as shard:
        for name in shard.keys():  # noqa: SIM118 - it is no dictionary
            tensor = shard.get_tensor(name)
            if match := LINEAR.match(name):
                tensors |= {f"{match[1]}.{part}": stored for part, stored in form.quantise(tensor).items()}
            else:
                tensors[name] = tensor
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    return target


def write_mlp_checkpoint(folder: Path, form: Format, layers: dict[str, dict[str, Tensor]], **config: Any) -> Path:
    """The smallest folder that passes for a checkpoint: one layer with the MLP `layers`, by projection, and no more."""
    folder.mkdir(parents=True)
    for name in COPIED:
        shutil.copy(DEMO_MODEL / name, folder / name)
    base = json.loads((DEMO_MODEL / "config.json").read_text(encoding="utf-8"))
    base |= {"num_hidden_layers": 1, "vision_config": {**base["vision_config"], "depth": 1}, **config}
    if (quantization := form.config()) is not None:
        base["quantization_config"] = quantization
    (folder / "config.json").write_text(json.dumps(base), encoding="utf-8")
    tensors = {
        f"model.layers.0.mlp.{layer}.{name}": tensor
        for layer, stored in layers.items()
        for name, tensor in stored.items()
    }
    tensors["visual.blocks.0.norm1.weight"] = torch.ones(3, dtype=torch.bfloat16)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
