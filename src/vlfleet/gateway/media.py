"""The media of a chat: found by their keys, named, measured, and refused where they do not come inside the request."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vlfleet.gateway.errors import bad_request
from vlfleet.media import MediaError, Namer, Store, Stored, Vision, examine_base64, examine_data_url
from vlfleet.media.references import FILE_PREFIX, find_url, media_key

MAX_PICTURES = 8
MAX_PIXELS = (512 << 20) // 3
"""Of all pictures together: 512 MiB once they are decoded to RGB (S5)."""
VIDEO_TOKENS = 2048
"""A guess; frames are not counted before the engine decodes them."""
PICTURE_KEYS = ("image_url", "image")
OTHER_KEYS = ("video_url", "video", "audio_url", "audio", "input_audio")
SCHEME = "data:"
VIDEO = re.compile(r"data:video/|file-|https?:", re.IGNORECASE)
MEDIA_KEYS = PICTURE_KEYS + OTHER_KEYS
CONTENT = (str, list, type(None))
TEXT_KEYS = {"type", "text"}
EMBEDDING_KEYS = ("image_embeds", "video_embeds", "audio_embeds")


@dataclass(frozen=True)
class Found:
    """A medium in messages[message].content[part]."""

    message: int
    part: int
    uuid: str
    """Its name for the engines: of its content and its tenant."""
    tokens: int
    encoded_bytes: int
    data: tuple[bytes, ...] | None = None
    """The data: URL in pieces that belongs there, where the client sent a reference."""
    text: bytes | None = None
    """A picture's base64, where it may be fitted."""


class Elsewhere(Exception):  # noqa: N818  (no fault: these are fetched, and the request is looked at again)
    """Media that are behind `urls`."""

    def __init__(self, urls: Sequence[str]) -> None:
        super().__init__(f"{len(urls)} media are to be fetched")
        self.urls = urls


@dataclass
class Media:
    """What the parts looked at so far hold."""

    vision: Vision
    namer: Namer
    tenant: str = ""
    store: Store | None = None
    """Of uploads."""
    fetched: Mapping[str, Stored] | None = None
    """What was behind URLs. None: URLs are refused."""
    fits: bool = False
    """Pictures may be fitted."""
    settings: bytes = b""
    """What the request itself changes of the pixels that the model sees."""
    cuts: Mapping[str, memoryview] = field(default_factory=dict)
    """By its data: URL, the base64 of a picture that was not parsed (see `outline`)."""
    missing: list[str] = field(default_factory=list)
    """URLs that are not among them."""
    pictures: int = 0
    pixels: int = 0
    tokens: int = 0
    found: dict[tuple[int, int], Found] = field(default_factory=dict)
    """By message and part: those that can be named."""


def check_messages(messages: Any, media: Media) -> None:
    """Adds the media of a chat to `media`.

    Raises:
        ApiError: 400 with the JSON path of what is wrong.
        Elsewhere: everything is fine so far, and some are still to be fetched.
    """
    if not isinstance(messages, list) or not messages:
        raise bad_request("messages", "messages is missing or empty", "send a list of {role, content} objects")
    for m, message in enumerate(messages):
        path = f"messages[{m}]"
        if not isinstance(message, dict):
            raise bad_request(path, f"{path} is not an object", "send {role, content}")
        content = message.get("content")
        if not isinstance(content, CONTENT):
            raise bad_request(f"{path}.content", f"{path}.content is no text", "send a string or a list of parts")
        for p, part in enumerate(content if isinstance(content, list) else ()):
            check_part(part, m, p, media)
    if media.missing:
        raise Elsewhere(media.missing)


