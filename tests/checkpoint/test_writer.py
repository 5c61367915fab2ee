"""Files that safetensors reads, written in pieces of bounded size."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save_file

from vlfleet.checkpoint import read_header, writer
from vlfleet.checkpoint.destination_sink import Sink
from vlfleet.checkpoint.writer import Planned, constant, copied, grown, metadata_of, write_shard
from vlfleet.errors import VlfleetError


class Recorded(io.RawIOBase):
    """Takes at most `limit` bytes of each write, as a pipe or a signal may make a file do."""

    def __init__(self, limit: int = 1 << 30) -> None:
        self.content = bytearray()
        self.largest = 0
        self.limit = limit

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.largest = max(self.largest, len(data))
        taken = bytes(data[: self.limit])
        self.content += taken
        return len(taken)


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("writer") / "model.safetensors"


def written(source: Path, plans: list[Planned], stream: Recorded | None = None) -> bytes:
    stream = stream or Recorded()
    sink = Sink(stream)
    write_shard(sink, source, plans, metadata_of(source))
    assert sink.written == len(stream.content)
    return bytes(stream.content)


DTYPES = [np.dtype(name) for name in ("uint8", "float16", "int32", "float64")]


@given(
    shapes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=4),
    dtypes=st.lists(st.sampled_from(DTYPES), min_size=4, max_size=4),
    axis=st.integers(0, 1),
    more=st.integers(0, 9),
    block=st.sampled_from([1, 7, 64, 8 << 20]),
    limit=st.sampled_from([1, 5, 1 << 20]),
)
def test_what_is_written_is_what_was_planned(
    scratch: Path, shapes: list[tuple[int, int]], dtypes: list[np.dtype], axis: int, more: int, block: int, limit: int
) -> None:
    """Any shapes, any size of a block, any number of bytes that a write takes."""
    random = np.random.default_rng(0)
    arrays = {
        f"t{number}": random.integers(1, 100, shape).astype(dtype)
        for number, (shape, dtype) in enumerate(zip(shapes, dtypes, strict=False))
    }
    save_file(arrays, scratch, metadata={"format": "pt", "text": "ä"})
    plans = []
    for tensor in read_header(scratch):
        fill = np.array(7, arrays[tensor.name].dtype).tobytes()
        plans.append(grown(tensor, axis, tensor.shape[axis] + more, fill))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "BLOCK_BYTES", block)
        content = written(scratch, plans, Recorded(limit))
    pad = [(0, more), (0, 0)] if axis == 0 else [(0, 0), (0, more)]
    for name, array in load(content).items():
        assert array.dtype == arrays[name].dtype
        np.testing.assert_array_equal(array, np.pad(arrays[name], pad, constant_values=7))
    scratch.write_bytes(content)
    assert metadata_of(scratch) == {"format": "pt", "text": "ä"}
    for tensor in read_header(scratch):
        assert tensor.start % arrays[tensor.name].dtype.itemsize == 0


@pytest.mark.parametrize("axis", [0, 1])
def test_no_piece_is_larger_than_a_block(scratch: Path, axis: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory does not depend on the tensor's size: 4 MB go through 4 kB."""
    monkeypatch.setattr(writer, "BLOCK_BYTES", 4096)
    array = np.arange(1 << 20, dtype=np.int32).reshape(2048, 512)
    save_file({"t": array}, scratch)
    (tensor,) = read_header(scratch)
    stream = Recorded()
    content = written(scratch, [grown(tensor, axis, tensor.shape[axis] + 100, b"\1\0\0\0")], stream)
    assert stream.largest <= 4096
    pad = [(0, 100), (0, 0)] if axis == 0 else [(0, 0), (0, 100)]
    np.testing.assert_array_equal(load(content)["t"], np.pad(array, pad, constant_values=1))


def test_more_rows_than_one_call_reads(scratch: Path) -> None:
    """preadv takes 1024 pieces at once."""
    array = np.arange(3000 * 2, dtype=np.uint8).reshape(3000, 2)
    save_file({"t": array}, scratch)
    (tensor,) = read_header(scratch)
    content = written(scratch, [grown(tensor, 1, 3, b"\xff")])
    np.testing.assert_array_equal(load(content)["t"], np.pad(array, [(0, 0), (0, 1)], constant_values=255))


def test_a_scalar_and_an_empty_tensor(scratch: Path) -> None:
    arrays: dict[str, np.ndarray[Any, Any]] = {"scalar": np.array(3, np.float32), "shape": np.array([1, 2])}
    arrays["empty"] = np.zeros((0, 4), np.float16)
    save_file(arrays, scratch)
    tensors = {tensor.name: tensor for tensor in read_header(scratch)}
    plans = [copied(tensors["scalar"]), copied(tensors["empty"])]
    plans.append(constant(tensors["shape"], np.array([5, 6]).tobytes()))
    result = load(written(scratch, plans))
    assert result["scalar"] == 3
    assert result["empty"].shape == (0, 4)
    assert result["shape"].tolist() == [5, 6]


def test_larger_elements_come_first(scratch: Path) -> None:
    """A file whose tensors were in another order would get misaligned ones, which some readers copy or refuse."""
    save_file({"bytes": np.ones(3, np.uint8), "floats": np.ones(2, np.float32)}, scratch)
    tensors = {tensor.name: tensor for tensor in read_header(scratch)}
    content = written(scratch, [copied(tensors["bytes"]), copied(tensors["floats"])])
    scratch.write_bytes(content)
    assert [tensor.name for tensor in read_header(scratch)] == ["floats", "bytes"]


def test_a_source_that_shrinks_meanwhile(scratch: Path) -> None:
    save_file({"t": np.ones((64, 64), np.float32)}, scratch)
    (tensor,) = read_header(scratch)
    scratch.write_bytes(scratch.read_bytes()[:-1])
    for plan in (copied(tensor), grown(tensor, 1, 65, b"\0\0\0\0")):
        with pytest.raises(VlfleetError, match="became shorter"):
            written(scratch, [plan])


def test_content_that_is_not_what_the_header_says(scratch: Path) -> None:
    save_file({"t": np.ones(4, np.float32)}, scratch)
    wrong = Planned("t", "F32", (4,), lambda sink, _: sink.write(b"123"))
    with pytest.raises(RuntimeError, match="t: -13 bytes"):
        written(scratch, [wrong])
