"""What a Qwen-VL model is: its families, how it resizes, what an image costs, where its tokens sit. Pure functions."""

from vlfleet.families.family import FAMILIES, KNOWN_FAMILIES, Family, family_of
from vlfleet.families.limits import PixelLimits
from vlfleet.families.positions import Span, mrope_positions
from vlfleet.families.resize import ImageTooThinError, image_tokens, smart_resize, video_tokens
from vlfleet.families.tokens import find_special_token
from vlfleet.families.video import Sampling, tokens_of_video

__all__ = [
    "FAMILIES",
    "KNOWN_FAMILIES",
    "Family",
    "ImageTooThinError",
    "PixelLimits",
    "Sampling",
    "Span",
    "family_of",
    "find_special_token",
    "image_tokens",
    "mrope_positions",
    "smart_resize",
    "tokens_of_video",
    "video_tokens",
]
