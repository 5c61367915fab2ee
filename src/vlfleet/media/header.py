"""What the first bytes of a picture say, in about 0.2 ms, and whether it may be decoded at all."""

from __future__ import annotations

import io
from dataclasses import dataclass

from PIL import Image

from vlfleet.families.resize import MAX_ASPECT_RATIO

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
"""What is read, by magic bytes. SVG, TIFF, JPEG 2000 and HEIF stay out: their decoders are the ones with the holes."""

# read_header judges the size itself, with a lower limit and before any decoder runs; Pillow would only warn.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class MediaLimits:
    """The largest medium that is accepted."""

    encoded_bytes: int = 16 << 20
    pixels: int = 33_500_000
    """8K (7680 x 4320). A 107 KiB PNG of 30,000 x 30,000 pixels would take 3.4 GiB to decode."""
    side: int = 16_384


@dataclass(frozen=True)
class Header:
    """Format as Pillow names it; size in pixels as stored, before any EXIF rotation."""

    format: str
    width: int
    height: int


class MediaError(ValueError):
    """The medium is refused. `cause` fits into "messages[0].content[1] <cause>"; `remedy` says what to send instead."""

    def __init__(self, cause: str, remedy: str) -> None:
        super().__init__(f"{cause}; {remedy}")
        self.cause = cause
        self.remedy = remedy


def read_header(data: bytes, limits: MediaLimits = MediaLimits()) -> Header:
    """Format and size of an encoded picture (or of the first few KB of one), without decoding it.

    Raises:
        MediaError: not a picture in one of `FORMATS`, or beyond `limits`.
    """
    if len(data) > limits.encoded_bytes:
        cause = f"is {len(data) / 2**20:.1f} MiB large"
        raise MediaError(cause, f"send at most {limits.encoded_bytes >> 20} MiB, or a smaller picture")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            # a phone's JPEG with a second picture behind the first (MPO) is read as the JPEG that it starts with
            header = Header("JPEG" if picture.format == "MPO" else str(picture.format), *picture.size)
    except Exception:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, ... on damaged headers
        raise MediaError(
            "is not a picture that can be read", f"send {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        ) from None
    width, height = header.width, header.height
    if width * height > limits.pixels or max(width, height) > limits.side:
        most = f"at most {limits.pixels / 1e6:.1f} megapixels and {limits.side:,} pixels a side"
        raise MediaError(f"has {width} x {height} pixels", f"scale it down to {most}")
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise MediaError(
            f"has {width} x {height} pixels", f"the longer side may be {MAX_ASPECT_RATIO} times the shorter"
        )
    return header
