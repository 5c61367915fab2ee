"""Headers of pictures: the format by its magic, the size before a pixel is decoded, the refusal in one line."""

from __future__ import annotations

import struct
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.media.pictures import bomb_png, empty_png, encode, noise
from vlfleet.media import Header, MediaError, MediaLimits, read_header
from vlfleet.media.header import FORMATS, GATEWAY_LIMITS

ENCODED = {name: encode(noise(37, 23), name) for name in FORMATS}


@pytest.mark.parametrize("name", FORMATS)
def test_the_format_comes_from_the_bytes(name: str) -> None:
    assert read_header(ENCODED[name]) == Header(name, 37, 23)


@pytest.mark.parametrize("name", FORMATS)
def test_the_first_kilobytes_are_enough(name: str) -> None:
    content = encode(noise(300, 200), name)
    if name != "WEBP":  # its decoder wants the whole file
        assert read_header(content[:4096]) == Header(name, 300, 200)
    else:
        assert read_header(content) == Header(name, 300, 200)


def test_a_phones_jpeg_with_two_pictures_is_a_jpeg() -> None:
    content = encode(noise(37, 23), "MPO", save_all=True, append_images=[noise(37, 23, seed=1)])
    assert read_header(content) == Header("JPEG", 37, 23)


def test_the_size_is_the_stored_one(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert read_header(encode(noise(37, 23), "JPEG", exif=exif)) == Header("JPEG", 37, 23)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0",
        b"not a picture",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%PDF-1.7",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"BM",
        b"RIFF\x20\0\0\0WEBPVP8 ",
        b"\xff\xd8\xff",
        empty_png(0, 5),
        empty_png(5, 0),
        b"GIF89a" + struct.pack("<HHBBB", 0, 0, 0, 0, 0) + b";",
        *(encode(noise(32, 32), name) for name in ("TIFF", "ICO", "PPM", "DIB", "JPEG2000")),
        *(content[:20] for content in ENCODED.values()),
    ],
    ids=lambda content: repr(content[:12]),
)
def test_no_picture_or_another_format(content: bytes) -> None:
    with pytest.raises(MediaError, match="is not a picture that can be read") as caught:
        read_header(content)
    assert all(name in caught.value.remedy for name in FORMATS)


@pytest.mark.parametrize("size", [(30_000, 30_000), (16_385, 1000), (1000, 16_385), (8000, 8000), (2**31, 2**31 - 1)])
def test_bombs_are_refused_by_their_header(size: tuple[int, int]) -> None:
    with pytest.raises(MediaError, match=f"has {size[0]} x {size[1]} pixels; scale it down"):
        read_header(empty_png(*size))


def test_a_whole_bomb_is_small_and_refused() -> None:
    content = bomb_png(30_000)
    assert len(content) < 1_000_000
    with pytest.raises(MediaError, match="30000 x 30000"):
        read_header(content)


@pytest.mark.parametrize("size", [(1, 201), (201, 1), (16_000, 79)])
def test_thin_pictures_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(MediaError, match="200 times the shorter"):
        read_header(empty_png(*size))


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (200, 1), (7680, 4320), (16_384, 2044)])
def test_the_largest_that_is_allowed(size: tuple[int, int]) -> None:
    assert read_header(empty_png(*size)) == Header("PNG", *size)


def test_limits_are_the_callers() -> None:
    limits = MediaLimits(encoded_bytes=200, pixels=100, side=20)
    with pytest.raises(MediaError, match="MiB large"):
        read_header(bytes(201), limits)
    with pytest.raises(MediaError, match="has 11 x 10 pixels"):
        read_header(empty_png(11, 10), limits)
    with pytest.raises(MediaError, match="has 21 x 1 pixels"):
        read_header(empty_png(21, 1), limits)
    assert read_header(empty_png(10, 10), limits).width == 10


def test_too_many_bytes_are_refused_unread() -> None:
    with pytest.raises(MediaError, match=r"is 16\.0 MiB large; send at most 16 MiB"):
        read_header(ENCODED["PNG"] + bytes(16 << 20))


@given(name=st.sampled_from(FORMATS), data=st.data())
def test_damaged_headers_are_refused_or_read(name: str, data: st.DataObject) -> None:
    content = bytearray(ENCODED[name])
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, min(80, len(content) - 1)))] = data.draw(st.integers(0, 255))
    outcome: Header | MediaError
    try:
        outcome = read_header(bytes(content[: data.draw(st.integers(0, len(content)))]))
    except MediaError as error:
        outcome = error
    if isinstance(outcome, MediaError):
        assert "\n" not in str(outcome)
    else:
        assert outcome.format in FORMATS
        assert 0 < outcome.width * outcome.height <= MediaLimits().pixels


@pytest.mark.parametrize(
    ("content", "looks"),
    [
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"\xef\xbb\xbf \n<SVG/>", "SVG"),
        (b"<?xml version='1.0'?><svg/>", "SVG or other XML"),
        (b"<!DOCTYPE html><title>404</title>", "HTML"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIF"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIF"),
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1", "AVIF"),
        (b"\0\0\0\x18ftypisom\0\0\2\0isomiso2", "a video"),
        (b"\x1aE\xdf\xa3\x01", "a video"),
        (b"%PDF-1.7", "PDF"),
        (encode(noise(32, 32), "TIFF"), "TIFF"),
        (encode(noise(32, 32), "JPEG2000"), "JPEG 2000"),
        (b"PK\x03\x04", "a ZIP archive"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"\xff\x0a", "JPEG XL"),
    ],
)
def test_what_was_sent_by_mistake_is_named(content: bytes, looks: str) -> None:
    with pytest.raises(MediaError, match=rf"is not a picture that can be read \(it looks like {looks}\)"):
        read_header(content)


@pytest.mark.parametrize("name", ["GIF", "PNG", "WEBP"])
def test_animated_files_are_refused_at_the_gateway(name: str) -> None:
    options: dict[str, Any] = {"save_all": True, "append_images": [noise(37, 23, seed=1)], "duration": 50, "loop": 0}
    content = encode(noise(37, 23), name, **options)
    assert read_header(content) == Header(name, 37, 23)
    with pytest.raises(MediaError, match=f"is an animated {name}; send one frame"):
        read_header(content, GATEWAY_LIMITS)
    assert read_header(ENCODED[name], GATEWAY_LIMITS) == Header(name, 37, 23)


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (200, 1)])
def test_a_line_of_one_pixel_is_refused_at_the_gateway(size: tuple[int, int]) -> None:
    with pytest.raises(MediaError, match=f"has {size[0]} x {size[1]} pixels; send at least 2"):
        read_header(empty_png(*size), GATEWAY_LIMITS)
    assert read_header(empty_png(2, 400), GATEWAY_LIMITS).height == 400


def test_a_refusal_takes_milliseconds_and_decodes_nothing() -> None:
    files = [bomb_png(20_000), empty_png(300, 1), b"<svg/>", b"\0\0\0\x18ftypheic", empty_png(1, 1)]
    tracemalloc.start()
    started = time.process_time()
    for content in files:
        with pytest.raises(MediaError):
            read_header(content, GATEWAY_LIMITS)
    seconds, (_, peak) = time.process_time() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds / len(files) < 0.005
    assert peak < 5 << 20
