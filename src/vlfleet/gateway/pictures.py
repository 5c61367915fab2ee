"""A picture in a request: refused by its header, or measured by it."""

from __future__ import annotations

from typing import Any

from vlfleet.families import ImageTooThinError, image_tokens
from vlfleet.gateway.errors import bad_request
from vlfleet.media import Header, MediaError, MediaLimits, decode_data_url, read_header

PREFIX_CHARACTERS = 87_384
"""64 KiB of picture as base64, a multiple of 4. Decoding 2 MB whole costs 2.7 to 5.4 ms (research/gateway.md 7.2)."""
LIMITS = MediaLimits()


def measure(url: Any, path: str) -> tuple[int, int]:
    """Pixels and visual tokens of the picture in a data: URL.

    Raises:
        ApiError: 400, when it is elsewhere, no picture, or beyond `LIMITS`.
    """
    if not isinstance(url, str):
        raise bad_request(path, f"{path} has no url", "send the picture as a data: URL")
    if not url.startswith("data:"):
        cause = f"{path} points to a picture elsewhere, which is not fetched"
        raise bad_request(path, cause, "read it and send it as data:image/png;base64,...", "unsupported_url")
    try:
        header = picture_header(url)
        return header.width * header.height, image_tokens(header.width, header.height)
    except MediaError as error:
        raise bad_request(path, f"{path} {error.cause}", error.remedy, "invalid_image") from None
    except ImageTooThinError as error:
        raise bad_request(path, f"{path} is too thin: {error}", "crop it", "invalid_image") from None


def picture_header(url: str) -> Header:
    """Format and size, from the first 64 KiB where they stand there.

    Raises:
        MediaError: see `vlfleet.media`.
    """
    body = url.find(",") + 1
    encoded_bytes = (len(url) - body) * 3 // 4
    if encoded_bytes > LIMITS.encoded_bytes:
        cause = f"is {encoded_bytes / 2**20:.1f} MiB large"
        raise MediaError(cause, f"send at most {LIMITS.encoded_bytes >> 20} MiB, or a smaller picture")
    start = decode_data_url(url[: body + PREFIX_CHARACTERS])
    try:
        return read_header(start, LIMITS)
    except MediaError:
        if len(url) <= body + PREFIX_CHARACTERS or not size_may_stand_later(start):
            raise
    return read_header(decode_data_url(url), LIMITS)


def size_may_stand_later(start: bytes) -> bool:
    """A JPEG may carry more than 64 KiB of EXIF before its size; Pillow wants the whole of an animated WebP."""
    return start.startswith(b"\xff\xd8\xff") or start[8:12] == b"WEBP"
