"""The media of a chat: found by their keys, named, measured, and refused where they do not come inside the request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vlfleet.gateway.errors import bad_request
from vlfleet.media import MediaError, Namer, Vision, examine_data_url
from vlfleet.media.references import find_url, media_key

MAX_PICTURES = 8
MAX_PIXELS = (512 << 20) // 3
"""Of all pictures together: 512 MiB once they are decoded to RGB (S5)."""
VIDEO_TOKENS = 2048
"""A guess; frames are not counted before the engine decodes them."""
PICTURE_KEYS = ("image_url", "image")
OTHER_KEYS = ("video_url", "video", "audio_url", "audio", "input_audio")
SCHEME = "data:"
MEDIA_KEYS = PICTURE_KEYS + OTHER_KEYS
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


@dataclass
class Media:
    """What the parts looked at so far hold."""

    vision: Vision
    namer: Namer
    tenant: str = ""
    pictures: int = 0
    pixels: int = 0
    tokens: int = 0
    found: dict[tuple[int, int], Found] = field(default_factory=dict)
    """By message and part: those that can be named."""


def check_messages(messages: Any, vision: Vision, namer: Namer, tenant: str = "") -> Media:
    """The media of a chat.

    Raises:
        ApiError: 400 with the JSON path of what is wrong.
    """
    if not isinstance(messages, list) or not messages:
        raise bad_request("messages", "messages is missing or empty", "send a list of {role, content} objects")
    media = Media(vision, namer, tenant)
    for m, message in enumerate(messages):
        path = f"messages[{m}]"
        if not isinstance(message, dict):
            raise bad_request(path, f"{path} is not an object", "send {role, content}")
        content = message.get("content")
        if not isinstance(content, str | list | None):
            raise bad_request(f"{path}.content", f"{path}.content is no text", "send a string or a list of parts")
        for p, part in enumerate(content if isinstance(content, list) else ()):
            check_part(part, m, p, media)
    return media


def check_part(part: Any, m: int, p: int, media: Media) -> None:
    """Adds one part of a message to `media`. Looks at its keys, as vLLM does, because `type` may be left out."""
    path = f"messages[{m}].content[{p}]"
    if isinstance(part, str):
        return
    if not isinstance(part, dict):
        raise bad_request(path, f"{path} is not an object", 'send {"type": "text", "text": ...} or an image_url')
    for key in EMBEDDING_KEYS:
        if key in part or part.get("type") == key:
            cause = f"{path} holds {key}, which are not taken from clients (CVE-2025-62164)"
            raise bad_request(path, cause, "send the medium itself")
    if part.get("type") in MEDIA_KEYS and part["type"] not in part:
        raise bad_request(path, f"{path} has no {part['type']}", "send the medium as a data: URL")
    try:
        named = media_key(part, m, p)
        for key in part.keys() & PICTURE_KEYS:
            add(find_url(part[key]), "image", m, p, media, named=key == named)
        if named == "video_url" and isinstance(url := find_url(part[named]), str) and url[:11].lower() == "data:video/":
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
    if not url.startswith(SCHEME):
        cause = f"{path} points to a picture elsewhere, which is not fetched"
        raise bad_request(path, cause, "read it and send it as data:image/png;base64,...", "unsupported_url")
    medium = examine_data_url(url, modality, media.vision)
    media.pixels += medium.pixels
    media.tokens += medium.tokens
    if media.pixels > MAX_PIXELS:
        most = f"send at most {MAX_PIXELS / 1e6:.0f} megapixels in a request"
        raise bad_request(path, f"the pictures up to {path} have {media.pixels / 1e6:.0f} megapixels", most)
    if named:
        uuid = media.namer.name(medium.digest, tenant=media.tenant, modality=modality)
        media.found[m, p] = Found(m, p, uuid, medium.tokens, medium.encoded_bytes)


def refuse_reference(media: Any, path: str) -> None:
    """Videos and sound come inside the request too: an engine that fetches a URL can reach the inner network."""
    for url in media if isinstance(media, list) else (media,):
        if not isinstance(url, str) or "://" in url[:32] or url[:5].lower() == "file:":
            cause = f"{path} points to a medium elsewhere, which is not fetched"
            raise bad_request(path, cause, "send it as a data: URL", "unsupported_url")
