"""FP8 as the GPUs understand it (E4M3: sign, four bits of exponent, three of mantissa), by integer arithmetic in numpy.

No infinities; the largest number is 448; S.1111.111 is NaN (arXiv 2209.05433, table 1).
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

LARGEST = 448.0
_LARGEST_BITS = np.uint32(0x43E00000)
_SMALLEST_NORMAL_BITS = np.uint32(0x3C800000)
"""2^-6 in float32. Below it E4M3 counts in steps of 2^-9."""
_REBIAS = np.uint32((127 - 7) << 3)
"""Exponents are stored plus 127 in float32, plus 7 in E4M3, above three bits of mantissa."""


def to_e4m3(values: Array) -> Array:
    """The nearest E4M3 number to each of `values` (float32, finite), ties to even, beyond 448 the largest; uint8."""
    bits = values.view(np.uint32)
    sign = (bits >> np.uint32(24)).astype(np.uint8) & np.uint8(0x80)
    size = np.minimum(bits & np.uint32(0x7FFFFFFF), _LARGEST_BITS)
    odd = (size >> np.uint32(20)) & np.uint32(1)
    code = ((size + (odd + np.uint32(0x7FFFF))) >> np.uint32(20)) - _REBIAS
    small = size < _SMALLEST_NORMAL_BITS
    if small.any():
        code[small] = np.rint(size[small].view(np.float32) * np.float32(512)).astype(np.uint32)
    result: Array = code.astype(np.uint8) | sign
    return result


def from_bytes(raw: memoryview, dtype: str) -> Array:
    """Numbers of a safetensors dtype (BF16, F16, F32) as float32, exactly."""
    if dtype == "BF16":
        return (np.frombuffer(raw, np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)
    return np.frombuffer(raw, np.float16 if dtype == "F16" else np.float32).astype(np.float32)


def to_bf16(values: Array) -> tuple[Array, Array]:
    """The nearest bfloat16 of each of `values` (float32, finite), ties to even: as uint16, and as float32 again."""
    bits = values.view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    high = (bits + (odd + np.uint32(0x7FFF))) >> np.uint32(16)
    return high.astype(np.uint16), (high << np.uint32(16)).view(np.float32)
