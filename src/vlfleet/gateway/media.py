"""The media of a chat: found by their keys, counted, and refused where they do not come inside the request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vlfleet.gateway.errors import bad_request
from vlfleet.gateway.pictures import measure

MAX_PICTURES = 8
MAX_PIXELS = (512 << 20) // 3
"""Of all pictures together: 512 MiB once they are decoded to RGB (S5)."""
VIDEO_TOKENS = 2048
"""A guess; frames are not counted before the engine decodes them."""
PICTURE_KEYS = ("image_url", "image")
OTHER_KEYS = ("video_url", "video", "audio_url", "audio", "input_audio")
MEDIA_KEYS = PICTURE_KEYS + OTHER_KEYS
EMBEDDING_KEYS = ("image_embeds", "video_embeds", "audio_embeds")


@dataclass
class Media:
    """What the parts looked at so far hold."""

    pictures: int = 0
    pixels: int = 0
    tokens: int = 0


def check_messages(messages: Any) -> Media:
    """The media of a chat.

    Raises:
        ApiError: 400 with the JSON path of what is wrong.
    """
    if not isinstance(messages, list) or not messages:
        raise bad_request("messages", "messages is missing or empty", "send a list of {role, content} objects")
    media = Media()
    for m, message in enumerate(messages):
        path = f"messages[{m}]"
        if not isinstance(message, dict):
            raise bad_request(path, f"{path} is not an object", "send {role, content}")
        content = message.get("content")
        if not isinstance(content, str | list | None):
            raise bad_request(f"{path}.content", f"{path}.content is no text", "send a string or a list of parts")
        for p, part in enumerate(content if isinstance(content, list) else ()):
            check_part(part, f"{path}.content[{p}]", media)
    return media


def check_part(part: Any, path: str, media: Media) -> None:
    """Adds one part of a message to `media`. Looks at its keys, as vLLM does, because `type` may be left out."""
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
    for key in part.keys() & PICTURE_KEYS:
        add_picture(reference(part[key]), path, media)
    for key in part.keys() & OTHER_KEYS:
        refuse_reference(reference(part[key]), path)
        media.tokens += VIDEO_TOKENS


def reference(value: Any) -> Any:
    """The URL or the data of a medium, which the API wraps into an object."""
    return value.get("url", value.get("data")) if isinstance(value, dict) else value


def add_picture(url: Any, path: str, media: Media) -> None:
    media.pictures += 1
    if media.pictures > MAX_PICTURES:
        raise bad_request(path, f"{path} is picture {media.pictures}", f"send at most {MAX_PICTURES} in a request")
    pixels, tokens = measure(url, path)
    media.pixels += pixels
    media.tokens += tokens
    if media.pixels > MAX_PIXELS:
        most = f"send at most {MAX_PIXELS / 1e6:.0f} megapixels in a request"
        raise bad_request(path, f"the pictures up to {path} have {media.pixels / 1e6:.0f} megapixels", most)


def refuse_reference(media: Any, path: str) -> None:
    """Videos and sound come inside the request too: an engine that fetches a URL can reach the inner network."""
    for url in media if isinstance(media, list) else (media,):
        if not isinstance(url, str) or "://" in url[:32] or url[:5].lower() == "file:":
            cause = f"{path} points to a medium elsewhere, which is not fetched"
            raise bad_request(path, cause, "send it as a data: URL", "unsupported_url")
