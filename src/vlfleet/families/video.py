"""How many frames of a video an engine takes, and what they cost in tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vlfleet.families.family import Family
from vlfleet.families.limits import PixelLimits
from vlfleet.families.resize import MAX_ASPECT_RATIO, ImageTooThinError, smart_resize, video_tokens

VLLM_NUM_FRAMES = 32
"""vLLM takes at most so many frames unless `--media-io-kwargs` says otherwise (multimodal/media/video.py, 0.32)."""
CONTEXT_TOKENS = 128_000
CONTEXT_SHARE = 0.9
"""qwen-vl-utils keeps a whole video below 0.9 x 128,000 tokens (vision_process.py, max_video_tokens)."""


@dataclass(frozen=True)
class Sampling:
    """The rules by which an engine picks frames: `media_io_kwargs.video` of vLLM. -1 is no limit."""

    num_frames: int = VLLM_NUM_FRAMES
    fps: float = -1

    def frames(self, total_frames: int, seconds: float) -> int:
        """Frames taken of a video: the fewer of `num_frames` and one every 1/fps seconds, at least one
        (`compute_frames_index_to_sample` in vllm/multimodal/video.py)."""
        taken = total_frames
        if self.num_frames > 0:
            taken = min(taken, self.num_frames)
        if self.fps > 0:
            taken = min(taken, math.floor(seconds * self.fps))
        return max(1, taken)


def tokens_of_video(
    family: Family, limits: PixelLimits, width: int, height: int, frames: int, *, cap_pixels_per_frame: bool = False
) -> int:
    """Visual tokens of `frames` frames of this size, without the markers around them.

    `cap_pixels_per_frame` shares a budget among the frames, as qwen-vl-utils does and transformers from 5.22 on
    (Qwen2VLVideoProcessor.resize). Qwen3-VL's limits hold for all frames together, its timestamps are text and not
    counted.

    Raises:
        ImageTooThinError: the longer side is more than 200 times the shorter.
    """
    if family.model_type.startswith("qwen3"):
        resized_height, resized_width = resize_volume(family, limits, width, height, frames)
    else:
        largest = limits.max_pixels
        if cap_pixels_per_frame:
            budget = int(CONTEXT_TOKENS * family.factor**2 * CONTEXT_SHARE)
            share = budget * family.temporal_patch_size // frames
            largest = max(min(largest, share), int(limits.min_pixels * 1.05))
        resized_height, resized_width = smart_resize(height, width, family.factor, limits.min_pixels, largest)
    per_frame = (resized_height // family.factor) * (resized_width // family.factor)
    return video_tokens(frames, per_frame, family.temporal_patch_size)


def resize_volume(family: Family, limits: PixelLimits, width: int, height: int, frames: int) -> tuple[int, int]:
    """(height, width) of each frame where the limits hold for time x height x width (`smart_resize` in transformers'
    models/qwen3_vl/video_processing_qwen3_vl.py, which refuses a single frame).

    Raises:
        ImageTooThinError: the longer side is more than 200 times the shorter.
    """
    factor = family.factor
    if min(width, height) < factor:
        scale = max(factor / height, factor / width)
        height, width = int(height * scale), int(width * scale)
    if max(height, width) / min(height, width) > MAX_ASPECT_RATIO:
        raise ImageTooThinError(f"{width}x{height} is thinner than 1:{MAX_ASPECT_RATIO}")
    resized_height, resized_width = round(height / factor) * factor, round(width / factor) * factor
    resized_frames = round(frames / family.temporal_patch_size) * family.temporal_patch_size
    volume = resized_frames * resized_height * resized_width
    if volume > limits.max_pixels:
        shrink = math.sqrt(frames * height * width / limits.max_pixels)
        resized_height = max(factor, math.floor(height / shrink / factor) * factor)
        resized_width = max(factor, math.floor(width / shrink / factor) * factor)
    elif volume < limits.min_pixels:
        grow = math.sqrt(limits.min_pixels / (frames * height * width))
        resized_height = math.ceil(height * grow / factor) * factor
        resized_width = math.ceil(width * grow / factor) * factor
    return resized_height, resized_width
