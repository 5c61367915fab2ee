"""Pixel limits and video tokens against what transformers and vLLM make of the same numbers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlfleet.families import ImageTooThinError, image_tokens, smart_resize
from vlfleet.families.family import QWEN2_5_VL, QWEN2_VL, QWEN3_VL
from vlfleet.families.limits import PixelLimits
from vlfleet.families.video import Sampling, tokens_of_video

SMALL = PixelLimits(3136, 100_352)
HUB = PixelLimits.of(QWEN2_5_VL)


QWEN3_CLASS = PixelLimits(131_072, 786_432)


# Size and frames; tokens with the hub's limits, with SMALL, and of Qwen3-VL with QWEN3_CLASS: what transformers 5.19's
# Qwen2VLVideoProcessor and Qwen3VLVideoProcessor (do_sample_frames=False) make of such frames
@pytest.mark.parametrize(
    ("size", "hub", "small", "qwen3"),
    [
        ((64, 48, 7), 16, 16, 80),
        ((320, 240, 32), 1584, 1584, 320),
        ((640, 361, 5), 897, 360, 432),
        ((29, 200, 1), 7, 7, None),
        ((200, 30, 2), 7, 7, 84),
        ((1280, 720, 3), 2392, 240, 504),
    ],
)
def test_tokens_are_those_of_transformers(size: tuple[int, int, int], hub: int, small: int, qwen3: int | None) -> None:
    assert tokens_of_video(QWEN2_5_VL, HUB, *size) == hub
    assert tokens_of_video(QWEN2_VL, SMALL, *size) == small
    assert tokens_of_video(QWEN2_VL, SMALL, *size, cap_pixels_per_frame=True) == small
    if qwen3 is not None:
        assert tokens_of_video(QWEN3_VL, QWEN3_CLASS, *size) == qwen3


def test_a_long_video_shares_a_budget_where_it_is_capped() -> None:
    free = tokens_of_video(QWEN2_5_VL, HUB, 1920, 1080, 768)
    capped = tokens_of_video(QWEN2_5_VL, HUB, 1920, 1080, 768, cap_pixels_per_frame=True)
    assert free == 384 * 39 * 69
    assert 0.9 * 115_200 < capped <= 115_200


def test_a_thin_video_is_refused() -> None:
    for family in (QWEN2_5_VL, QWEN3_VL):
        with pytest.raises(ImageTooThinError):
            tokens_of_video(family, PixelLimits.of_video(family), 10_000, 32, 4)


@given(st.integers(28, 4000), st.integers(28, 4000))
def test_a_turned_picture_costs_the_same(width: int, height: int) -> None:
    """vLLM turns a picture by its EXIF before it resizes it; the stored size gives the same tokens."""
    assert image_tokens(width, height) == image_tokens(height, width)
    assert smart_resize(height, width) == smart_resize(width, height)[::-1]


@pytest.mark.parametrize(
    ("sampling", "total", "seconds", "frames"),
    [
        (Sampling(), 300, 10.0, 32),
        (Sampling(), 7, 0.7, 7),
        (Sampling(num_frames=-1), 300, 10.0, 300),
        (Sampling(num_frames=-1, fps=2), 300, 10.0, 20),
        (Sampling(num_frames=16, fps=2), 300, 10.0, 16),
        (Sampling(fps=0.5), 300, 1.0, 1),
        (Sampling(fps=60), 30, 1.0, 30),
    ],
)
def test_frames_are_taken_as_vllm_does(sampling: Sampling, total: int, seconds: float, frames: int) -> None:
    assert sampling.frames(total, seconds) == frames


BASE = PixelLimits(3136, 12_845_056)


@pytest.mark.parametrize(
    ("kwargs", "image", "video"),
    [
        ({}, BASE, BASE),
        ({"max_pixels": 1000_000}, PixelLimits(3136, 1000_000), PixelLimits(3136, 1000_000)),
        ({"size": {"shortest_edge": 50, "longest_edge": 60}}, PixelLimits(50, 60), PixelLimits(50, 60)),
        ({"size": {"longest_edge": 6000}, "max_pixels": 7000}, PixelLimits(3136, 7000), PixelLimits(3136, 7000)),
        ({"max_pixels": None, "size": None}, BASE, BASE),
        ({"max_pixels": 5000, "images_kwargs": {"max_pixels": 4000}}, PixelLimits(3136, 4000), PixelLimits(3136, 5000)),
        ({"videos_kwargs": {"size": {"longest_edge": 9000}}}, BASE, PixelLimits(3136, 9000)),
    ],
)
def test_limits_are_overridden_as_in_vllm(kwargs: dict[str, Any], image: PixelLimits, video: PixelLimits) -> None:
    assert BASE.under(kwargs) == image
    assert BASE.under(kwargs, "video") == video


@pytest.mark.parametrize(
    "kwargs",
    [
        {"max_pixels": "1"},
        {"max_pixels": True},
        {"max_pixels": 0},
        {"max_pixels": 1.5},
        {"min_pixels": 10, "max_pixels": 9},
        {"size": 5},
        {"images_kwargs": []},
    ],
)
def test_nonsense_is_refused(kwargs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"pixel|object"):
        BASE.under(kwargs)
