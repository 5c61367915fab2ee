"""The header of a safetensors file: names, shapes and places of its tensors, without reading their data."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlfleet.errors import VlfleetError

MAX_HEADER_BYTES = 100_000_000
"""The format's own limit (safetensors/src/tensor.rs, MAX_HEADER_SIZE)."""

BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
"""Bits an element of each dtype of the format."""


@dataclass(frozen=True)
class Tensor:
    """One tensor of a shard. `start` and `end` are byte offsets in the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int
    end: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


def read_header(file: Path) -> list[Tensor]:
    """Every tensor of `file`, by its place in it.

    Raises:
        VlfleetError: not a safetensors file, or one that ends before its last tensor does.
    """
    again = f"download {file.name} again"
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            prefix = stream.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else MAX_HEADER_BYTES + 1
            if length > min(MAX_HEADER_BYTES, size - 8):
                raise VlfleetError(f"{file.name} ({size:,} bytes) is truncated or no safetensors file", again)
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        tensors = [_tensor(file, 8 + length, name, entry) for name, entry in header.items()]
    except OSError as error:
        raise VlfleetError(
            f"{file.name} cannot be read: {error.strerror}", "check the path and its permissions"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise VlfleetError(f"the header of {file.name} is damaged: {error}", again) from None
    end = max((tensor.end for tensor in tensors), default=8 + length)
    if end != size:
        wrong = f"is truncated: {size:,} of {end:,} bytes" if size < end else f"has {size - end:,} bytes too many"
        raise VlfleetError(f"{file.name} {wrong}", again)
    return sorted(tensors, key=lambda tensor: tensor.start)


def _tensor(file: Path, data_at: int, name: str, entry: dict[str, Any]) -> Tensor:
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not (isinstance(dtype, str) and _are_sizes(shape) and _are_sizes(offsets)):
        raise ValueError(f"tensor {name!r} is described wrongly")
    start, end = offsets
    if start > end:
        raise ValueError(f"tensor {name!r} ends before it starts")
    tensor = Tensor(name, dtype, tuple(shape), file, data_at + start, data_at + end)
    if dtype in BITS and (tensor.elements * BITS[dtype] + 7) // 8 != end - start:
        raise ValueError(f"tensor {name!r} of {dtype} {shape} does not fill its {end - start} bytes")
    return tensor


def _are_sizes(values: object) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)
