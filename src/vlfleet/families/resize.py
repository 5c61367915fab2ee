"""The size at which a Qwen-VL model sees a picture, and what that costs in tokens."""

from __future__ import annotations

import math

from vlfleet.families.family import QWEN2_5_VL

MAX_ASPECT_RATIO = 200
"""Beyond it the reference raises (qwen_vl_utils/vision_process.py, MAX_RATIO)."""


class ImageTooThinError(ValueError):
    """The longer side is more than 200 times the shorter one, or a side is 0."""


def smart_resize(
    height: int,
    width: int,
    factor: int = QWEN2_5_VL.factor,
    min_pixels: int = QWEN2_5_VL.min_pixels,
    max_pixels: int = QWEN2_5_VL.max_pixels,
) -> tuple[int, int]:
    """The (height, width) in pixels that the model sees: multiples of `factor`, area within the limits, aspect kept.

    Equal to `smart_resize` of transformers (models/qwen2_vl/image_processing_pil_qwen2_vl.py), quirks included:
    Python's round-half-to-even, and a very thin picture may exceed `max_pixels` because no side falls below `factor`.

    Raises:
        ImageTooThinError: see the class.
    """
    if min(height, width) < 1 or max(height, width) / min(height, width) > MAX_ASPECT_RATIO:
        raise ImageTooThinError(f"{width}x{height} is thinner than 1:{MAX_ASPECT_RATIO}")
    resized_height, resized_width = round(height / factor) * factor, round(width / factor) * factor
    if resized_height * resized_width > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        resized_height = max(factor, math.floor(height / shrink / factor) * factor)
        resized_width = max(factor, math.floor(width / shrink / factor) * factor)
    elif resized_height * resized_width < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        resized_height = math.ceil(height * grow / factor) * factor
        resized_width = math.ceil(width * grow / factor) * factor
    return resized_height, resized_width


def image_tokens(
    width: int,
    height: int,
    *,
    factor: int = QWEN2_5_VL.factor,
    min_pixels: int = QWEN2_5_VL.min_pixels,
    max_pixels: int = QWEN2_5_VL.max_pixels,
) -> int:
    """Visual tokens of a picture of `width` x `height` pixels, without the two markers around it.

    Raises:
        ImageTooThinError: see `smart_resize`.
    """
    resized_height, resized_width = smart_resize(height, width, factor, min_pixels, max_pixels)
    return (resized_height // factor) * (resized_width // factor)


def video_tokens(frames: int, tokens_per_frame: int, temporal_patch_size: int = 2) -> int:
    """Visual tokens of a video: `temporal_patch_size` frames share the tokens of one; an odd last frame is repeated."""
    return -(-frames // temporal_patch_size) * tokens_per_frame
