"""Pictures of every kind, checked by their header and sent as the bytes they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from vlfleet.client import sources
from vlfleet.client.sources import usage_error
from vlfleet.client.travel import DataUrl
from vlfleet.media.data_url import decode_data_url
from vlfleet.media.header import GATEWAY_LIMITS, Header, MediaError, MediaLimits, read_header

UNFITTED_LIMITS = MediaLimits(256 << 20, 178_956_970, 65_535, smallest_side=2, animated=False)
"""Of a picture that is fitted before it is sent: vLLM's VLLM_MAX_IMAGE_PIXELS, JPEG's longest side."""
Part = dict[str, Any]


@dataclass(frozen=True)
class Picture:
    """An encoded picture. `name` is what a person calls it."""

    name: str
    content: bytes
    header: Header

    def url(self) -> DataUrl:
        return DataUrl.of(f"image/{self.header.format.lower()}", self.content)


@dataclass(frozen=True)
class Elsewhere:
    """A picture or video that is not here: an http(s) URL, or the id of an upload."""

    url: str

    @property
    def is_upload(self) -> bool:
        return bool(sources.FILE_ID.fullmatch(self.url))


def read_all(images: Any, limits: MediaLimits = GATEWAY_LIMITS) -> list[Picture | Elsewhere]:
    """Every picture, in order. Reads files, and belongs off the event loop.

    Raises:
        VlfleetError: exit code 2, one line for the first that cannot be sent.
    """
    return [read(source, f"image {n}", limits) for n, source in enumerate(sources.each(images), 1)]


def read(source: Any, place: str, limits: MediaLimits = GATEWAY_LIMITS) -> Picture | Elsewhere:
    """One picture; `place` is its name where it has none of its own.

    Raises:
        VlfleetError: exit code 2; it cannot be sent.
    """
    if isinstance(source, str) and (url := elsewhere(source)):
        return url
    name, content = named_bytes(source, place, limits)
    return picture(name, content, limits)


def picture(name: str, content: bytes, limits: MediaLimits = GATEWAY_LIMITS) -> Picture:
    """
    Raises:
        VlfleetError: exit code 2; no picture, animated, or beyond `limits`.
    """
    try:
        return Picture(name, content, read_header(content, limits))
    except MediaError as error:
        raise usage_error(f"{name} {error.cause}", error.remedy) from None


def elsewhere(text: str) -> Elsewhere | None:
    if text[:8].lower().startswith(("http://", "https://")):
        return Elsewhere(text)
    return Elsewhere(text) if sources.FILE_ID.fullmatch(text) and not sources.exists(text) else None


def named_bytes(source: Any, place: str, limits: MediaLimits) -> tuple[str, bytes]:
    """The name and the encoded bytes of a picture.

    Raises:
        VlfleetError: exit code 2; unreadable, or of a type that is no picture.
    """
    if isinstance(source, str) and source[:5].lower() == "data:":
        try:
            return place, decode_data_url(source)
        except MediaError as error:
            raise usage_error(f"{place} {error.cause}", error.remedy) from None
    if isinstance(source, str | PathLike):
        text = str(source)
        if isinstance(source, str) and not sources.exists(text) and (found := sources.from_base64(text)):
            return place, found
        path = sources.path_of(text)
        return str(path), sources.read_file(path, limits.encoded_bytes)
    if isinstance(source, bytes | bytearray | memoryview):
        if not source:
            raise usage_error(f"{place} is empty", "give the bytes of a picture file")
        return place, bytes(source)
    return place, pixels_of(source, place)


def pixels_of(source: Any, place: str) -> bytes:
    """A picture in memory as PNG.

    Raises:
        VlfleetError: exit code 2; of a type that is no picture.
    """
    from vlfleet.client import pixels

    if _is_pil(source):
        return pixels.png_of_pil(source, place)
    if sources.kind_of(source) == "torch":
        raise usage_error(f"{place} is a torch tensor", "give tensor.cpu().numpy(), uint8 with colours last")
    if hasattr(source, "__array_interface__"):
        import numpy

        return pixels.png_of_array(numpy.asarray(source), place)
    cause = f"{place} is of type {type(source).__name__}"
    raise usage_error(cause, "give a path, a pattern, a URL, bytes, base64, a PIL picture or a numpy array")


def _is_pil(source: Any) -> bool:
    from PIL import Image

    return isinstance(source, Image.Image)


def data_url(path: str | Path) -> str:
    """A picture file as a data: URL. Its type is read from its first bytes, whatever the name says.

    Raises:
        VlfleetError: exit code 2; no such file, no picture, or larger than the gateway takes.
    """
    found = read(Path(path), str(path))
    assert isinstance(found, Picture)
    return found.url()


def image_part(url: str) -> Part:
    return {"type": "image_url", "image_url": {"url": url}}


def user_message(question: str, images: Any = (), parts: Sequence[Part] = ()) -> dict[str, Any]:
    """A user's turn of a chat: the pictures, in order, then the question. `parts` come behind the pictures, as
    `client.parts` returns them.

    Raises:
        VlfleetError: see `read_all`.
    """
    found: Iterable[Picture | Elsewhere] = read_all(images)
    content = [*(image_part(each.url if isinstance(each, Elsewhere) else each.url()) for each in found), *parts]
    return {"role": "user", "content": [*content, {"type": "text", "text": question}] if content else question}
