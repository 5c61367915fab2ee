"""What media cost: exact tokens from headers, under the fleet's limits and a request's own."""

from __future__ import annotations

from typing import Any

import pytest

from vlfleet.families import PixelLimits, Sampling
from vlfleet.families.family import QWEN2_5_VL, QWEN2_VL, QWEN3_VL
from vlfleet.media import Header, MediaError, VideoHeader, Vision

VISION = Vision.of(QWEN2_5_VL)


@pytest.mark.parametrize(
    ("family", "size", "tokens"),
    [
        (QWEN2_VL, (640, 480), 23 * 17),  # 391 in research on transformers' processor
        (QWEN2_5_VL, (3840, 2160), 137 * 77),
        (QWEN3_VL, (640, 480), 20 * 15),
        (QWEN2_5_VL, (2, 2), 4),
    ],
)
def test_tokens_of_pictures(family: Any, size: tuple[int, int], tokens: int) -> None:
    assert Vision.of(family).image_tokens(Header("PNG", *size)) == tokens
    assert Vision.of(family).image_tokens(Header("PNG", *size[::-1])) == tokens


def test_the_fleets_flags_and_the_checkpoint_count() -> None:
    header = Header("JPEG", 3840, 2160)
    assert Vision.of(QWEN2_5_VL, {"max_pixels": 1_003_520}).image_tokens(header) == 1222
    assert Vision.of(QWEN2_5_VL, image=PixelLimits(3136, 1_003_520)).image_tokens(header) == 1222
    assert Vision.of(QWEN2_5_VL, {"max_pixels": 1_003_520}).image_size(3840, 2160) == (1316, 728)


def test_a_request_may_ask_for_less() -> None:
    header = Header("JPEG", 3840, 2160)
    assert VISION.under({"max_pixels": 1_003_520}).image_tokens(header) == 1222
    assert VISION.under({"images_kwargs": {"size": {"longest_edge": 1_003_520}}}).image_tokens(header) == 1222
    assert VISION.under({}) == VISION


@pytest.mark.parametrize(
    ("kwargs", "cause"),
    [
        ({"max_pixels": 12_845_057}, "asks for 12845057 pixels; ask for at most 12845056"),
        ({"videos_kwargs": {"max_pixels": 10**12}}, "asks for 1000000000000 pixels"),
        ({"min_pixels": 10**9}, "leave no size"),
        ({"max_pixels": "big"}, "max_pixels is a number"),
        ({"do_resize": False}, "holds 'do_resize'"),
        ({"fps": 1}, "holds 'fps'"),
        ({"size": {"height": 5}}, "holds 'height'"),
        ({"images_kwargs": 5}, "no objects"),
        ({"images_kwargs": {"num_crops": 10**6}}, "holds 'num_crops'"),
    ],
)
def test_a_request_may_not_ask_for_more(kwargs: dict[str, Any], cause: str) -> None:
    with pytest.raises(MediaError, match=cause):
        VISION.under(kwargs)


def test_tokens_of_videos() -> None:
    video = VideoHeader(320, 240, 300, 10.0)
    assert VISION.video_tokens(video) == 1584  # 32 frames: as transformers 5.19 (tests/families/test_video.py)
    few = Vision(QWEN2_5_VL, VISION.image, VISION.video, Sampling(num_frames=4))
    assert few.video_tokens(video) == 2 * 9 * 11
    assert VISION.frames_tokens(Header("JPEG", 64, 48), 7) == 16


def test_too_thin() -> None:
    with pytest.raises(MediaError, match="is too thin"):
        VISION.image_tokens(Header("PNG", 3, 900))
    with pytest.raises(MediaError, match="is too thin"):
        VISION.video_tokens(VideoHeader(3, 900, 5, 1.0))
