"""Pixel values, bit for bit those that transformers' Qwen2VLImageProcessorPil makes of the upright picture."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from transformers import Qwen2VLImageProcessorPil

from tests.conftest import TinyCheckpoint
from tests.media.pictures import empty_png, encode, noise
from vlfleet.checkpoint import preflight
from vlfleet.engine.embedded.preprocess import Medium, Preprocessor, decode
from vlfleet.media import MediaError


@pytest.fixture(scope="session")
def folder(tiny_checkpoint: TinyCheckpoint) -> Path:
    return tiny_checkpoint("qwen2_5_vl")


@pytest.fixture(scope="session")
def ours(folder: Path) -> Preprocessor:
    return Preprocessor.of(preflight(folder))


@pytest.fixture(scope="session")
def theirs(folder: Path) -> Qwen2VLImageProcessorPil:
    return Qwen2VLImageProcessorPil.from_pretrained(folder)


def assert_equal(medium: Medium, theirs: Qwen2VLImageProcessorPil, encoded: bytes) -> None:
    picture = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded)))
    out = theirs(images=[picture], return_tensors="np")
    assert medium.grid == tuple(out["image_grid_thw"][0])
    assert medium.pixel_values.dtype == np.float32
    assert np.array_equal(medium.pixel_values, out["pixel_values"])


def rotated(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(noise(61, 45), "JPEG", exif=exif, quality=95)


def grey16() -> bytes:
    values = np.random.default_rng(0).integers(0, 65536, (40, 57), np.uint16)
    return encode(Image.fromarray(values))


def palette(**options: Any) -> bytes:
    return encode(noise(57, 40).quantize(64), **options)


PICTURES = {
    "RGB": encode(noise(333, 71)),
    "JPEG": encode(noise(150, 90), "JPEG"),
    "WebP": encode(noise(150, 90), "WEBP"),
    "GIF": encode(noise(57, 40), "GIF"),
    "BMP": encode(noise(57, 40), "BMP"),
    "RGBA": encode(noise(57, 40, "RGBA")),
    "RGBA WebP": encode(noise(57, 40, "RGBA"), "WEBP", lossless=True),
    "LA": encode(noise(57, 40, "LA")),
    "L": encode(noise(57, 40, "L")),
    "1 bit": encode(noise(57, 40, "L").convert("1")),
    "16 bit grey": grey16(),
    "palette": palette(),
    "palette, one transparent": palette(transparency=3),
    "palette, alpha a colour": palette(transparency=bytes(range(64))),
    "RGB, one colour transparent": encode(
        noise(57, 40).quantize(9).convert("RGB"), transparency=noise(57, 40).quantize(9).convert("RGB").getpixel((5, 5))
    ),
    "CMYK JPEG": encode(noise(57, 40, "CMYK"), "JPEG"),
    "grey JPEG": encode(noise(57, 40, "L"), "JPEG"),
    "animated GIF": encode(noise(57, 40), "GIF", save_all=True, append_images=[noise(57, 40, seed=1)], duration=50),
    "animated WebP": encode(noise(57, 40), "WEBP", save_all=True, append_images=[noise(57, 40, seed=1)], duration=50),
    "two pictures of a phone": encode(noise(57, 40), "MPO", save_all=True, append_images=[noise(57, 40, seed=1)]),
    "huge": encode(noise(2600, 1900), compress_level=1),
    **{f"EXIF {orientation}": rotated(orientation) for orientation in range(1, 9)},
    **{
        f"{width} x {height}": encode(noise(width, height))
        for width, height in [(1, 1), (1, 2), (1, 200), (200, 1), (7, 999), (900, 15), (27, 29), (112, 112)]
    },
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")  # Pillow, to both alike
@pytest.mark.parametrize("name", PICTURES)
def test_pixel_values_equal_transformers(ours: Preprocessor, theirs: Qwen2VLImageProcessorPil, name: str) -> None:
    assert_equal(ours.image(PICTURES[name]), theirs, PICTURES[name])


@given(width=st.integers(1, 400), height=st.integers(1, 400), seed=st.integers(0, 9))
def test_any_size_equals_transformers(
    ours: Preprocessor, theirs: Qwen2VLImageProcessorPil, width: int, height: int, seed: int
) -> None:
    if max(width, height) <= 200 * min(width, height):
        encoded = encode(noise(width, height, seed=seed), "BMP")
        assert_equal(ours.image(encoded), theirs, encoded)


def test_an_image_is_the_same_frame_twice(ours: Preprocessor) -> None:
    values = ours.image(PICTURES["RGB"]).pixel_values.reshape(-1, 3, 2, 14 * 14)
    assert np.array_equal(values[:, :, 0], values[:, :, 1])


@pytest.mark.parametrize(("count", "groups"), [(1, 1), (2, 1), (3, 2), (4, 2)])
def test_frames_are_those_of_their_pictures(ours: Preprocessor, count: int, groups: int) -> None:
    """Each temporal patch holds two frames; an odd last one is repeated."""
    frames = [encode(noise(90, 60, seed=seed)) for seed in range(count)]
    video = ours.video(frames)
    alone = [ours.image(frame) for frame in [*frames, frames[-1]]]
    assert video.grid == (groups, *alone[0].grid[1:])
    patches = video.pixel_values.reshape(groups, -1, 3, 2, 14 * 14)
    for number in range(2 * groups):
        expected = alone[number].pixel_values.reshape(-1, 3, 2, 14 * 14)[:, :, 0]
        assert np.array_equal(patches[number // 2, :, :, number % 2], expected)


def test_frames_of_different_sizes_are_refused(ours: Preprocessor) -> None:
    with pytest.raises(MediaError, match="frames of different sizes"):
        ours.video([encode(noise(90, 60)), encode(noise(60, 90))])


def test_frames_are_decoded_one_at_a_time(ours: Preprocessor, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 decoded frames of 8K would take 6 GB."""
    events = []
    original = Image.Image.resize

    def resize(picture: Image.Image, *args: object, **options: object) -> Image.Image:
        events.append("resize")
        return original(picture, *args, **options)  # type: ignore[arg-type]

    def decoding(encoded: bytes) -> Image.Image:
        events.append("decode")
        return decode(encoded)

    monkeypatch.setattr(Image.Image, "resize", resize)
    monkeypatch.setattr("vlfleet.engine.embedded.preprocess.decode", decoding)
    ours.video([encode(noise(90, 60, seed=seed)) for seed in range(3)])
    assert events == ["decode", "resize"] * 3


