"""Headers of safetensors: every damage becomes a VlfleetError, nothing else escapes."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save, save_file

from vlfleet.checkpoint import Tensor, read_header
from vlfleet.errors import VlfleetError


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("headers") / "model.safetensors"


def build(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def survives(file: Path, content: bytes) -> None:
    """Read it: tensors that lie in the file, or an error with cause and remedy."""
    file.write_bytes(content)
    error: VlfleetError | None = None
    tensors: list[Tensor] = []
    try:
        tensors = read_header(file)
    except VlfleetError as caught:
        error = caught
    assert error is None or (error.cause and error.remedy and "\n" not in str(error))
    assert all(8 <= tensor.start <= tensor.end <= len(content) for tensor in tensors)
    assert all(isinstance(tensor.elements, int) for tensor in tensors)


@given(shapes=st.lists(st.lists(st.integers(0, 5), max_size=3), max_size=5))
def test_what_safetensors_writes_is_read(scratch: Path, shapes: list[list[int]]) -> None:
    arrays = {f"tensor{number}": np.zeros(shape, np.float16) for number, shape in enumerate(shapes)}
    save_file(arrays, scratch, metadata={"format": "pt"})
    tensors = read_header(scratch)
    assert {tensor.name: tensor.shape for tensor in tensors} == {name: a.shape for name, a in arrays.items()}
    assert [tensor.start for tensor in tensors] == sorted(tensor.start for tensor in tensors)
    for tensor in tensors:
        assert tensor.dtype == "F16"
        assert tensor.end - tensor.start == 2 * tensor.elements


@given(content=st.binary(max_size=200))
def test_random_bytes_are_refused_or_read(scratch: Path, content: bytes) -> None:
    survives(scratch, content)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
ENTRY = st.fixed_dictionaries(
    {},
    optional={
        "dtype": JSON | st.sampled_from(["F32", "F16", "F4", "X9"]),
        "shape": JSON | st.lists(st.integers(-2, 9) | st.floats() | st.text(max_size=2), max_size=3),
        "data_offsets": JSON | st.lists(st.integers(-9, 60) | st.floats() | st.text(max_size=2), max_size=3),
    },
)


@given(header=st.dictionaries(st.text(max_size=4) | st.just("__metadata__"), ENTRY | JSON, max_size=3) | JSON)
def test_any_json_in_the_header_is_refused_or_read(scratch: Path, header: Any) -> None:
    survives(scratch, build(header, bytes(24)))


@given(data=st.data())
def test_mutations_of_a_good_file_are_refused_or_read(scratch: Path, data: st.DataObject) -> None:
    content = bytearray(save({"a": np.zeros((3, 4), np.float32), "b": np.zeros(5, np.int8)}))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    survives(scratch, bytes(content[: data.draw(st.integers(0, len(content)))]))


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"[" * 100_000, id="nested beyond the parser's stack"),
        pytest.param(b'{"a":' * 100_000, id="objects nested too"),
        pytest.param(b'{"a": {"dtype": "F32", "shape": [' + b"9" * 5000 + b"]}}", id="a number of 5000 digits"),
        pytest.param(b"\xff\xfe{}", id="not UTF-8"),
        pytest.param(b'{"a": {"dtype": "F32", "shape": [1e400], "data_offsets": [0, Infinity]}}', id="infinite"),
    ],
)
def test_headers_that_break_parsers(scratch: Path, content: bytes) -> None:
    survives(scratch, build(content))


def test_a_header_longer_than_the_file_or_the_format_allows(scratch: Path) -> None:
    for length in (100, 2**40, 2**64 - 1):
        scratch.write_bytes(build({}, length=length))
        with pytest.raises(VlfleetError, match="truncated or no safetensors"):
            read_header(scratch)


def test_missing_and_surplus_bytes_are_counted(scratch: Path) -> None:
    content = save({"a": np.zeros(100, np.float32)})
    scratch.write_bytes(content[:-150])
    with pytest.raises(VlfleetError, match=f"is truncated: {len(content) - 150} of {len(content)} bytes"):
        read_header(scratch)
    scratch.write_bytes(content + b"x" * 7)
    with pytest.raises(VlfleetError, match="has 7 bytes too many"):
        read_header(scratch)


def test_a_tensor_that_does_not_fill_its_bytes_is_named(scratch: Path) -> None:
    entry = {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 7]}
    scratch.write_bytes(build({"model.norm.weight": entry}, bytes(7)))
    with pytest.raises(VlfleetError, match=r"'model\.norm\.weight' of BF16 \[2, 2\] does not fill its 7 bytes"):
        read_header(scratch)


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(VlfleetError, match="cannot be read"):
        read_header(tmp_path / "nothing.safetensors")
    with pytest.raises(VlfleetError, match="cannot be read"):
        read_header(tmp_path)
