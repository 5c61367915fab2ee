"""smart_resize and the token counts against transformers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize as reference

from vlfleet.families import ImageTooThinError, image_tokens, smart_resize, video_tokens
from vlfleet.families.family import QWEN2_5_VL

SIDES = st.one_of(st.integers(1, 200), st.integers(1, 20_000))
LIMITS = st.tuples(st.integers(1, 80), st.integers(1, 16_384)).map(
    lambda pair: (min(pair) * 28 * 28, max(pair) * 28 * 28)
)


@given(height=SIDES, width=SIDES, limits=LIMITS)
def test_smart_resize_equals_transformers(height: int, width: int, limits: tuple[int, int]) -> None:
    try:
        expected = reference(height, width, 28, *limits)
    except ValueError:
        with pytest.raises(ImageTooThinError):
            smart_resize(height, width, 28, *limits)
    else:
        assert smart_resize(height, width, 28, *limits) == expected


@pytest.mark.parametrize("size", [(1, 200), (200, 1), (14, 14), (42, 42), (70, 70), (2800, 14), (1, 1)])
def test_smart_resize_at_the_edges(size: tuple[int, int]) -> None:
    """Round half to even, a side below the factor, the thinnest picture."""
    assert smart_resize(*size, 28, 3136, 12_845_056) == reference(*size, 28, 3136, 12_845_056)


@pytest.mark.parametrize("size", [(1, 201), (201, 1), (0, 5), (5, 0), (0, 0), (-3, 4)])
def test_too_thin_or_empty_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ImageTooThinError):
        smart_resize(*size)


@given(height=st.integers(1, 5000), width=st.integers(25, 5000))
def test_image_tokens_do_not_depend_on_orientation(height: int, width: int) -> None:
    """EXIF rotation happens after the header is read, so the count must be the same both ways."""
    if max(height, width) > 200 * min(height, width):
        return
    count = image_tokens(width, height)
    resized_height, resized_width = reference(height, width, 28, QWEN2_5_VL.min_pixels, QWEN2_5_VL.max_pixels)
    assert count == resized_height * resized_width // 28**2 == image_tokens(height, width)


@pytest.mark.parametrize(("frames", "expected"), [(1, 10), (2, 10), (3, 20), (4, 20), (64, 320)])
def test_video_tokens_pair_frames(frames: int, expected: int) -> None:
    assert video_tokens(frames, 10) == expected