def check_part(part: Any, m: int, p: int, media: Media) -> None:
    """Adds one part of a message to `media`. Looks at its keys, as vLLM does, because `type` may be left out."""
    if isinstance(part, str):
        return
    path = f"messages[{m}].content[{p}]"
    if not isinstance(part, dict):
        raise bad_request(path, f"{path} is not an object", 'send {"type": "text", "text": ...} or an image_url')
    if part.keys() == TEXT_KEYS and part["type"] == "text":
        return
    for key in EMBEDDING_KEYS:
        if key in part or part.get("type") == key:
            cause = f"{path} holds {key}, which are not taken from clients (CVE-2025-62164)"
            raise bad_request(path, cause, "send the medium itself")
    if part.get("type") in MEDIA_KEYS and part["type"] not in part:
        raise bad_request(path, f"{path} has no {part['type']}", "send the medium as a data: URL")
    try:
        named = media_key(part, m, p)
        if named == "file":
            add(find_url(part["file"]), "image", m, p, media, named=True)
        for key in part.keys() & PICTURE_KEYS:
            add(find_url(part[key]), "image", m, p, media, named=key == named)
        if named == "video_url" and isinstance(url := find_url(part[named]), str) and VIDEO.match(url):
            add(url, "video", m, p, media, named=True)
        else:
            for key in part.keys() & OTHER_KEYS:
                refuse_reference(reference(part[key]), path)
                media.tokens += VIDEO_TOKENS
    except MediaError as error:
        raise bad_request(path, f"{path} {error.cause}", error.remedy, "invalid_image") from None


def reference(value: Any) -> Any:
    """The URL or the data of a medium, which the API wraps into an object."""
    return value.get("url", value.get("data")) if isinstance(value, dict) else value


def add(url: str | None, modality: str, m: int, p: int, media: Media, *, named: bool) -> None:
    """
    Raises:
        ApiError: it does not come inside the request, or there is too much.
        MediaError: it is no such medium, or beyond the limits.
    """
    path = f"messages[{m}].content[{p}]"
    media.pictures += 1
    if media.pictures > MAX_PICTURES:
        raise bad_request(path, f"{path} is picture {media.pictures}", f"send at most {MAX_PICTURES} in a request")
    if url is None:
        raise bad_request(path, f"{path} has no url", "send the picture as a data: URL")
    stored = reference_to(url, path, media)
    if stored is None and not url.startswith(SCHEME):
        return  # it is being fetched
    text = media.cuts.get(url) if modality == "image" else None
    if stored:
        medium = stored.medium
    elif text is not None:
        medium = examine_base64(text, modality, media.vision)
    else:
        medium = examine_data_url(url, modality, media.vision)
    if medium.modality != modality:
        raise MediaError(f"holds a {medium.modality}", f"send it as {medium.modality}_url")
    media.pixels += medium.pixels
    media.tokens += medium.tokens
    if media.pixels > MAX_PIXELS:
        most = f"send at most {MAX_PIXELS / 1e6:.0f} megapixels in a request"
        raise bad_request(path, f"the pictures up to {path} have {media.pixels / 1e6:.0f} megapixels", most)
    if named:
        uuid = media.namer.name(medium.digest, tenant=media.tenant, modality=modality, settings=media.settings)
        data = stored.data if stored else None
        fits = media.fits and not media.settings and modality == "image"
        encoded = base64_text(url, stored, text) if fits else None
        media.found[m, p] = Found(m, p, uuid, medium.tokens, medium.encoded_bytes, data, encoded)


def base64_text(url: str, stored: Stored | None, cut: memoryview | None) -> bytes:
    if cut is not None:
        return bytes(cut)
    return stored.text if stored else url.partition(",")[2].encode("ascii", "replace")


def reference_to(url: str, path: str, media: Media) -> Stored | None:
    """The medium that was uploaded or fetched; None for one that comes inside the request, or is yet to be fetched.

    Raises:
        ApiError: there is no such upload; or the URL is none that is fetched.
    """
    if url.startswith(SCHEME):
        return None
    if url.startswith(FILE_PREFIX) and media.store:
        if found := media.store.get(media.tenant, url):
            return found
        remedy = "upload it with POST /v1/files: files are kept for an hour after their last use"
        raise bad_request(path, f"{path} names {url[:80]!r}, which is not here", remedy, "file_not_found")
    if media.fetched is None or url[:4].lower() != "http":
        cause = f"{path} points to a picture elsewhere, which is not fetched"
        raise bad_request(path, cause, "read it and send it as data:image/png;base64,...", "unsupported_url")
    if url not in media.fetched:
        media.missing.append(url)
    return media.fetched.get(url)


def refuse_reference(media: Any, path: str) -> None:
    """Videos and sound come inside the request too: an engine that fetches a URL can reach the inner network."""
    for url in media if isinstance(media, list) else (media,):
        if not isinstance(url, str) or "://" in url[:32] or url[:5].lower() == "file:":
            cause = f"{path} points to a medium elsewhere, which is not fetched"
            raise bad_request(path, cause, "send it as a data: URL", "unsupported_url")
