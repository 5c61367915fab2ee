"""A medium from its data: URL or its bytes: one name, one size, one cost, or one refusal."""

from __future__ import annotations

import base64

import pytest
from PIL import Image

from tests.media.pictures import bomb_png, empty_png, encode, noise
from tests.media.videos import box, mp4, track
from vlfleet.families import Sampling
from vlfleet.families.family import QWEN2_5_VL
from vlfleet.media import MediaError, Vision, examine_bytes, examine_data_url
from vlfleet.media.examine import MAX_FRAMES

VISION = Vision.of(QWEN2_5_VL)
VIDEO = mp4(track(320, 240, [(300, 33)]), before=box(b"mdat", bytes(200_000)))
PICTURES = {name: encode(noise(320, 240), name) for name in ("PNG", "JPEG", "WEBP", "GIF", "BMP")}


def url_of(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture(name: str) -> None:
    content = PICTURES[name]
    medium = examine_data_url(url_of(content), "image", VISION)
    assert medium == examine_bytes(content, "image", VISION)
    assert (medium.format, medium.width, medium.height, medium.frames) == (name, 320, 240, 1)
    assert (medium.tokens, medium.pixels, medium.encoded_bytes) == (99, 76_800, len(content))


def test_a_video() -> None:
    medium = examine_data_url(url_of(VIDEO, "video/mp4"), "video", VISION)
    assert medium == examine_bytes(VIDEO, "video", VISION)
    assert (medium.frames, medium.tokens, medium.modality, medium.encoded_bytes) == (32, 1584, "video", len(VIDEO))


def frames(*contents: bytes) -> str:
    return "data:video/jpeg;base64," + ",".join(base64.b64encode(content).decode() for content in contents)


def test_a_list_of_frames() -> None:
    jpeg = PICTURES["JPEG"]
    medium = examine_data_url(frames(*[jpeg] * 40), "video", VISION)
    assert (medium.frames, medium.tokens, medium.format) == (32, 1584, "frames")
    all_of_them = Vision(QWEN2_5_VL, VISION.image, VISION.video, Sampling(num_frames=-1))
    assert examine_data_url(frames(*[jpeg] * 40), "video", all_of_them).frames == 40
    with pytest.raises(MediaError, match="more than 768 frames"):
        examine_data_url(frames(*[jpeg[:600]] * (MAX_FRAMES + 1)), "video", all_of_them)
    with pytest.raises(MediaError, match="different sizes"):
        examine_data_url(frames(jpeg, encode(noise(32, 32), "JPEG")), "video", VISION)
    with pytest.raises(MediaError, match="30000 x 30000"):
        examine_data_url(frames(jpeg, empty_png(30_000, 30_000)), "video", VISION)


def test_a_jpeg_with_its_size_behind_much_exif() -> None:
    exif = Image.Exif()
    exif[0x9286] = "x" * 60_000
    content = encode(noise(320, 240), "JPEG", exif=exif)
    comment = b"\xff\xfe\xff\xff" + bytes(65_533)
    content = content[:2] + comment * 2 + content[2:]
    assert examine_data_url(url_of(content), "image", VISION).width == 320


@pytest.mark.parametrize(
    ("url", "modality", "cause"),
    [
        ("https://example.org/a.png", "image", "not fetched"),
        ("file:///etc/passwd", "video", "not fetched"),
        ("", "image", "not fetched"),
        ("data:image/png,raw", "image", "is no base64 image"),
        ("data:image/png;base64", "image", "is no base64 image"),
        ("data:" + "x" * 300 + ",aaaa", "image", "is no base64 image"),
        (url_of(VIDEO, "video/mp4"), "image", "is no base64 image"),
        (url_of(PICTURES["PNG"]), "video", "is no base64 video"),
        (url_of(PICTURES["PNG"], "video/mp4"), "video", "whose length can be read"),
        (url_of(VIDEO, "image/png"), "image", "looks like a video"),
        ("data:image/png;base64,", "image", "not a picture"),
        ("data:image/png;base64,iVB\u00d6", "image", "not valid base64"),
        ("data:image/png;base64,iVBO!", "image", "not valid base64"),
        (url_of(PICTURES["BMP"]) + "=", "image", "not valid base64"),
        ("data:video/mp4;base64,!!!!", "video", "not valid base64"),
        ("data:video/jpeg;base64,", "video", "not a picture"),
        (url_of(bytes(17 << 20)), "image", "MiB large"),
        (url_of(bomb_png(20_000)), "image", "20000 x 20000"),
        (url_of(empty_png(300, 1)), "image", "200 times"),
        (url_of(b"<svg/>", "image/svg+xml"), "image", "looks like SVG"),
    ],
    ids=lambda value: value[:40],
)
def test_refusals(url: str, modality: str, cause: str) -> None:
    with pytest.raises(MediaError, match=cause) as caught:
        examine_data_url(url, modality, VISION)
    assert len(str(caught.value)) < 300
