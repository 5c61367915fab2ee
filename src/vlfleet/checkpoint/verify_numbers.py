"""NaN, infinity and tensors that are nothing but zeros, found in raw bytes while a file is read in pieces.

As integers, NaN and infinity of every float format are the largest patterns of their sign: two maxima find them, at the
speed of memory, and bfloat16 and FP8 need no dtype of their own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from vlfleet.checkpoint.headers import Tensor
from vlfleet.checkpoint.verify_structure import Kind, Problem

LEAST_BAD = {
    "BF16": (2, 0x7F80),
    "F16": (2, 0x7C00),
    "F32": (4, 0x7F80_0000),
    "F64": (8, 0x7FF0_0000_0000_0000),
    "F8_E4M3": (1, 0x7F),
    "F8_E5M2": (1, 0x7C),
}
"""Bytes an element, and the smallest positive pattern that is infinite or NaN (IEEE 754; OCP FP8 E4M3 has no infinity).
With the sign bit set, the same patterns are bad."""
_WEIGHTS = ("weight", "qweight", "weight_packed", "gate_up_proj", "down_proj")
"""Last parts of the names of tensors that are never zero as a whole."""
_INTEGERS = {"I32": 4, "U8": 1, "I8": 1}
_SIGNED: dict[int, npt.DTypeLike] = {1: np.int8, 2: np.int16, 4: np.int32, 8: np.int64}
_UNSIGNED: dict[int, npt.DTypeLike] = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


@dataclass
class _Found:
    """What one tensor held so far."""

    bad: int = 0
    first: int = -1
    """Index of the first bad element, counted through the rows."""
    infinite: bool = True
    """Every bad element is infinite, none NaN."""
    all_zero: bool = True


@dataclass
class Scanner:
    """Looks at one shard. Its bytes are fed in order."""

    tensors: Sequence[Tensor]
    """By their place in the file."""
    _found: dict[str, _Found] = field(default_factory=dict)
    _next: int = 0
    _tail: bytes = b""

    def feed(self, offset: int, data: memoryview) -> None:
        """Bytes of the file from `offset` on; the next call goes on where this one ends."""
        end = offset + len(data)
        number = self._next
        while number < len(self.tensors) and self.tensors[number].start < end:
            tensor = self.tensors[number]
            if width := LEAST_BAD.get(tensor.dtype, (_INTEGERS.get(tensor.dtype, 0),))[0]:
                self._look(tensor, width, offset, data)
            if tensor.end <= end:
                self._next = number + 1
            number += 1
        self._tail = bytes(data[-8:])

    def problems(self) -> list[Problem]:
        """Of all that was fed."""
        tensors = {tensor.name: tensor for tensor in self.tensors}
        found = [(tensors[name], found) for name, found in self._found.items()]
        bad = [Problem(Kind.NUMBERS, tensor.name, _bad(tensor, state)) for tensor, state in found if state.bad]
        zeros = [Problem(Kind.ZEROS, tensor.name, _ZERO) for tensor, state in found if state.all_zero]
        return bad + zeros

    def _look(self, tensor: Tensor, width: int, offset: int, data: memoryview) -> None:
        """At the elements of `tensor` that end within `data`."""
        begin, end = max(tensor.start, offset), min(tensor.end, offset + len(data))
        found = self._found.get(tensor.name)
        if found is None:
            weight = len(tensor.shape) > 1 and tensor.name.endswith(_WEIGHTS)
            found = self._found[tensor.name] = _Found(all_zero=weight)
        cut = (begin - tensor.start) % width
        if cut:  # the piece before ended within an element
            whole = self._tail[-cut:] + bytes(data[begin - offset : begin - offset + width - cut])
            begin += width - cut
            if len(whole) == width:
                self._judge(tensor, width, (begin - tensor.start) // width - 1, memoryview(whole), found)
        count = (end - begin) // width
        if count > 0:
            start = begin - offset
            self._judge(tensor, width, (begin - tensor.start) // width, data[start : start + count * width], found)

    def _judge(self, tensor: Tensor, width: int, first: int, data: memoryview, found: _Found) -> None:
        bits: npt.NDArray[Any] = np.frombuffer(data, _UNSIGNED[width])
        largest = int(bits.max())
        found.all_zero = found.all_zero and largest == 0
        if tensor.dtype not in LEAST_BAD:
            return
        least, sign = LEAST_BAD[tensor.dtype][1], 1 << (8 * width - 1)
        if largest >= least and (largest >= least | sign or int(bits.view(_SIGNED[width]).max()) >= least):
            magnitude = bits & bits.dtype.type(sign - 1)
            bad = np.flatnonzero(magnitude >= least)
            found.first = first + int(bad[0]) if found.bad == 0 else found.first
            found.bad += len(bad)
            found.infinite = found.infinite and tensor.dtype != "F8_E4M3" and not bool((magnitude > least).any())


_ZERO = "is zero throughout, as in a file that was never filled: download it again"


def _bad(tensor: Tensor, found: _Found) -> str:
    """ "holds 3 NaN or infinite numbers, the first at [5, 7]" """
    index, place = found.first, []
    for length in reversed(tensor.shape):
        index, at = divmod(index, max(1, length))
        place.append(at)
    what = "infinite" if found.infinite else "NaN or infinite"
    share = f" of {math.prod(tensor.shape):,}" if found.bad > 1 else ""
    many = f"{found.bad:,} {what} numbers" if found.bad > 1 else f"one {what} number"
    return f"holds {many}{share}, the first at {place[::-1]}"
