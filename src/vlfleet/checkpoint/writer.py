"""Writes safetensors files in order: the header from planned shapes first, then tensor after tensor in bounded pieces.

Whatever a tensor's size, at most `BLOCK_BYTES` of it are in memory at a time (one row, if a row is larger).
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vlfleet.checkpoint.destination_sink import READ_BYTES, Sink, read_exactly
from vlfleet.checkpoint.headers import BITS, MAX_HEADER_BYTES, Tensor
from vlfleet.errors import VlfleetError

BLOCK_BYTES = READ_BYTES
MAX_PARTS = 1024
"""Pieces that one preadv may fill (IOV_MAX of Linux)."""

Content = Callable[[Sink, int], None]
"""Writes a tensor's bytes into the sink; the second argument is the open source file."""


@dataclass(frozen=True)
class Planned:
    """A tensor of the file to be written."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    write: Content

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * BITS[self.dtype] // 8


def copied(tensor: Tensor) -> Planned:
    """The same tensor again."""
    return Planned(tensor.name, tensor.dtype, tensor.shape, partial(_copy, tensor))


def constant(tensor: Tensor, data: bytes) -> Planned:
    """A tensor of the same dtype and shape with other content."""
    return Planned(tensor.name, tensor.dtype, tensor.shape, lambda sink, _: sink.write(data))


def grown(tensor: Tensor, axis: int, size: int, fill: bytes) -> Planned:
    """`tensor` (one or two axes) with `size` elements along `axis`; the new ones at the end.

    The new elements of each row (axis 1), or all of them (axis 0), are `fill` over and over.
    """
    shape = (*tensor.shape[:axis], size, *tensor.shape[axis + 1 :])
    itemsize = BITS[tensor.dtype] // 8
    more = (math.prod(shape) - tensor.elements) * itemsize
    if axis == 0:
        write: Content = partial(_append, tensor, fill, more)
    else:
        write = partial(_widen, tensor, fill, tensor.shape[1] * itemsize, size * itemsize)
    return Planned(tensor.name, tensor.dtype, shape, write)


def header(tensors: Sequence[Planned], metadata: Mapping[str, str]) -> bytes:
    """What precedes the data: its length in 8 bytes, then names, dtypes, shapes and places as JSON."""
    entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for tensor in tensors:
        start, end = end, end + tensor.bytes
        entries[tensor.name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": (start, end)}
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors are aligned if the header is, as the format's own writer does it
    if len(text) > MAX_HEADER_BYTES:
        raise VlfleetError(f"a header of {len(text):,} bytes is too long for safetensors", "use more shards")
    return struct.pack("<Q", len(text)) + text


def aligned(tensors: Sequence[Planned]) -> list[Planned]:
    """As they are if each starts at a multiple of its element's size then; else with the larger elements first."""
    end = 0
    for tensor in tensors:
        if end * 8 % BITS[tensor.dtype]:
            return sorted(tensors, key=lambda tensor: -BITS[tensor.dtype])
        end += tensor.bytes
    return list(tensors)


def write_shard(sink: Sink, source: Path, tensors: Sequence[Planned], metadata: Mapping[str, str]) -> None:
    """A whole safetensors file into `sink`; the tensors come from the file `source`."""
    ordered = aligned(tensors)
    sink.write(header(ordered, metadata))
    with source.open("rb", buffering=0) as stream:
        for tensor in ordered:
            end = sink.written + tensor.bytes
            tensor.write(sink, stream.fileno())
            if sink.written != end:
                raise RuntimeError(f"{tensor.name}: {sink.written - end:+,} bytes against its header")


def metadata_of(source: Path) -> dict[str, str]:
    """The free text of a safetensors file that `read_header` has accepted: {"format": "pt"} as a rule."""
    with source.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        return {
            str(key): str(value) for key, value in (json.loads(stream.read(length)).get("__metadata__") or {}).items()
        }


def _copy(tensor: Tensor, sink: Sink, descriptor: int) -> None:
    sink.copy(descriptor, tensor.start, tensor.end, BLOCK_BYTES)


def _append(tensor: Tensor, fill: bytes, more_bytes: int, sink: Sink, descriptor: int) -> None:
    _copy(tensor, sink, descriptor)
    block = _repeat(fill, min(more_bytes, max(len(fill), BLOCK_BYTES - BLOCK_BYTES % len(fill))))
    while more_bytes:
        sink.write(memoryview(block)[:more_bytes])
        more_bytes -= min(more_bytes, len(block))


def _widen(tensor: Tensor, fill: bytes, old_bytes: int, new_bytes: int, sink: Sink, descriptor: int) -> None:
    """Rows are read straight to where they belong in a buffer whose gaps are already filled: no row is copied twice."""
    rows = max(1, min(BLOCK_BYTES // new_bytes, MAX_PARTS, tensor.shape[0]))
    buffer = memoryview(bytearray(rows * (bytes(old_bytes) + _repeat(fill, new_bytes - old_bytes))))
    parts = [buffer[row * new_bytes :][:old_bytes] for row in range(rows)]
    for first in range(0, tensor.shape[0], rows):
        count = min(rows, tensor.shape[0] - first)
        read_exactly(descriptor, parts[:count], tensor.start + first * old_bytes)
        sink.write(buffer[: count * new_bytes])


def _repeat(fill: bytes, size_bytes: int) -> bytes:
    return fill * (size_bytes // len(fill))