@pytest.mark.parametrize("name", ["RGB", "JPEG", "WebP", "BMP", "GIF"])
def test_a_truncated_picture_is_refused_with_its_size(ours: Preprocessor, name: str) -> None:
    content = PICTURES[name]
    with pytest.raises(MediaError, match=r"damaged or truncated|not a picture") as caught:
        ours.image(content[: len(content) * 2 // 3])
    assert caught.value.remedy


@pytest.mark.parametrize("encoded", [b"", b"text", empty_png(50, 50), empty_png(30_000, 30_000), empty_png(1, 300)])
def test_other_bytes_are_refused(ours: Preprocessor, encoded: bytes) -> None:
    with pytest.raises(MediaError):
        ours.image(encoded)


@given(name=st.sampled_from(["RGB", "JPEG", "WebP", "animated GIF", "palette"]), data=st.data())
def test_damaged_pictures_are_refused_or_read(ours: Preprocessor, name: str, data: st.DataObject) -> None:
    content = bytearray(PICTURES[name])
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    outcome: Medium | MediaError
    try:
        outcome = ours.image(bytes(content))
    except MediaError as error:
        outcome = error
    assert isinstance(outcome, MediaError) or np.isfinite(outcome.pixel_values).all()


def test_what_is_transparent_is_white() -> None:
    clear = encode(Image.new("RGBA", (8, 8), (0, 0, 0, 0)))
    assert decode(clear).getcolors() == [(64, (255, 255, 255))]
