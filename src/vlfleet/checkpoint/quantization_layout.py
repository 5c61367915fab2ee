"""The tensors in which a quantised linear layer must be stored, with their shapes. Pure; sources: quantization.py."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vlfleet.checkpoint.quantization import Format, Scheme, Strategy

FLOATS = ("F16", "BF16", "F32")


@dataclass(frozen=True)
class Stored:
    """One tensor of the file."""

    suffix: str
    """After the layer's name and a dot."""
    dtypes: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    """Any of these; empty: whatever it has."""
    optional: bool = False


def stored(scheme: Scheme, out: int, inputs: int) -> list[Stored]:
    """What stands in the file for a layer of `out` outputs and `inputs` inputs, its bias aside."""
    return list(_LAYOUTS[scheme.format](scheme, out, inputs))


def _groups(scheme: Scheme, inputs: int) -> int:
    return -(-inputs // scheme.group_size) if scheme.strategy is Strategy.GROUP else 1


def _words(count: int, bits: int) -> int:
    """32-bit words that hold `count` numbers."""
    return -(-count * bits // 32)


def _awq(scheme: Scheme, out: int, inputs: int) -> Iterator[Stored]:
    groups, columns = _groups(scheme, inputs), _words(out, scheme.bits)
    yield Stored("qweight", ("I32",), ((inputs, columns),))
    yield Stored("qzeros", ("I32",), ((groups, columns),), optional=scheme.symmetric is True)
    yield Stored("scales", FLOATS, ((groups, out),))


def _gptq(scheme: Scheme, out: int, inputs: int) -> Iterator[Stored]:
    groups = _groups(scheme, inputs)
    yield Stored("qweight", ("I32",), ((_words(inputs, scheme.bits), out),))
    yield Stored("qzeros", ("I32",), ((groups, _words(out, scheme.bits)),))
    yield Stored("scales", FLOATS, ((groups, out),))
    yield Stored("g_idx", ("I32",), ((inputs,),), optional=True)
    yield Stored("bias", FLOATS, ((out,),), optional=True)  # AutoGPTQ writes zeros where the model has none


def _packed(scheme: Scheme, out: int, inputs: int) -> Iterator[Stored]:
    groups = _groups(scheme, inputs)
    yield Stored("weight_packed", ("I32",), ((out, _words(inputs, scheme.bits)),))
    yield Stored("weight_scale", FLOATS, ((out, groups),))
    yield Stored("weight_shape", ("I64", "I32"), ((2,),))
    if scheme.symmetric is False:
        yield Stored("weight_zero_point", ("I32",), ((_words(out, scheme.bits), groups),))
    yield Stored("weight_g_idx", ("I32",), ((inputs,),), optional=True)


def _eight_bits(scheme: Scheme, out: int, inputs: int) -> Iterator[Stored]:
    kinds = ("I8",) if scheme.format is Format.INT8 else ("F8_E4M3", "F8_E5M2")
    yield Stored("weight", kinds, ((out, inputs),))
    if scheme.strategy is Strategy.BLOCK:
        blocks = (-(-out // scheme.block[0]), -(-inputs // scheme.block[1]))
        yield Stored("weight_scale_inv", FLOATS, (blocks,), optional=True)
        yield Stored("weight_scale", FLOATS, (blocks,), optional=True)
    elif scheme.strategy is Strategy.CHANNEL:
        yield Stored("weight_scale", FLOATS, ((out, 1), (out,)))
    else:
        yield Stored("weight_scale", FLOATS, ((), (1,), (1, 1)))
    yield Stored("input_scale", FLOATS, ((), (1,), (1, 1)), optional=True)
    yield Stored("weight_zero_point", ("I8",), ((out, 1), (out,), (1,)), optional=True)


def _bnb_4bit(scheme: Scheme, out: int, inputs: int) -> Iterator[Stored]:
    elements = out * inputs
    yield Stored("weight", ("U8", "I8", *FLOATS), ((-(-elements // 2), 1), (elements // 4, 1), (elements // 8, 1)))
    for name in ("absmax", "quant_map", "nested_absmax", "nested_quant_map"):
        yield Stored(f"weight.{name}", ("U8", "F32"), (), optional=name != "absmax")
    for kind in ("nf4", "fp4"):
        yield Stored(f"weight.quant_state.bitsandbytes__{kind}", ("U8",), (), optional=True)


def _bnb_8bit(scheme: Scheme, out: int, inputs: int) -> Iterator[Stored]:
    yield Stored("weight", ("I8",), ((out, inputs),))
    yield Stored("SCB", ("F32",), ((out,),))
    yield Stored("weight_format", ("U8",), (), optional=True)


_LAYOUTS = {
    Format.AWQ: _awq,
    Format.GPTQ: _gptq,
    Format.PACKED: _packed,
    Format.FP8: _eight_bits,
    Format.INT8: _eight_bits,
    Format.BNB_4BIT: _bnb_4bit,
    Format.BNB_8BIT: _bnb_8bit,
}
