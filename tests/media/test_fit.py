"""Fit: what the model sees is the same to the last bit, and the engine has nothing left to resize."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import signal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from tests.media.pictures import bomb_png, encode, noise
from vlfleet.families import PixelLimits, smart_resize
from vlfleet.families.family import QWEN2_5_VL
from vlfleet.media import MediaError, Vision
from vlfleet.media.fit import (
    Fit,
    Fitter,
    Maths,
    Output,
    decode,
    fit,
    pictures_in_one_piece,
    raw_pixels,
    resize_torchvision,
)

torch = pytest.importorskip("torch")
SMALL = PixelLimits(3136, 100_352)
PILLOW = Fit(28, SMALL, Maths.PILLOW)


def text_page(width: int, height: int) -> Image.Image:
    """Sharp edges, on which two ways to resize differ most."""
    pixels = np.full((height, width, 3), 255, np.uint8)
    rng = np.random.default_rng(5)
    for _ in range(width * height // 400):
        y, x = rng.integers(0, height), rng.integers(0, width)
        pixels[y : y + rng.integers(1, 9), x : x + rng.integers(1, 3)] = rng.integers(0, 256, 3)
    return Image.fromarray(pixels)


def with_orientation(picture: Image.Image, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(picture, "JPEG", exif=exif, quality=95)


def palette(picture: Image.Image) -> bytes:
    small = picture.convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
    return encode(small, "PNG", transparency=3)


PAGE = text_page(700, 501)
FILES = {
    "RGB": encode(PAGE),
    "JPEG": encode(PAGE, "JPEG", quality=90),
    "gray": encode(PAGE.convert("L")),
    "RGBA": encode(noise(640, 480, "RGBA")),
    "LA": encode(noise(640, 480, "LA")),
    "palette": palette(PAGE),
    "CMYK": encode(noise(640, 480, "CMYK"), "JPEG"),
    "WEBP": encode(PAGE, "WEBP", lossless=True),
    "BMP": encode(PAGE, "BMP"),
    **{f"turned {n}": with_orientation(PAGE, n) for n in (2, 3, 6, 8)},
}


def engines_picture(encoded: bytes) -> Image.Image:
    """Decoded as vLLM 0.32 does it (multimodal/media/image.py)."""
    picture: Image.Image = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded)))
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        ground = Image.new("RGB", picture.size, (255, 255, 255))
        ground.paste(picture, mask=picture.split()[3])
        return ground
    return picture.convert("RGB")


def engines_pixels(picture: Image.Image, limits: PixelLimits, maths: Maths) -> Any:
    """Resized as the engine does it: torchvision's arithmetic on a contiguous (3, height, width) tensor, as
    transformers hands it over, or Pillow's."""
    height, width = smart_resize(picture.height, picture.width, 28, limits.min_pixels, limits.max_pixels)
    if maths is Maths.PILLOW:
        return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))
    tensor = torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()[None]
    if (height, width) != tensor.shape[-2:]:  # torchvision returns the tensor itself
        tensor = torch.nn.functional.interpolate(
            tensor, size=(height, width), mode="bicubic", antialias=True, align_corners=False
        )
    return tensor[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("output", Output)
@pytest.mark.parametrize("maths", Maths)
@pytest.mark.parametrize("name", FILES)
def test_the_model_sees_the_same_pixels(name: str, maths: Maths, output: Output) -> None:
    encoded = FILES[name]
    fitted = fit(encoded, Fit(28, SMALL, maths, output))
    assert fitted is not None
    expected = engines_pixels(engines_picture(encoded), SMALL, maths)
    picture = engines_picture(fitted)
    assert Image.open(io.BytesIO(fitted)).format == output
    assert picture.size == expected.shape[1::-1]
    assert np.array_equal(np.asarray(picture), expected)
    assert np.array_equal(engines_pixels(picture, SMALL, maths), expected)  # its resize is the identity
    assert np.array_equal(np.asarray(decode(encoded)), np.asarray(engines_picture(encoded)))


@pytest.mark.parametrize("one_piece", [False, True])
def test_pixels_are_read_where_they_lie(one_piece: bool) -> None:
    """More than Pillow's 16 MiB blocks, in one piece (no copy) and in several (a copy)."""
    pictures_in_one_piece(one_piece)
    try:
        picture = noise(2600, 1900)
        pixels = raw_pixels(picture)
        assert len(pixels) == 2600 * 1900 * (4 if one_piece else 3)
        array = np.frombuffer(pixels, np.uint8).reshape(1900, 2600, -1)[:, :, :3]
        assert np.array_equal(array, np.asarray(picture))
        expected = engines_pixels(picture, SMALL, Maths.TORCHVISION)
        assert np.array_equal(np.asarray(resize_torchvision(picture, expected.shape[1::-1])), expected)
    finally:
        pictures_in_one_piece(False)


def test_the_two_ways_do_differ() -> None:
    """So the fleet must say which one its engines take."""
    ways = [engines_pixels(PAGE, SMALL, maths).astype(int) for maths in Maths]
    assert np.abs(ways[0] - ways[1]).max() >= 1


@settings(max_examples=60)
@given(st.integers(2, 300), st.integers(2, 300), st.integers(28, 300), st.integers(28, 300), st.integers(0, 9))
def test_a_view_of_the_pixels_gives_what_a_copy_gives(w: int, h: int, to_w: int, to_h: int, seed: int) -> None:
    picture = noise(w, h, seed=seed)
    tensor = torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()[None]
    expected = torch.nn.functional.interpolate(
        tensor, size=(to_h, to_w), mode="bicubic", antialias=True, align_corners=False
    )
    resized = resize_torchvision(picture, (to_w, to_h))
    assert np.array_equal(np.asarray(resized), expected[0].permute(1, 2, 0).numpy())


@given(st.integers(1, 6000), st.integers(1, 6000), st.sampled_from([28, 32]), st.integers(1, 500), st.integers(1, 90))
def test_a_target_is_smaller_and_stays(width: int, height: int, factor: int, tokens: int, share: int) -> None:
    limits = PixelLimits(max(1, tokens * share // 100) * factor * factor, tokens * factor * factor)
    try:
        target = Fit(factor, limits).target(width, height)
    except MediaError:
        assert max(width, height) > 200 * min(width, height)
        return
    expected = smart_resize(height, width, factor, limits.min_pixels, limits.max_pixels)[::-1]
    if target is not None:
        assert target == expected
        assert target[0] * target[1] < width * height
        assert Fit(factor, limits).target(*target) is None
        assert smart_resize(*target[::-1], factor, limits.min_pixels, limits.max_pixels)[::-1] == target


def test_what_the_engine_would_not_shrink_goes_on_as_it_came() -> None:
    for size in ((280, 280), (100, 80), (27, 27)):
        assert fit(encode(noise(*size)), PILLOW) is None


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"<svg/>", "looks like SVG"),
        (bomb_png(20_000), "20000 x 20000"),
        (FILES["RGB"][:-5000], "damaged or truncated PNG of 700 x 501"),
        (encode(noise(3000, 10)), "too thin|200 times"),
    ],
    ids=["svg", "bomb", "cut", "thin"],
)
def test_refusals(content: bytes, cause: str) -> None:
    with pytest.raises(MediaError, match=cause):
        fit(content, PILLOW)


