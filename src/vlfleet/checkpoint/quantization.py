"""How weights are quantised, told by the names, dtypes and shapes in the headers, never by the folder's name. Pure.

Layouts, for a linear layer [out, inputs] of b bits in groups of g inputs. Sources: AutoAWQ's WQLinear_GEMM, AutoGPTQ's
and GPTQModel's QuantLinear, compressed-tensors' compressors, transformers' finegrained_fp8 and bitsandbytes.
  AWQ GEMM       qweight I32 [inputs, out*b/32], qzeros I32 [inputs/g, out*b/32], scales [inputs/g, out]
  GPTQ           qweight I32 [inputs*b/32, out], qzeros I32 [inputs/g, out*b/32], scales [inputs/g, out], g_idx [inputs]
  pack-quantized weight_packed I32 [out, inputs*b/32], weight_scale [out, inputs/g], weight_shape [2],
                 weight_zero_point I32 [out*b/32, inputs/g] when not symmetric
  FP8, INT8      weight [out, inputs], weight_scale [out, 1] or [1]; in blocks weight_scale_inv [out/128, inputs/128]
  bitsandbytes   weight U8 [out*inputs/2, 1], weight.absmax, weight.quant_state.*; eight bits: weight I8, SCB [out]
"""

from __future__ import annotations

import enum
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace

from vlfleet.checkpoint.headers import BITS, Tensor
from vlfleet.checkpoint.layout import Part, part_of

BNB_BLOCK = 64
"""Weights that share a scale in bitsandbytes 4-bit, counted through the rows (its blocksize)."""


class Format(enum.StrEnum):
    """How the numbers lie in the file."""

    AWQ = "AWQ GEMM"
    GPTQ = "GPTQ"
    PACKED = "pack-quantized"
    FP8 = "FP8"
    INT8 = "INT8"
    BNB_4BIT = "bitsandbytes 4-bit"
    BNB_8BIT = "bitsandbytes 8-bit"


class Strategy(enum.StrEnum):
    """How many weights share a scale."""

    GROUP = "group"
    CHANNEL = "channel"
    TENSOR = "tensor"
    BLOCK = "block"


@dataclass(frozen=True)
class Scheme:
    """How one linear layer is stored."""

    format: Format
    bits: int
    strategy: Strategy
    group_size: int = 0
    """Inputs that share a scale, for `GROUP`."""
    block: tuple[int, int] = (0, 0)
    """Outputs and inputs that share a scale, for `BLOCK`."""
    symmetric: bool | None = None
    """None: the headers do not tell (GPTQ)."""
    desc_act: bool | None = None
    """GPTQ's order of inputs by activation. None: the headers do not tell."""

    def __str__(self) -> str:
        shared = {
            Strategy.GROUP: f"groups of {self.group_size}",
            Strategy.CHANNEL: "one scale a channel",
            Strategy.TENSOR: "one scale a tensor",
            Strategy.BLOCK: f"blocks of {self.block[0]} x {self.block[1]}",
        }[self.strategy]
        zero = {True: ", symmetric", False: ", asymmetric", None: ""}[self.symmetric]
        return f"{self.format}, {self.bits} bits, {shared}{zero}{', desc_act' if self.desc_act else ''}"


@dataclass(frozen=True)
class Module:
    """A quantised linear layer."""

    name: str
    """On the hub, without `.weight`."""
    scheme: Scheme
    out_features: int
    in_features: int

    @property
    def part(self) -> Part:
        return part_of(f"{self.name}.weight")


@dataclass(frozen=True)
class Quantization:
    """What is quantised in a checkpoint, and how."""

    modules: tuple[Module, ...]

    @property
    def scheme(self) -> Scheme:
        """That of most layers."""
        return Counter(module.scheme for module in self.modules).most_common(1)[0][0]

    @property
    def schemes(self) -> tuple[Scheme, ...]:
        """Every scheme that occurs, the most frequent first."""
        return tuple(scheme for scheme, _ in Counter(module.scheme for module in self.modules).most_common())

    @property
    def parts(self) -> tuple[Part, ...]:
        """Parts of the model that hold a quantised layer."""
        return tuple(part for part in Part if any(module.part is part for module in self.modules))


