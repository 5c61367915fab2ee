"""Requests by the size of their pictures: a latency that mixes text with page scans describes neither."""

from __future__ import annotations

from bisect import bisect_left

ENDS = (0, 512, 2048, 8192)
"""Visual tokens up to which a class goes, each four times the one before. At Qwen2.5-VL's 28 x 28 pixels a token, 512
are a photo of 640 x 627, 2,048 one of 1.6 megapixels (the README's `max_pixels` is 1,280), 8,192 a page scanned at
250 dpi; more is beyond the tokens that vLLM computes in one step on a GPU (`max_num_batched_tokens`, 8,192)."""
SIZES = ("0", "1-512", "513-2048", "2049-8192", "8193+")
"""The classes by their visual tokens, the smallest first: values of the label `visual_tokens`."""


def size_of(visual_tokens: int) -> str:
    """The class of a request with so many visual tokens, over all its pictures."""
    return SIZES[bisect_left(ENDS, visual_tokens)]
