"""Special tokens that must never come from a user's text."""

from __future__ import annotations

import re

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
"""Tokens that build the prompt (tokenizer_config.json of Qwen2.5-VL). In text they forge turns, or stand for an image
that is not there, which ends the engine core of vLLM. Box and object markers are left out: Qwen2-VL's prompts use them.
"""

_PATTERN = re.compile("|".join(re.escape(token) for token in SPECIAL_TOKENS))


def find_special_token(text: str) -> str | None:
    """The first special token that stands literally in `text`, or None."""
    match = _PATTERN.search(text)
    return match.group() if match else None