def test_a_fit_of_a_fleet() -> None:
    vision = Vision.of(QWEN2_5_VL, {"max_pixels": 1_003_520})
    assert Fit.of(vision).target(3840, 2160) == vision.image_size(3840, 2160)


async def test_workers() -> None:
    fitter = Fitter(PILLOW, workers=1)
    try:
        found = await fitter.data(base64.b64encode(FILES["JPEG"]))
        assert found is not None
        assert b"".join(found) == b"data:image/bmp;base64," + base64.b64encode(fit(FILES["JPEG"], PILLOW) or b"")
        assert await fitter.data(base64.b64encode(encode(noise(28, 28)))) is None
        with pytest.raises(MediaError, match="looks like SVG"):
            await fitter.data(base64.b64encode(b"<svg/>"))
        (worker,) = fitter._pool._processes  # type: ignore[union-attr]
        with pytest.raises(MediaError, match="not valid base64"):
            await fitter.data(b"so/so")
        large = base64.b64encode(encode(noise(4000, 4000), "PNG", compress_level=0)[: 15 << 20])
        asking = asyncio.create_task(fitter.data(large))
        await asyncio.sleep(0)
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(MediaError, match=r"cannot be decoded|damaged|MiB"):
            await asking
        for _ in range(50):  # the pool notices in its own time
            try:
                assert await fitter.data(base64.b64encode(FILES["JPEG"])) == found
                break
            except MediaError:
                await asyncio.sleep(0.05)
        else:
            pytest.fail("the workers did not come back")
    finally:
        fitter.close()
        fitter.close()
