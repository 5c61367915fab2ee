"""A row made into a request, and the key by which a batch knows that it was answered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from blake3 import blake3

from vlfleet.batch.row import REMOTE, Flawed, Image, Inline, Row
from vlfleet.client.cache import is_deterministic
from vlfleet.client.neutral import neutralise
from vlfleet.client.travel import DataUrl
from vlfleet.errors import VlfleetError
from vlfleet.media.references import find_url, media_key

ID_BYTES = 8
CONTENT_BYTES = 16
"""Two of a million rows are mistaken for each other with a chance of 3e-8 by their ids, and never by their contents."""
LARGEST_BYTES = 32 << 20
"""What the gateway takes as one request (gateway/admission.py)."""
OBJECT_BYTES = 2048
"""What a waiting request takes besides its media."""
Parts = Callable[[list[Any], list[Any]], Awaitable[list[dict[str, Any]]]]
"""Content parts of images and videos: `AsyncClient.parts`."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Request fields for all rows; those of a row come before them."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    model: str = ""
    """For rows that name none. It is no part of what was asked: a fleet may call its model by another name tomorrow."""


@dataclass(slots=True)
class Request:
    """One question, ready to be sent. `key` is the digest of the row's id and of everything that is asked."""

    row: Row
    key: bytes
    body: dict[str, Any]
    size_bytes: int = OBJECT_BYTES
    shared: bool = True
    """The same question may have the same answer: it is not drawn at random on purpose."""

    @property
    def content(self) -> bytes:
        return self.key[ID_BYTES:]


@dataclass(frozen=True, slots=True)
class Flaw:
    """A row that cannot be asked, with a key like a request's."""

    flawed: Flawed
    key: bytes


async def prepare(row: Row | Flawed, settings: Settings, parts: Parts) -> Request | Flaw:
    """The request of a row; its files are read here, in threads."""
    if isinstance(row, Flawed):
        return flaw(row)
    try:
        body = dict(row.body) if row.body is not None else await made_body(row, settings, parts)
    except VlfleetError as error:
        return flaw(Flawed(row.id, error.cause, error.remedy, row))
    size = OBJECT_BYTES + sum(len(url) for url in urls_of(body))
    if size > LARGEST_BYTES:
        cause = f"the media of {row.id} are larger than {LARGEST_BYTES >> 20} MiB together, as they travel"
        return flaw(Flawed(row.id, cause, "scale them down, or ask about fewer at once", row))
    key = id_digest(row.id) + digest_of(shortened(body), row.url)
    shared = is_shared(body)
    if settings.model:
        body.setdefault("model", settings.model)
    # The row that is kept for the output needs no second copy of what is sent.
    return Request(row.without_data(), key, body, size, shared)


async def made_body(row: Row, settings: Settings, parts: Parts) -> dict[str, Any]:
    """The request of a row of ours: media first, so that questions about the same ones begin alike."""
    media = await parts([opened(each) for each in row.images], [opened(each) for each in row.videos])
    prompt = neutralise(row.prompt)
    content: Any = [*media, {"type": "text", "text": prompt}] if media else prompt
    system = [{"role": "system", "content": neutralise(row.system)}] if row.system else []
    return {"messages": [*system, {"role": "user", "content": content}], **settings.fields, **row.fields}


def opened(image: Image) -> Any:
    """A medium as the client takes it: a path is never read as a pattern or as base64."""
    if isinstance(image, Inline):
        return image.data
    return image if image.startswith(REMOTE) else Path(image)


def is_shared(body: Mapping[str, Any]) -> bool:
    """False for a request that asks for chance: a temperature, and no seed to repeat it with."""
    return body.get("temperature") is None or is_deterministic(body)


def parts_of(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The content parts of a chat, as far as they are objects."""
    messages = body.get("messages")
    contents = (
        [each.get("content") for each in messages if isinstance(each, dict)] if isinstance(messages, list) else []
    )
    lists = [content for content in contents if isinstance(content, list)]
    return [part for content in lists for part in content if isinstance(part, dict)]


def url_in(part: dict[str, Any]) -> tuple[str, str] | None:
    """The key of a part's medium and its URL; None for a text, or for what the server will refuse."""
    try:
        key = media_key(part, 0, 0)
    except ValueError:
        return None
    url = find_url(part[key]) if key else None
    return (key, url) if key and url is not None else None


def urls_of(body: Mapping[str, Any]) -> list[str]:
    return [found[1] for part in parts_of(body) if (found := url_in(part))]


def shortened(body: dict[str, Any]) -> dict[str, Any]:
    """A request with digests in place of megabytes of media."""
    if not urls_of(body):
        return body

    def short(part: Any) -> Any:
        found = url_in(part) if isinstance(part, dict) else None
        return {**part, found[0]: digest_of_url(found[1])} if found else part

    def message(each: Any) -> Any:
        content = each.get("content") if isinstance(each, dict) else None
        return {**each, "content": [short(part) for part in content]} if isinstance(content, list) else each

    return {**body, "messages": [message(each) for each in body["messages"]]}


def digest_of_url(url: str) -> str:
    known = url.digest if isinstance(url, DataUrl) else blake3(url.encode("utf-8", "surrogatepass")).digest()
    return known.hex()


def flaw(flawed: Flawed) -> Flaw:
    """Its key goes by what was wanted: a file that is mended makes it another row."""
    row = flawed.row
    said = [flawed.cause] if row is None else [row.prompt, row.system, *row.media_names]
    return Flaw(flawed, id_digest(flawed.id) + digest_of({"flawed": said}, ""))


def id_digest(name: str) -> bytes:
    return blake3(name.encode("utf-8", "surrogatepass")).digest(ID_BYTES)


def digest_of(content: Mapping[str, Any], url: str) -> bytes:
    text = orjson.dumps(content, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    return blake3(url.encode() + b"\0" + text).digest(CONTENT_BYTES)


def key_of(name: str, content: str) -> bytes:
    """The key of a row whose id and content's digest (hexadecimal) stand in an output.

    Raises:
        ValueError: it is no digest.
    """
    digest = bytes.fromhex(content)
    if len(digest) != CONTENT_BYTES:
        raise ValueError(content)
    return id_digest(name) + digest
