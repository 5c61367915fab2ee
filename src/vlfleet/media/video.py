"""What the boxes of an MP4 say about its frames, without decoding one (ISO/IEC 14496-12)."""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import mul

from vlfleet.media.header import GATEWAY_LIMITS, MediaError, MediaLimits, other_kind

MAX_MOOV_BYTES = 2 << 20
"""A quarter of a million entries, read in 15 ms. An hour of film takes less than 1 MiB."""
MAX_BOXES = 10_000
"""Looked at in one file."""
_REMEDY = "send MP4 (H.264), not fragmented, or its frames as data:video/jpeg;base64,FRAME,FRAME,..."

Read = Callable[[int, int], bytes]
"""`read(start, count)`: bytes of the file, fewer at its end."""


@dataclass(frozen=True)
class VideoHeader:
    """Size in pixels as stored, before any rotation; the frames that are shown, and how long they last."""

    width: int
    height: int
    frames: int
    seconds: float


@dataclass(frozen=True)
class Base64File:
    """A file in base64 of which pieces are decoded when they are asked for. `text` is ASCII."""

    text: bytes | memoryview

    @property
    def size_bytes(self) -> int:
        return len(self.text) * 3 // 4 - bytes(self.text[-2:]).count(b"=")

    def read(self, start: int, count: int) -> bytes:
        """
        Raises:
            MediaError: this piece is not base64.
        """
        first = start // 3 * 4
        last = -(-(start + count) // 3) * 4
        try:
            piece = base64.b64decode(bytes(self.text[first:last]), validate=True)
        except binascii.Error:
            raise MediaError("is not valid base64", "encode the whole file with the standard alphabet") from None
        skipped = start % 3
        return piece[skipped : skipped + count]


def read_video_header(read: Read, size_bytes: int, limits: MediaLimits = GATEWAY_LIMITS) -> VideoHeader:
    """Size, frames and seconds of the first video track of an MP4.

    Raises:
        MediaError: another container, a fragmented or damaged one, or beyond `limits`.
    """
    if size_bytes > limits.encoded_bytes:
        cause = f"is {size_bytes / 2**20:.1f} MiB large"
        raise MediaError(cause, f"send at most {limits.encoded_bytes >> 20} MiB, or a shorter video")
    start = read(0, 64)
    if start[4:8] not in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        kind = "WebM or Matroska" if start.startswith(b"\x1aE\xdf\xa3") else other_kind(start)
        if start[:4] == b"RIFF":
            kind = "AVI" if start[8:12] == b"AVI " else "WebP"
        looks = f" (it looks like {kind})" if kind else ""
        raise MediaError(f"is not a video whose length can be read{looks}", _REMEDY)
    try:
        header = _tracks(_moov(read, size_bytes))
    except (struct.error, IndexError, ZeroDivisionError, RecursionError):
        header = None
    if header is None or not header.frames or not header.width or not header.height:
        raise MediaError("is a video whose frames cannot be counted", _REMEDY)
    if header.width * header.height > limits.pixels or max(header.width, header.height) > limits.side:
        most = f"at most {limits.pixels / 1e6:.1f} megapixels and {limits.side:,} pixels a side"
        raise MediaError(f"has frames of {header.width} x {header.height} pixels", f"scale it down to {most}")
    return header


def _moov(read: Read, size_bytes: int) -> bytes:
    """The content of the moov box, wherever it stands."""
    at = 0
    for _ in range(MAX_BOXES):
        head = read(at, 16)
        if len(head) < 8:
            break
        size, name = struct.unpack(">I4s", head[:8])
        content = 8
        if size == 1:
            size, content = struct.unpack(">Q", head[8:16])[0], 16
        size = size or size_bytes - at
        if size < content:
            break
        if name == b"moov":
            if size > MAX_MOOV_BYTES:
                break
            return read(at + content, size - content)
        at += size
    raise MediaError("is a video without an index (moov)", _REMEDY)


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and content of the boxes in `data`."""
    at = 0
    for _ in range(MAX_BOXES):
        if at + 8 > len(data):
            return
        size, name = struct.unpack_from(">I4s", data, at)
        if size == 0:
            size = len(data) - at
        if size < 8 or at + size > len(data):
            return
        yield name, data[at + 8 : at + size]
        at += size


def _find(data: bytes, *path: bytes) -> bytes | None:
    """The content of the first box at `path`."""
    for name in path:
        found = next((content for box, content in _boxes(data) if box == name), None)
        if found is None:
            return None
        data = found
    return data


def _tracks(moov: bytes) -> VideoHeader | None:
    """The header of the first track that holds pictures."""
    movie_scale = _movie_scale(moov)
    for name, track in _boxes(moov):
        media = _find(track, b"mdia") if name == b"trak" else None
        if media is None or (_find(media, b"hdlr") or b"")[8:12] != b"vide":
            continue
        scale, table = _scale(_find(media, b"mdhd") or b""), _find(media, b"minf", b"stbl")
        if table is None:
            return None
        width, height = _size(table)
        frames, ticks = _samples(_find(table, b"stts") or b"")
        seconds = ticks / scale
        shown = _shown_seconds(track, movie_scale)
        if shown and seconds and shown < seconds:
            # vLLM trusts the edit list where it hides more than one frame (OpenCVVideoBackendMixin.get_video_metadata)
            visible = round(frames * shown / seconds)
            if 0 < visible < frames - 1:
                frames, seconds = visible, shown
        return VideoHeader(width, height, frames, seconds)
    return None


def _scale(header: bytes) -> int:
    """Ticks a second, of mvhd or mdhd (version 1 has 64-bit dates before it)."""
    return int(struct.unpack_from(">I", header, 20 if header[0] == 1 else 12)[0])


def _movie_scale(moov: bytes) -> int:
    header = _find(moov, b"mvhd")
    return _scale(header) if header else 0


def _size(table: bytes) -> tuple[int, int]:
    """Width and height of the first sample description."""
    description = _find(table, b"stsd") or b""
    width, height = struct.unpack_from(">HH", description, 8 + 8 + 24)
    return width, height


def _samples(times: bytes) -> tuple[int, int]:
    """Samples and ticks of an stts box: a list of (samples, ticks each)."""
    (count,) = struct.unpack_from(">I", times, 4)
    entries = 2 * min(count, (len(times) - 8) // 8)
    values = struct.unpack_from(f">{entries}I", times, 8)
    samples, deltas = values[::2], values[1::2]
    return sum(samples), sum(map(mul, samples, deltas))


def _shown_seconds(track: bytes, movie_scale: int) -> float:
    """Seconds that the edit list shows, 0 where there is none."""
    edits = _find(track, b"edts", b"elst")
    if not edits or not movie_scale:
        return 0.0
    (count,) = struct.unpack_from(">I", edits, 4)
    form, size = (">Qq", 20) if edits[0] == 1 else (">Ii", 12)
    ticks = 0
    for n in range(min(count, (len(edits) - 8) // size)):
        duration, start = struct.unpack_from(form, edits, 8 + n * size)
        ticks += duration if start >= 0 else 0  # -1 is a pause before the first frame
    return ticks / movie_scale
