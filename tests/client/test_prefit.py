"""Pictures that are brought to the model's size before they travel: the same pixels for the model, fewer bytes."""

from __future__ import annotations

import io
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.client.test_any_server import whole
from tests.client.test_retries import serving
from tests.gateway.rig import rig
from tests.media.pictures import encode, noise
from vlfleet.client import AsyncClient
from vlfleet.client import prefit as prefit_module
from vlfleet.client.images import UNFITTED_LIMITS, picture
from vlfleet.client.model import ModelInfo
from vlfleet.client.prefit import fit_of, fitted
from vlfleet.client.travel import DataUrl
from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.families import PixelLimits, smart_resize
from vlfleet.families.family import QWEN2_5_VL
from vlfleet.gateway import EngineMedia
from vlfleet.media import Vision, decode_data_url
from vlfleet.media.fit import Fit, Maths, Output, decode

VISION = Vision.of(QWEN2_5_VL, {"max_pixels": 200_704})
HOW = Fit.of(VISION, Maths.PILLOW, Output.PNG)


def of(content: bytes, how: Fit = HOW) -> Any:
    return fitted(picture("x", content, UNFITTED_LIMITS), how, UNFITTED_LIMITS)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(28, 900),
    st.integers(28, 900),
    st.sampled_from([(3136, 200_704), (50_176, 50_176), (100_352, 110_000)]),
    st.sampled_from(["RGB", "L", "RGBA"]),
)
def test_fitting_once_is_fitting_twice(width: int, height: int, limits: tuple[int, int], mode: str) -> None:
    """And what comes out is what the engine would make of it, or the picture itself."""
    how = Fit(28, PixelLimits(*limits), Maths.PILLOW, Output.PNG)
    content = encode(noise(width, height, mode))
    once = of(content, how)
    assert of(once.content, how).content == once.content
    if once.content != content:
        size = smart_resize(height, width, 28, *limits)[::-1]
        assert (once.header.width, once.header.height) == size
        assert smart_resize(size[1], size[0], 28, *limits)[::-1] == size
        expected = decode(content).resize(size, Image.Resampling.BICUBIC)
        assert decode(once.content).tobytes() == expected.tobytes()


async def sent_by(client: AsyncClient, image: Any) -> bytes:
    (part,) = await client.parts(image)
    return decode_data_url(part["image_url"]["url"])


async def test_a_client_that_fits() -> None:
    content = encode(noise(1000, 700))
    async with rig(1, media=EngineMedia(VISION)) as fleet, AsyncClient(fleet.url, fit=True) as client:
        sent = await sent_by(client, content)
        assert sent[:2] == b"BM"  # the server is on this machine
        assert Image.open(io.BytesIO(sent)).size == (532, 364)
        assert await sent_by(client, sent) == sent
        assert (await client.count(content)).media == (19 * 13,)
        small = encode(noise(56, 56))
        assert await sent_by(client, small) == small
        assert (await client.ask("what?", [content, small, Image.new("L", (900, 900))])).text


async def test_a_picture_too_large_to_send_is_fitted() -> None:
    """40 megapixels in 40 MiB are more than a gateway takes."""
    array = numpy.zeros((5000, 8000, 3), numpy.uint8)
    array[::2, ::3] = 200
    huge = encode(Image.fromarray(array), "BMP")
    async with rig(1, media=EngineMedia(VISION)) as fleet:
        async with AsyncClient(fleet.url) as plain:
            with pytest.raises(VlfleetError, match="MiB large"):
                await plain.parts(huge)
        async with AsyncClient(fleet.url, fit=True) as client:
            sent = await sent_by(client, huge)
            assert len(sent) < 1 << 20
            assert (await client.ask("what?", huge)).text


async def test_a_damaged_picture_is_refused_by_its_place() -> None:
    damaged = encode(noise(1000, 700))[:-900_000]
    async with rig(1, media=EngineMedia(VISION)) as fleet, AsyncClient(fleet.url, fit=True) as client:
        with pytest.raises(VlfleetError, match="image 2 is a damaged or truncated PNG") as caught:
            await client.ask("what?", [encode(noise(60, 60)), damaged])
        assert caught.value.exit_code == ExitCode.USAGE


async def test_a_server_that_does_not_tell_its_size() -> None:
    async with serving(whole) as server:
        async with AsyncClient(server.url, fit=True) as client:
            with pytest.raises(VlfleetError, match="does not say at which size"):
                await client.ask("what?", encode(noise(60, 60)))
            assert (await client.ask("what?")).text
        async with AsyncClient(server.url, fit=True, vision=VISION) as client:
            assert (await client.ask("what?", encode(noise(1000, 700)))).text


def test_whose_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    vllm, embedded = ModelInfo(vision=VISION, engine="vllm"), ModelInfo(vision=VISION, engine="embedded")
    assert fit_of(vllm, local=False) == Fit.of(VISION, Maths.TORCHVISION, Output.PNG)
    assert fit_of(embedded, local=True) == Fit.of(VISION, Maths.PILLOW, Output.BMP)
    with pytest.raises(VlfleetError, match="does not say"):
        fit_of(ModelInfo(vision=VISION, assumed=True), local=True)
    monkeypatch.setattr(prefit_module, "find_spec", lambda name: None)
    assert fit_of(embedded, local=True).maths is Maths.PILLOW
    with pytest.raises(VlfleetError, match="fit needs torch"):
        fit_of(vllm, local=True)


def test_a_bmp_that_would_be_too_large_becomes_a_png() -> None:
    large = Fit(28, PixelLimits(3136, 12_845_056), Maths.PILLOW, Output.BMP)
    found = of(encode(Image.new("RGB", (5000, 4000), "red")), large)
    assert (found.header.format, DataUrl.of("image/png", found.content).startswith("data:image/png")) == ("PNG", True)