_SUFFIXES = (
    "qweight", "qzeros", "scales", "g_idx", "weight_packed", "weight_scale", "weight_shape", "weight_zero_point",
    "weight_g_idx", "weight_scale_inv", "input_scale", "SCB", "weight",
)  # fmt: skip
AUXILIARY = frozenset(_SUFFIXES) - {"weight"}
"""Last parts of names that belong to quantisation alone."""
_BNB_STATE = (".weight.absmax", ".weight.quant_map", ".weight.nested_absmax", ".weight.nested_quant_map")
_BNB_QUANT_STATE = ".weight.quant_state.bitsandbytes__"
_WIDE = ("F8_E4M3", "F8_E5M2", "I8")


def owner(name: str) -> tuple[str, str]:
    """The module that the tensor belongs to, and what of it the tensor is: ("...mlp.up_proj", "qweight")."""
    if _BNB_QUANT_STATE in name:
        return name.partition(_BNB_QUANT_STATE)[0], "quant_state"
    for suffix in _BNB_STATE:
        if name.endswith(suffix):
            return name.removesuffix(suffix), suffix.rpartition(".")[2]
    module, _, last = name.rpartition(".")
    return (module, last) if last in _SUFFIXES else (name, "")


def detect(tensors: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> Quantization | None:
    """What the headers say; None when no layer is quantised.

    `tensors` by their names on the hub; `expected` are the shapes of the model's weights, by which the two formats are
    read that do not tell their own (pack-quantized its bits, bitsandbytes its shape).
    """
    modules: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in tensors.items():
        module, kind = owner(name)
        modules[module][kind] = tensor
    looked = (_module(name, parts, expected.get(f"{name}.weight", ())) for name, parts in modules.items())
    found = [module for module in looked if module]
    return Quantization(_one_group(found)) if found else None


def _one_group(modules: list[Module]) -> tuple[Module, ...]:
    """A layer smaller than a group or a block looks as if its were smaller; its neighbours tell which they are."""
    groups = Counter(module.scheme.group_size for module in modules if module.scheme.strategy is Strategy.GROUP)
    blocks = Counter(module.scheme.block for module in modules if module.scheme.strategy is Strategy.BLOCK)
    group = max(groups, key=groups.__getitem__, default=0)
    block = max(blocks, key=blocks.__getitem__, default=(0, 0))
    return tuple(_as_neighbours(module, group, block) for module in modules)


def _as_neighbours(module: Module, group: int, block: tuple[int, int]) -> Module:
    scheme = module.scheme
    if scheme.strategy is Strategy.CHANNEL and module.in_features == group:
        return replace(module, scheme=replace(scheme, strategy=Strategy.GROUP, group_size=group))
    if scheme.strategy is Strategy.BLOCK:
        sides = zip((module.out_features, module.in_features), scheme.block, block, strict=True)
        if all(-(-side // own) == -(-side // other) for side, own, other in sides):
            return replace(module, scheme=replace(scheme, block=block))
    return module


def parameters_in(name: str, tensor: Tensor, modules: Mapping[str, Module]) -> int:
    """Numbers that the model computes with in this tensor: a packed weight's own, none of a scale or a zero point."""
    module, kind = owner(name)
    if module not in modules:
        return 0 if kind in AUXILIARY else tensor.elements
    found = modules[module]
    return found.out_features * found.in_features if kind in ("weight", "qweight", "weight_packed") else 0


def _module(name: str, parts: Mapping[str, Tensor], expected: tuple[int, ...]) -> Module | None:
    """None when it is not quantised, or in a way that is not known."""
    shapes = {kind: tensor.shape for kind, tensor in parts.items()}
    try:
        if "qweight" in parts:
            return _packed_int32(name, shapes)
        if "weight_packed" in parts:
            return _pack_quantized(name, shapes, expected)
        weight = parts.get("weight")
        if "quant_state" in parts or "absmax" in parts:
            return _bitsandbytes(name, weight, expected)
        if weight is not None and weight.dtype in _WIDE and len(weight.shape) == 2:
            return _eight_bits(name, weight, parts)
    except (KeyError, ValueError, ZeroDivisionError):
        return None
    return None


def _packed_int32(name: str, shapes: Mapping[str, tuple[int, ...]]) -> Module:
    """AWQ packs along the outputs, GPTQ along the inputs: only one of both fits the scales."""
    (rows, columns), (groups, out) = shapes["qweight"], shapes["scales"]
    if columns == out:  # GPTQ; 32 / bits inputs lie in each row
        bits = 32 * shapes["qzeros"][1] // out if "qzeros" in shapes else 32 * rows // shapes["g_idx"][0]
        inputs, symmetric, known = rows * 32 // bits, None, Format.GPTQ
    else:
        bits = 32 * columns // out
        inputs, symmetric, known = rows, "qzeros" not in shapes, Format.AWQ
    return Module(name, _grouped(known, bits, inputs, groups, symmetric), out, inputs)


def _pack_quantized(name: str, shapes: Mapping[str, tuple[int, ...]], expected: tuple[int, ...]) -> Module:
    (out, columns), scale = shapes["weight_packed"], shapes["weight_scale"]
    if "weight_zero_point" in shapes:
        bits = 32 * shapes["weight_zero_point"][0] // out
    else:  # rounded, since config.json may be a little off; four bits where it says nothing
        bits = min((2, 3, 4, 8), key=lambda each: abs(32 * columns / each - (expected or (out, 8 * columns))[-1]))
    inputs = columns * 32 // bits
    groups = scale[1] if len(scale) == 2 else 1
    scheme = _grouped(Format.PACKED, bits, inputs, groups, "weight_zero_point" not in shapes)
    return Module(name, scheme, out, inputs)


def _grouped(known: Format, bits: int, inputs: int, groups: int, symmetric: bool | None) -> Scheme:
    if groups == 1:
        return Scheme(known, bits, Strategy.CHANNEL, symmetric=symmetric)
    # A last group that is cut short makes the division come out a little small: sizes are powers of two.
    size = inputs // groups if inputs % groups == 0 else 1 << (inputs // groups).bit_length()
    return Scheme(known, bits, Strategy.GROUP, group_size=size, symmetric=symmetric)


def _eight_bits(name: str, weight: Tensor, parts: Mapping[str, Tensor]) -> Module | None:
    out, inputs = weight.shape
    if "SCB" in parts:
        return Module(name, Scheme(Format.BNB_8BIT, 8, Strategy.CHANNEL, symmetric=True), out, inputs)
    scale = parts.get("weight_scale_inv") or parts.get("weight_scale")
    if scale is None:
        return None
    known = Format.INT8 if weight.dtype == "I8" else Format.FP8
    symmetric = "weight_zero_point" not in parts
    if scale.elements == 1 and "weight_scale_inv" not in parts:
        scheme = Scheme(known, 8, Strategy.TENSOR, symmetric=symmetric)
    elif len(scale.shape) == 2 and (scale.shape[1] > 1 or "weight_scale_inv" in parts):
        block = (_block(out, scale.shape[0]), _block(inputs, scale.shape[1]))
        scheme = Scheme(known, 8, Strategy.BLOCK, block=block, symmetric=symmetric)
    else:
        scheme = Scheme(known, 8, Strategy.CHANNEL, symmetric=symmetric)
    return Module(name, scheme, out, inputs)


def _block(features: int, blocks: int) -> int:
    """The smallest power of two of which `blocks` cover `features`: the last one may be cut short."""
    at_least = -(-features // blocks)
    return 1 << (at_least - 1).bit_length()


def _bitsandbytes(name: str, weight: Tensor | None, expected: tuple[int, ...]) -> Module | None:
    """The header says how many elements there are; which shape they have stands in the data of quant_state."""
    if weight is None:
        return None
    elements = weight.elements * BITS[weight.dtype] // 4
    out, inputs = expected if len(expected) == 2 and expected[0] * expected[1] == elements else (elements, 1)
    scheme = Scheme(Format.BNB_4BIT, 4, Strategy.GROUP, group_size=BNB_BLOCK, symmetric=True)
    return Module(name, scheme, out, inputs)
