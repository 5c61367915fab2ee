"""What the first bytes of a picture say, in about 0.2 ms, and whether it may be decoded at all."""

from __future__ import annotations

import io
from dataclasses import dataclass

from PIL import Image

from vlfleet.families.resize import MAX_ASPECT_RATIO

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
"""What is read, by magic bytes. SVG, TIFF, JPEG 2000 and HEIF stay out: their decoders are the ones with the holes."""

OTHER_KINDS = {
    b"<svg": "SVG",
    b"<?xml": "SVG or other XML",
    b"<!doctype": "HTML",
    b"<html": "HTML",
    b"%pdf": "PDF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\x1aE\xdf\xa3": "a video",
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "gzip",
}
"""What clients send by mistake, by magic bytes or, for texts, by their first letters in lower case."""
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
HEADER_BYTES = 64 << 10
WEBP_ANIMATION = 0x02
"""The flag of the VP8X chunk (RFC 9649, section 2.7.1.1)."""

# read_header judges the size itself, with a lower limit and before any decoder runs; Pillow would only warn.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class MediaLimits:
    """The largest medium that is accepted."""

    encoded_bytes: int = 16 << 20
    pixels: int = 33_500_000
    """8K (7680 x 4320). A 107 KiB PNG of 30,000 x 30,000 pixels would take 3.4 GiB to decode."""
    side: int = 16_384
    smallest_side: int = 1
    animated: bool = True
    """Whether the first of several frames may stand for them all, as decoders have it."""


GATEWAY_LIMITS = MediaLimits(smallest_side=2, animated=False)
"""What clients may send. A line of one pixel shows nothing; it has ended engines (CVE-2026-22773)."""


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

    def __reduce__(self) -> tuple[type[MediaError], tuple[str, str]]:
        return MediaError, (self.cause, self.remedy)  # it comes back from worker processes


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
        looks = f" (it looks like {kind})" if (kind := other_kind(data[:64])) else ""
        raise MediaError(
            f"is not a picture that can be read{looks}", f"send {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        ) from None
    if not limits.animated and is_animated(data, header.format):
        raise MediaError(f"is an animated {header.format}", "send one frame, or the frames as a video")
    check_size(header, limits)
    return header


def check_size(header: Header, limits: MediaLimits) -> None:
    """
    Raises:
        MediaError: larger, smaller or thinner than `limits` allow.
    """
    width, height = header.width, header.height
    if width * height > limits.pixels or max(width, height) > limits.side:
        most = f"at most {limits.pixels / 1e6:.1f} megapixels and {limits.side:,} pixels a side"
        raise MediaError(f"has {width} x {height} pixels", f"scale it down to {most}")
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise MediaError(
            f"has {width} x {height} pixels", f"the longer side may be {MAX_ASPECT_RATIO} times the shorter"
        )
    if min(width, height) < limits.smallest_side:
        raise MediaError(f"has {width} x {height} pixels", f"send at least {limits.smallest_side} pixels a side")


def other_kind(start: bytes) -> str:
    """What a file that is not taken seems to be, by its first bytes; empty when nothing is known."""
    if start[4:8] == b"ftyp":
        brand = start[8:12]
        if brand.startswith(b"avi"):
            return "AVIF"
        return "HEIF" if brand in HEIF_BRANDS else "a video"
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return next((kind for magic, kind in OTHER_KINDS.items() if start.startswith(magic) or text.startswith(magic)), "")


def modality_of(start: bytes) -> str:
    """image or video, by a file's first bytes; what is neither is taken for an image, and refused as one."""
    return "video" if start[4:8] == b"ftyp" and other_kind(start) == "a video" else "image"


def is_animated(data: bytes, kind: str) -> bool:
    """Whether the header announces several frames: APNG by its acTL chunk, WebP by its flag, GIF by the block that
    makes it loop. A GIF that plays once has no such block and passes for its first frame, as in every decoder."""
    if kind == "PNG":
        control = data.find(b"acTL", 8, HEADER_BYTES)
        return 0 < control < data.find(b"IDAT", 8) or (control > 0 and b"IDAT" not in data)
    if kind == "WEBP":
        return data[12:16] == b"VP8X" and bool(data[20] & WEBP_ANIMATION)
    return kind == "GIF" and any(block in data[:HEADER_BYTES] for block in (b"NETSCAPE2.0", b"ANIMEXTS1.0"))
