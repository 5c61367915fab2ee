"""NaN and infinity in every float format, found in pieces of any size, at the right place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlfleet.checkpoint.headers import BITS, Tensor
from vlfleet.checkpoint.verify_numbers import LEAST_BAD, Scanner
from vlfleet.checkpoint.verify_structure import Kind

FLOATS: dict[str, Any] = {"F16": np.float16, "F32": np.float32, "F64": np.float64}


def tensors_of(*parts: tuple[str, str, tuple[int, ...]], start: int = 0) -> list[Tensor]:
    """One behind the other from `start`."""
    tensors = []
    for name, dtype, shape in parts:
        end = start + int(np.prod(shape)) * BITS[dtype] // 8
        tensors.append(Tensor(name, dtype, shape, Path("x"), start, end))
        start = end
    return tensors


def scan(tensors: list[Tensor], data: bytes, chunk: int = 1 << 20) -> dict[str, tuple[Kind, str]]:
    scanner = Scanner(tensors)
    for offset in range(0, len(data), chunk):
        scanner.feed(offset, memoryview(data)[offset : offset + chunk])
    return {problem.where: (problem.kind, problem.what) for problem in scanner.problems()}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -np.nan])
def test_numpys_own_nan_and_infinity(dtype: str, value: float) -> None:
    array = np.ones((3, 4), FLOATS[dtype])
    array[1, 2] = value
    kind, what = scan(tensors_of(("a", dtype, (3, 4))), array.tobytes())["a"]
    word = "infinite" if np.isinf(value) else "NaN or infinite"
    assert (kind, what) == (Kind.NUMBERS, f"holds one {word} number, the first at [1, 2]")


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_largest_finite_numbers_and_the_smallest_are_good(dtype: str) -> None:
    limits = np.finfo(FLOATS[dtype])
    array = np.array([limits.max, limits.min, limits.smallest_subnormal, -0.0, 0.0, 1.0], FLOATS[dtype])
    assert scan(tensors_of(("a", dtype, (6,))), array.tobytes()) == {}


def all_patterns(dtype: str) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Every bit pattern of a narrow format, and whether it is a finite number; from torch, which knows them all."""
    import torch

    kind = {"BF16": torch.bfloat16, "F16": torch.float16, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}
    wide = BITS[dtype] == 16
    bits = np.arange(1 << BITS[dtype], dtype=np.uint16 if wide else np.uint8)
    numbers = torch.from_numpy(bits.view(np.int16) if wide else bits).view(kind[dtype]).float()
    return bits, torch.isfinite(numbers).numpy()


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F8_E4M3", "F8_E5M2"])
def test_every_pattern_of_a_narrow_format_is_judged_as_torch_does(dtype: str) -> None:
    bits, finite = all_patterns(dtype)
    assert scan(tensors_of(("good", dtype, (int(finite.sum()),))), bits[finite].tobytes()) == {}
    for pattern in bits[~finite]:
        one = np.array([0x11, pattern, 0x11], bits.dtype)
        assert "the first at [1]" in scan(tensors_of(("bad", dtype, (3,))), one.tobytes())["bad"][1]
    _, what = scan(tensors_of(("bad", dtype, (int((~finite).sum()),))), bits[~finite].tobytes())["bad"]
    assert what.startswith(f"holds {int((~finite).sum()):,} ")


@given(data=st.data())
def test_pieces_of_any_size_find_the_same(data: st.DataObject) -> None:
    """Also where a piece ends within an element, and where tensors are not aligned to their elements."""
    dtypes = data.draw(
        st.lists(st.sampled_from(["BF16", "F32", "F8_E4M3", "U8", "I32", "F64"]), min_size=1, max_size=5)
    )
    sizes = [data.draw(st.integers(1, 9)) for _ in dtypes]
    start = data.draw(st.integers(0, 9))
    parts = [(f"t{number}", dtype, (size,)) for number, (dtype, size) in enumerate(zip(dtypes, sizes, strict=True))]
    tensors = tensors_of(*parts, start=start)
    content = bytearray(b"\x11" * tensors[-1].end)
    expected = {}
    for tensor in tensors:
        if tensor.dtype in LEAST_BAD and data.draw(st.booleans()):
            width, least = LEAST_BAD[tensor.dtype]
            at = data.draw(st.integers(0, tensor.shape[0] - 1))
            sign = data.draw(st.sampled_from([0, 1 << (8 * width - 1)]))
            place = tensor.start + at * width
            content[place : place + width] = (least | sign).to_bytes(width, "little")
            expected[tensor.name] = f"the first at [{at}]"
    for chunk in (data.draw(st.integers(8, 40)), len(content)):
        found = scan(tensors, bytes(content), chunk)
        assert found.keys() == expected.keys()
        assert all(found[name][1].endswith(place) for name, place in expected.items())


def test_a_tensor_that_was_never_filled() -> None:
    parts = [
        ("model.layers.0.mlp.up_proj.weight", "BF16", (8, 8)),
        ("model.layers.0.mlp.down_proj.qweight", "I32", (8, 8)),
        ("model.layers.0.self_attn.q_proj.bias", "BF16", (8,)),
        ("model.layers.0.mlp.down_proj.qzeros", "I32", (8, 8)),
        ("model.layers.1.mlp.up_proj.weight", "BF16", (8, 8)),
    ]
    tensors = tensors_of(*parts)
    content = bytearray(tensors[-1].end)
    content[-1] = 1
    found = scan(tensors, bytes(content), 64)
    assert {name: kind for name, (kind, _) in found.items()} == {
        "model.layers.0.mlp.up_proj.weight": Kind.ZEROS,
        "model.layers.0.mlp.down_proj.qweight": Kind.ZEROS,
    }
