"""Pictures of every kind become content parts: a file by the bytes that it has, pixels as PNG."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image, ImageSequence

from tests.media.pictures import empty_png
from vlfleet.client.images import Elsewhere, Picture, read_all
from vlfleet.client.travel import DataUrl, digest_of
from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.media import digest_of_bytes

ORIENTATION = 0x0112


def encoded(kind: str = "PNG", size: tuple[int, int] = (60, 30), **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, "blue").save(stream, kind, **options)
    return stream.getvalue()


def one(source: Any) -> Picture:
    (picture,) = read_all(source)
    assert isinstance(picture, Picture)
    return picture


def pixels(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_a_file_travels_untouched_whatever_its_name_says(tmp_path: Path, kind: str) -> None:
    content = encoded(kind)
    path = tmp_path / "picture.txt"
    path.write_bytes(content)
    text = base64.b64encode(content).decode()
    every = (path, str(path), path.as_uri(), content, bytearray(content), memoryview(content), text)
    for source in (*every, f"data:image/png;base64,{text}"):
        picture = one(source)
        assert picture.content == content
        assert picture.header.format == kind
        assert picture.url() == f"data:image/{kind.lower()};base64,{text}"


def test_exif_stays_in_a_file_and_turns_pixels_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    content = encoded("JPEG", (60, 30), exif=exif)
    assert one(content).content == content
    with Image.open(io.BytesIO(content)) as opened:
        turned = one(opened)
    assert (turned.header.format, turned.header.width, turned.header.height) == ("PNG", 30, 60)
    assert ORIENTATION not in pixels(turned.content).getexif()


def test_a_pattern_is_its_files_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (10, 9, 1):
        (tmp_path / f"page{number}.png").write_bytes(encoded())
    (tmp_path / "page2.png").mkdir()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "page3.png").write_bytes(encoded())
    names = [Path(each.name).name for each in read_all(str(tmp_path / "page*.png")) if isinstance(each, Picture)]
    assert names == ["page1.png", "page9.png", "page10.png"]
    assert len(read_all([str(tmp_path / "**" / "*.png"), tmp_path / "page1.png"])) == 5
    assert len(read_all(sorted(tmp_path.glob("page*[0-9].png"))[:2])) == 2


def test_a_file_whose_name_looks_like_a_pattern(tmp_path: Path) -> None:
    path = tmp_path / "scan[1].png"
    path.write_bytes(encoded())
    assert one(str(path)).content == encoded()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB"])
def test_pil_pictures_keep_their_pixels(mode: str) -> None:
    made = Image.effect_noise((40, 20), 90).convert("RGB").convert(mode)
    picture = one(made)
    assert picture.header.format == "PNG"
    expected = made if mode in ("1", "L", "LA", "P", "RGB", "RGBA") else made.convert("RGB")
    assert pixels(picture.content).convert("RGBA").tobytes() == expected.convert("RGBA").tobytes()
    assert one(made).content == picture.content


@pytest.mark.parametrize("shape", [(20, 40), (20, 40, 1), (20, 40, 3), (20, 40, 4)])
def test_arrays_keep_their_pixels(shape: tuple[int, ...]) -> None:
    array = numpy.random.default_rng(0).integers(0, 256, shape, dtype=numpy.uint8)
    found = numpy.asarray(pixels(one(array).content))
    assert numpy.array_equal(found.reshape(shape), array)
    assert one(array[::-1, ::-1]).content != one(array).content  # a view that is not contiguous


def test_urls_and_uploads_are_left_where_they_are() -> None:
    upload = "file-" + "0" * 64
    found = read_all(["https://example.org/a.png?*", "HTTP://example.org/b", upload])
    assert [each.url for each in found if isinstance(each, Elsewhere)] == [
        "https://example.org/a.png?*",
        "HTTP://example.org/b",
        upload,
    ]
    assert [each.is_upload for each in found if isinstance(each, Elsewhere)] == [False, False, True]


def animated(kind: str) -> bytes:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "green", "blue")]
    stream = io.BytesIO()
    frames[0].save(stream, kind, save_all=True, append_images=frames[1:], duration=100, loop=0)
    return stream.getvalue()


def bad_files(folder: Path) -> dict[str, Any]:
    contents = {
        "text": b"no picture",
        "empty": b"",
        "video": b"\0\0\0\x18ftypisom" + bytes(64),
        "html": b"<!DOCTYPE html><html>",
        "gif": animated("GIF"),
        "apng": animated("PNG"),
        "webp": animated("WEBP"),
        "bomb": empty_png(30_000, 30_000),
        "line": encoded(size=(900, 1)),
        "thin": encoded(size=(1300, 3)),
        "wide": encoded(size=(17_000, 100)),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    with (folder / "large").open("wb") as file:
        file.truncate(17 << 20)
    os.mkfifo(folder / "pipe")
    (folder / "locked").mkdir()
    return {name: folder / name for name in (*contents, "large", "missing", "pipe", "locked")}


WORDS = {
    "text": "is not a picture that can be read",
    "empty": "is empty",
    "video": "it looks like a video",
    "html": "it looks like HTML",
    "gif": "is an animated GIF",
    "apng": "is an animated PNG",
    "webp": "is an animated WEBP",
    "bomb": "has 30000 x 30000 pixels",
    "line": "has 900 x 1 pixels",
    "thin": "has 1300 x 3 pixels",
    "wide": "has 17000 x 100 pixels",
    "large": "is 17.0 MiB large",
    "missing": "cannot be read: no such file",
    "pipe": "cannot be read: it is no regular file",
    "locked": "cannot be read: it is a folder",
}


@pytest.mark.parametrize("name", sorted(WORDS))
def test_a_file_that_cannot_be_sent(tmp_path: Path, name: str) -> None:
    path = bad_files(tmp_path)[name]
    refused(path, f"{path} ", WORDS[name])
    if path.is_file() and path.stat().st_size < 1 << 20:
        refused(path.read_bytes(), "image 1 ", WORDS[name])


def refused(source: Any, *words: str) -> None:
    with pytest.raises(VlfleetError) as caught:
        read_all(source)
    error = caught.value
    assert error.exit_code == ExitCode.USAGE
    assert error.remedy
    assert "\n" not in str(error)
    assert len(str(error)) < 500
    for word in words:
        assert word in error.cause


def torch_tensor() -> Any:
    import torch

    return torch.zeros(3, 20, 20)


NO_PICTURES = {
    "no match": ("*.png.nothing", "no file matches"),
    "too long a path": ("x" * 5000, "cannot be read"),
    "a NUL": ("a\0b", "cannot be read"),
    "broken base64": ("iVBORw0KGgo" + "@" * 64, "cannot be read"),
    "not an image URL": ("data:text/html;base64,aGk=", "is no base64 image"),
    "broken data URL": ("data:image/png;base64,@@@@", "is not valid base64"),
    "a number": (7, "is of type int"),
    "nothing in a list": ([None], "is of type NoneType"),
    "float": (numpy.zeros((20, 20, 3), numpy.float32), "array of float32"),
    "bool": (numpy.zeros((20, 20), bool), "array of bool"),
    "16 bit": (numpy.zeros((20, 20), numpy.uint16), "array of uint16"),
    "colours first": (numpy.zeros((3, 20, 20), numpy.uint8), "shape (3, 20, 20)"),
    "a batch": (numpy.zeros((2, 20, 20, 3), numpy.uint8), "shape (2, 20, 20, 3)"),
    "no pixels": (numpy.zeros((0, 20, 3), numpy.uint8), "shape (0, 20, 3)"),
    "float PIL": (Image.new("F", (20, 20)), "mode F"),
    "32 bit PIL": (Image.new("I", (20, 20)), "mode I"),
    "animated PIL": (Image.open(io.BytesIO(animated("GIF"))), "has 3 frames"),
    "truncated PIL": (Image.open(io.BytesIO(encoded("JPEG", (400, 400))[:800])), "cannot be decoded"),
    "a tensor": (torch_tensor(), "is a torch tensor"),
}


@pytest.mark.parametrize("name", sorted(NO_PICTURES))
def test_a_source_that_is_no_picture(name: str) -> None:
    source, word = NO_PICTURES[name]
    refused(source, word)


def test_the_remedy_of_a_float_array_is_the_line_to_write() -> None:
    array: Any = numpy.random.default_rng(0).random((20, 20, 3))
    with pytest.raises(VlfleetError) as caught:
        read_all([array])
    line = caught.value.remedy.partition(": ")[2]
    assert one(eval(line, {"array": array})).header.width == 20  # noqa: S307 - our own words


def test_a_phones_jpeg_with_a_second_picture_behind_it() -> None:
    stream = io.BytesIO()
    first, second = Image.new("RGB", (40, 30), "red"), Image.new("RGB", (20, 15), "blue")
    first.save(stream, "MPO", save_all=True, append_images=[second])
    assert one(stream.getvalue()).content == stream.getvalue()
    opened = Image.open(io.BytesIO(stream.getvalue()))
    assert opened.format == "MPO"
    found = one(opened)
    assert (found.header.width, found.header.height) == (40, 30)


def test_a_frame_of_an_animation_is_a_picture() -> None:
    frames = list(ImageSequence.Iterator(Image.open(io.BytesIO(animated("GIF")))))
    assert len(read_all([frame.copy() for frame in frames])) == 3


def test_the_second_of_several_is_named_by_its_place() -> None:
    with pytest.raises(VlfleetError, match="image 2 is empty"):
        read_all([encoded(), b""])


def test_a_url_knows_its_digest_and_is_a_string() -> None:
    url = one(encoded()).url()
    assert isinstance(url, DataUrl)
    assert url.digest == digest_of(str(url)) == digest_of_bytes(encoded())


def test_a_file_whose_name_begins_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("~$draft.png").write_bytes(encoded())
    assert one("~$draft.png").name == "~$draft.png"
    with pytest.raises(VlfleetError, match="no such file"):
        read_all("~nobody-here/a.png")
