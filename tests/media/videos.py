"""MP4 files for tests, built box by box."""

from __future__ import annotations

import struct


def box(name: bytes, *content: bytes) -> bytes:
    data = b"".join(content)
    return struct.pack(">I4s", 8 + len(data), name) + data


def full(name: bytes, *content: bytes, version: int = 0) -> bytes:
    return box(name, bytes([version, 0, 0, 0]), *content)


def track(
    width: int,
    height: int,
    times: list[tuple[int, int]],
    *,
    handler: bytes = b"vide",
    scale: int = 1000,
    edits: bytes = b"",
    version: int = 0,
) -> bytes:
    dates = bytes(16 if version else 8)
    ticks = sum(samples * delta for samples, delta in times)
    duration = struct.pack(">Q" if version else ">I", ticks)
    entry = bytes(8) + bytes(16) + struct.pack(">HH", width, height) + bytes(50)
    table = box(
        b"stbl",
        full(b"stsd", struct.pack(">I", 1), box(b"avc1", entry)),
        full(b"stts", struct.pack(">I", len(times)), *(struct.pack(">II", *each) for each in times)),
    )
    media = box(
        b"mdia",
        full(b"mdhd", dates, struct.pack(">I", scale), duration, version=version),
        full(b"hdlr", bytes(4), handler, bytes(12)),
        box(b"minf", table),
    )
    return box(b"trak", full(b"tkhd", bytes(80)), edits, media)


def edit_list(*edits: tuple[int, int]) -> bytes:
    """(ticks of the movie's scale, first tick of the track) each."""
    entries = b"".join(struct.pack(">IiI", duration, start, 1 << 16) for duration, start in edits)
    return box(b"edts", full(b"elst", struct.pack(">I", len(edits)), entries))


def mp4(*tracks: bytes, before: bytes = b"", movie_scale: int = 1000) -> bytes:
    """`before` stands between ftyp and moov, as the frames do where a file was not made for streaming."""
    header = full(b"mvhd", bytes(8), struct.pack(">II", movie_scale, 0), bytes(80))
    return box(b"ftyp", b"isom", bytes(4)) + before + box(b"moov", header, *tracks)
