"""How a linear layer is stored in each format, and which bytes mean zero in it.

Padding needs no arithmetic on weights: the size of each axis follows from the layer's, and what is new is a constant
that dequantises to exactly 0 (weights) or disturbs nothing (a scale of 1). Sources: the packing of AutoAWQ
(WQLinear_GEMM), AutoGPTQ (QuantLinear, v1 and v2), compressed-tensors (pack_to_int32, quantize) and the FP8 checkpoints
of DeepSeek and Qwen (weight_scale_inv), as vLLM's create_weights reads them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from vlfleet.checkpoint.headers import BITS, Tensor
from vlfleet.checkpoint.pad_scheme import REQUANTISE, Scheme
from vlfleet.checkpoint.writer import Planned, constant, copied, grown
from vlfleet.errors import VlfleetError

ONE = {
    "F16": b"\x00\x3c",
    "BF16": b"\x80\x3f",
    "F32": b"\x00\x00\x80\x3f",
    "F8_E8M0": b"\x7f",
}
"""1.0, little-endian. F8_E8M0 holds the exponent alone, with a bias of 127 (OCP Microscaling formats 1.0)."""


@dataclass(frozen=True)
class Linear:
    """The tensors of one layer y = x W, by the last part of their names."""

    name: str
    outputs: int
    inputs: int
    tensors: Mapping[str, Tensor]


@dataclass(frozen=True)
class Axis:
    """What an axis counts: outputs or inputs, one by one, as many as fit an int32, or in groups with a common scale."""

    dim: str
    by: str = "one"


@dataclass(frozen=True)
class Part:
    """One tensor of a format. `fill` gives a new element, from its dtype, the bits of a packed value and the scheme."""

    axes: tuple[Axis, ...]
    fill: Callable[[str, int, Scheme], bytes]


def _zero(dtype: str, bits: int, scheme: Scheme) -> bytes:
    return bytes(BITS[dtype] // 8)


def _one(dtype: str, bits: int, scheme: Scheme) -> bytes:
    return ONE[dtype]


def _packed(value: int, bits: int) -> bytes:
    return struct.pack("<I", sum(value << shift for shift in range(0, 32, bits)))


def _middle(dtype: str, bits: int, scheme: Scheme) -> bytes:
    return _packed(1 << (bits - 1), bits)


def _stored_zero(dtype: str, bits: int, scheme: Scheme) -> bytes:
    return _packed((1 << (bits - 1)) - scheme.zero_shift, bits)


_OUT, _IN = Axis("outputs"), Axis("inputs")
_OUT_PACKED, _IN_PACKED = Axis("outputs", "packed"), Axis("inputs", "packed")
_OUT_BLOCK, _IN_GROUP = Axis("outputs", "group"), Axis("inputs", "group")
_BIAS = {"bias": Part((_OUT,), _zero)}
PLAIN = {"weight": Part((_OUT, _IN), _zero)} | _BIAS
AWQ = {
    "qweight": Part((_IN, _OUT_PACKED), _middle),
    "qzeros": Part((_IN_GROUP, _OUT_PACKED), _middle),
    "scales": Part((_IN_GROUP, _OUT), _one),
} | _BIAS
GPTQ = {
    "qweight": Part((_IN_PACKED, _OUT), _middle),
    "qzeros": Part((_IN_GROUP, _OUT_PACKED), _stored_zero),
    "scales": Part((_IN_GROUP, _OUT), _one),
    "g_idx": Part((_IN,), _zero),
} | _BIAS
PACKED = {
    "weight_packed": Part((_OUT, _IN_PACKED), _middle),
    "weight_scale": Part((_OUT, _IN_GROUP), _one),
    "weight_zero_point": Part((_OUT_PACKED, _IN_GROUP), _middle),
    "weight_shape": Part((), _zero),
} | _BIAS
SCALED = {
    "weight": Part((_OUT, _IN), _zero),
    "weight_scale": Part((_OUT_BLOCK, _IN_GROUP), _one),
    "weight_scale_inv": Part((_OUT_BLOCK, _IN_GROUP), _one),
    "weight_zero_point": Part((_OUT_BLOCK, _IN_GROUP), _zero),
    "input_scale": Part((), _zero),
    "input_zero_point": Part((), _zero),
} | _BIAS
FORMATS = {"plain": PLAIN, "awq": AWQ, "gptq": GPTQ, "packed": PACKED, "scaled": SCALED}


def format_of(linear: Linear, scheme: Scheme) -> str:
    """A key of FORMATS, from the tensors that are there.

    Raises:
        VlfleetError: none of them.
    """
    names = set(linear.tensors)
    if "qweight" in names:
        name = "awq" if scheme.awq_layout else "gptq"
    elif "weight_packed" in names:
        name = "packed"
    else:
        name = "plain" if names <= set(PLAIN) else "scaled"
    needed = {"awq": "scales", "gptq": "scales", "packed": "weight_scale"}.get(name, "weight")
    if needed not in names:
        raise VlfleetError(f"{linear.name} has no {needed}", "download the checkpoint again")
    for unknown in sorted(names - set(FORMATS[name])):
        raise VlfleetError(f"{linear.name}.{unknown} belongs to no format that pad knows", REQUANTISE)
    dtype = linear.tensors["weight"].dtype if name in ("plain", "scaled") else "I32"
    if (name == "plain" and dtype not in ONE) or (name == "scaled" and BITS.get(dtype) != 8):
        raise VlfleetError(f"{linear.name}.weight of dtype {dtype} belongs to no format that pad knows", REQUANTISE)
    return name


def grow(linear: Linear, scheme: Scheme, outputs: int, inputs: int) -> list[Planned]:
    """Its tensors with so many outputs and inputs; what is new dequantises to 0.

    Raises:
        VlfleetError: a tensor's shape is not what the layer's size says, or new inputs would get the zero point of old
            ones.
    """
    parts = FORMATS[format_of(linear, scheme)]
    planned = [_grow(linear, tensor, parts[name], scheme, outputs, inputs) for name, tensor in linear.tensors.items()]
    if inputs > linear.inputs:
        _check_zero_points(linear, scheme)
    return planned


def _grow(linear: Linear, tensor: Tensor, part: Part, scheme: Scheme, outputs: int, inputs: int) -> Planned:
    name = tensor.name.rpartition(".")[2]
    if name == "weight_shape":
        return constant(tensor, struct.pack("<2q" if tensor.dtype == "I64" else "<2i", outputs, inputs))
    if not part.axes or (len(tensor.shape) < 2 and tensor.elements <= 1):
        return copied(tensor)  # one scale, or zero point, for the whole layer
    new = {"outputs": outputs, "inputs": inputs}
    if len(tensor.shape) != len(part.axes):
        raise _misshapen(linear, tensor)
    for number, (axis, size) in enumerate(zip(part.axes, tensor.shape, strict=True)):
        per = _per(linear, tensor, axis, size, scheme)
        wanted = -(-new[axis.dim] // per) if per else size
        if wanted > size:
            if name == "g_idx":
                return grown(tensor, 0, wanted, _group_indices(linear, scheme, wanted))
            return grown(tensor, number, wanted, part.fill(tensor.dtype, _bits(linear, tensor, part), scheme))
    return copied(tensor)


def _per(linear: Linear, tensor: Tensor, axis: Axis, size: int, scheme: Scheme) -> int:
    """How many outputs or inputs one element along this axis stands for; 0: all, however many there are."""
    dim: int = getattr(linear, axis.dim)
    if axis.by == "one" and size == dim:
        return 1
    if axis.by == "packed" and size and dim % size == 0 and dim // size in (4, 8, 16):
        return dim // size
    if axis.by == "group" and size:
        for known in scheme.groups if axis.dim == "inputs" else scheme.blocks:
            if -(-dim // known) == size:
                return known
        if size == 1:
            return 0
        if dim % size == 0:
            return dim // size
    raise _misshapen(linear, tensor)


def _bits(linear: Linear, tensor: Tensor, part: Part) -> int:
    for axis, size in zip(part.axes, tensor.shape, strict=True):
        if axis.by == "packed":
            return 32 * size // int(getattr(linear, axis.dim))
    return 0


def _group_indices(linear: Linear, scheme: Scheme, inputs: int) -> bytes:
    """g_idx of the new inputs, int32: they go on counting groups."""
    group = _per(linear, linear.tensors["scales"], _IN_GROUP, linear.tensors["scales"].shape[0], scheme) or inputs
    return b"".join(struct.pack("<i", number // group) for number in range(linear.inputs, inputs))


def _check_zero_points(linear: Linear, scheme: Scheme) -> None:
    """An input that joins a group which exists takes its zero point; only a symmetric format makes that a constant."""
    found = next((linear.tensors[name] for name in ("qzeros", "weight_zero_point") if name in linear.tensors), None)
    if scheme.symmetric or found is None:
        return
    size = 1 if len(found.shape) < 2 else found.shape["qzeros" not in linear.tensors]
    per = _per(linear, found, _IN_GROUP, size, scheme)
    if not per or linear.inputs % per:
        cause = f"{linear.name} has {linear.inputs} inputs in groups of {per or 'all'} with zero points of their own"
        raise VlfleetError(f"{cause}: none is free for new inputs", REQUANTISE)


def _misshapen(linear: Linear, tensor: Tensor) -> VlfleetError:
    cause = f"{tensor.name} has the shape {list(tensor.shape)}, which is none of {linear.inputs} inputs and"
    remedy = "put config.json back as it came: a changed intermediate_size drops neurons or breaks the shapes"
    return VlfleetError(f"{cause} {linear.outputs} outputs", remedy)
