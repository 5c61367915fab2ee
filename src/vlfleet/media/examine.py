"""A medium looked at: what it is called, what it is, and what it costs, without decoding a pixel of it."""

from __future__ import annotations

import binascii
from dataclasses import dataclass

from vlfleet.media.header import GATEWAY_LIMITS, Header, MediaError, MediaLimits, read_header
from vlfleet.media.identity import digest_of_base64, digest_of_bytes, digest_of_frames
from vlfleet.media.measure import Vision
from vlfleet.media.video import Base64File, read_video_header

PREFIX_CHARACTERS = 87_384
"""64 KiB of a picture as base64, a multiple of 4: its header, without decoding 2 MB for 4 ms."""
JPEG_START = b"/9j/"
JPEG_PREFIX_CHARACTERS = 10_924
"""8 KiB: most JPEGs say their size there, which saves 0.15 ms."""
MAX_FRAMES = 768
"""Of a list of frames, as in qwen-vl-utils (FPS_MAX_FRAMES); without a limit they fill an engine's memory
(CVE-2026-34755)."""
FRAMES_TYPE = "video/jpeg"
REMEDIES = {
    "image": "send data:image/png;base64,... or another picture format",
    "video": "send data:video/mp4;base64,... or data:video/jpeg;base64,FRAME,FRAME,...",
}


@dataclass(frozen=True)
class Medium:
    """One picture or video of a request. `frames` is 1 for a picture; `pixels` counts all that is decoded."""

    digest: bytes
    modality: str
    format: str
    encoded_bytes: int
    width: int
    height: int
    frames: int
    tokens: int

    @property
    def pixels(self) -> int:
        return self.width * self.height * self.frames


def examine_data_url(url: str, modality: str, vision: Vision, limits: MediaLimits = GATEWAY_LIMITS) -> Medium:
    """The medium in a data: URL, in 0.4 ms for 2 MB (benchmarks/media.py).

    Raises:
        MediaError: another URL, not base64, not a medium of this modality, or beyond `limits`.
    """
    kind, text = split_data_url(url, modality)
    if kind != FRAMES_TYPE:
        return examine_base64(text, modality, vision, limits)
    refuse_large(text, modality, limits)
    return _frames(text, vision, limits)


def examine_base64(
    text: bytes | memoryview, modality: str, vision: Vision, limits: MediaLimits = GATEWAY_LIMITS
) -> Medium:
    """The medium in a file of which the base64 text is at hand.

    Raises:
        MediaError: see `examine_data_url`.
    """
    text = memoryview(text)
    refuse_large(text, modality, limits)
    file = Base64File(text)
    if modality == "video":
        return _video(file, digest_of_base64(text), vision, limits)
    header = _picture_header(text, limits)
    return _picture(header, digest_of_base64(text), file.size_bytes, vision)


def refuse_large(text: memoryview, modality: str, limits: MediaLimits) -> None:
    """
    Raises:
        MediaError: the file is larger than `limits` allow.
    """
    encoded_bytes = len(text) * 3 // 4
    if encoded_bytes > limits.encoded_bytes:
        cause = f"is {encoded_bytes / 2**20:.1f} MiB large"
        raise MediaError(cause, f"send at most {limits.encoded_bytes >> 20} MiB, or a smaller {modality}")


def examine_bytes(encoded: bytes, modality: str, vision: Vision, limits: MediaLimits = GATEWAY_LIMITS) -> Medium:
    """The medium in a file that was uploaded or fetched.

    Raises:
        MediaError: not a medium of this modality, or beyond `limits`.
    """
    if modality == "video":
        return _video(RawFile(encoded), digest_of_bytes(encoded), vision, limits)
    header = read_header(encoded, limits)
    return _picture(header, digest_of_bytes(encoded), len(encoded), vision)


@dataclass(frozen=True)
class RawFile:
    """A file in memory, read as `Base64File` is."""

    content: bytes

    @property
    def size_bytes(self) -> int:
        return len(self.content)

    def read(self, start: int, count: int) -> bytes:
        return self.content[start : start + count]


def split_data_url(url: str, modality: str = "image") -> tuple[str, memoryview]:
    """The media type in lower case, and the base64 text of a data: URL.

    Raises:
        MediaError: another URL, or one of another modality.
    """
    comma = url.find(",", 0, 256)
    head = url[: max(comma, 0)].lower()
    if not url[:5].lower() == "data:":
        raise MediaError(f"is a URL ({url[:32]!r}...) that is not fetched", REMEDIES[modality])
    kind = head[5:].partition(";")[0]
    if comma < 0 or not head.endswith(";base64") or kind.partition("/")[0] != modality:
        raise MediaError(f"is no base64 {modality} ({url[:48]!r})", REMEDIES[modality])
    try:
        text = url.encode("ascii")
    except UnicodeEncodeError:
        raise MediaError("is not valid base64", REMEDIES[modality]) from None
    return kind, memoryview(text)[comma + 1 :]


def _picture_header(text: memoryview, limits: MediaLimits) -> Header:
    """The header, from the first kilobytes where it stands there."""
    lengths = [PREFIX_CHARACTERS, len(text)]
    if text[:4] == JPEG_START:
        lengths.insert(0, JPEG_PREFIX_CHARACTERS)
    for length in lengths:
        start = _decode(text[:length])
        try:
            return read_header(start, limits)
        except MediaError:
            # a JPEG may carry more than 64 KiB of EXIF before its size; Pillow wants the whole of an animated WebP
            later = start.startswith(b"\xff\xd8\xff") or start[8:12] == b"WEBP"
            if len(text) <= length or not later:
                raise
    raise AssertionError("the last length is the whole text")


def _picture(header: Header, digest: bytes, encoded_bytes: int, vision: Vision) -> Medium:
    tokens = vision.image_tokens(header)
    return Medium(digest, "image", header.format, encoded_bytes, header.width, header.height, 1, tokens)


def _video(file: Base64File | RawFile, digest: bytes, vision: Vision, limits: MediaLimits) -> Medium:
    header = read_video_header(file.read, file.size_bytes, limits)
    frames = vision.sampling.frames(header.frames, header.seconds)
    tokens = vision.video_tokens(header)
    return Medium(digest, "video", "MP4", file.size_bytes, header.width, header.height, frames, tokens)


def _frames(text: memoryview, vision: Vision, limits: MediaLimits) -> Medium:
    """A video as a list of frames. vLLM takes the first `num_frames` of them and stacks them, so they are of one size;
    each is looked at, because each is decoded."""
    whole = bytes(text)
    most = vision.sampling.num_frames if vision.sampling.num_frames > 0 else MAX_FRAMES
    parts = whole.split(b",", most)
    if len(parts) > most and most == MAX_FRAMES:
        raise MediaError(f"has more than {MAX_FRAMES} frames", f"send at most {MAX_FRAMES}")
    headers = [_picture_header(memoryview(part), limits) for part in parts[:most]]
    sizes = {(header.width, header.height) for header in headers}
    if len(sizes) > 1:
        raise MediaError("has frames of different sizes", "send frames of one size")
    first = headers[0]
    tokens = vision.frames_tokens(first, len(headers))
    encoded_bytes = len(whole) * 3 // 4
    digest = digest_of_frames(whole)
    return Medium(digest, "video", "frames", encoded_bytes, first.width, first.height, len(headers), tokens)


def _decode(text: memoryview) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except (binascii.Error, ValueError):
        raise MediaError("is not valid base64", "encode the whole file with the standard alphabet") from None
