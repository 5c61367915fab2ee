"""Pictures for tests, made in memory."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image


def encode(picture: Image.Image, format: str = "PNG", **options: Any) -> bytes:  # noqa: A002 (Pillow's name)
    stream = io.BytesIO()
    picture.save(stream, format, **options)
    return stream.getvalue()


def noise(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """A picture that every wrong step of preprocessing changes."""
    channels = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4}[mode]
    shape = (height, width) if channels == 1 else (height, width, channels)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8), mode)


def empty_png(width: int, height: int) -> bytes:
    """A few bytes that claim to be a 1-bit picture of this size."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def bomb_png(side: int) -> bytes:
    """A whole black 1-bit picture: for 30,000 pixels a side 0.1 MB, which decode to 2.7 GB of RGB."""
    row = bytes(1 + (side + 7) // 8)
    squeezer = zlib.compressobj(1)
    data = b"".join(squeezer.compress(row) for _ in range(side)) + squeezer.flush()
    head, _, tail = empty_png(side, side).partition(b"IDAT")
    body = b"IDAT" + data
    end = tail[tail.index(b"IEND") - 4 :]
    return head[:-4] + struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body)) + end
