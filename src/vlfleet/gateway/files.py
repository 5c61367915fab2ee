"""/v1/files: a picture or video is uploaded once, and requests refer to it by its id.

The id comes from the content, so the same file uploaded twice is one file. It belongs to the tenant who sent it.
"""

from __future__ import annotations

import asyncio
import binascii
import warnings
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import BadContentDispositionHeader, BadContentDispositionParam, BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError

from vlfleet.batch.shelf import INPUT, Card
from vlfleet.gateway.batch_objects import file_object
from vlfleet.gateway.batches import BATCHES, content, receive
from vlfleet.gateway.errors import ApiError, bad_request
from vlfleet.media import MediaError, MediaLimits, Namer, Store, Stored, Vision, examine_base64
from vlfleet.media.header import GATEWAY_LIMITS

PURPOSES = ("vision", "user_data")
FIELD_BYTES = 1024
"""Of a field of the form that is not the file."""
MAX_FIELDS = 8
STALL_SECONDS = 20.0
CHUNK_BYTES = 256 << 10


@dataclass(frozen=True)
class Files:
    """What the handlers need. `tenant_of` says whose request it is."""

    store: Store
    namer: Namer
    vision: Vision
    tenant_of: Callable[[web.Request], str] = lambda request: ""
    limits: MediaLimits = GATEWAY_LIMITS
    stall_seconds: float = STALL_SECONDS


FILES = web.AppKey("files", Files)


def add_files(app: web.Application, files: Files) -> None:
    """Adds the routes to the gateway. What aiohttp warns of holds a client's words, so nothing is warned of."""
    for warning in (BadContentDispositionHeader, BadContentDispositionParam):
        warnings.filterwarnings("ignore", category=warning)
    app[FILES] = files
    app.router.add_post("/v1/files", upload)
    app.router.add_get("/v1/files", listing)
    app.router.add_get("/v1/files/{id}", show)
    app.router.add_get("/v1/files/{id}/content", download)
    app.router.add_delete("/v1/files/{id}", delete)


async def upload(request: web.Request) -> web.Response:
    """POST /v1/files: a form with `file` and `purpose`, as OpenAI's SDKs send it, or the bytes alone."""
    files = request.app[FILES]
    try:
        async with asyncio.timeout(files.stall_seconds) as stall:
            if request.content_type == "multipart/form-data":
                sent = await read_form(request, files, stall)
            else:
                sent = Sent(request.content_type.partition("/")[0])
                await fill(sent.file, request.content.readany, files, stall)
    except TimeoutError:
        message = f"nothing of the file came for {files.stall_seconds:.0f} s; send it without a pause"
        raise ApiError(408, "request_timeout", message) from None
    if isinstance(sent, Card):
        return answer(file_object(sent))
    text = sent.file.finish()
    if not text:
        raise bad_request("file", "the upload holds no file", "send a form with file and purpose=vision, or the bytes")
    try:
        medium = examine_base64(text, sent.modality, files.vision, files.limits)
    except MediaError as error:
        raise bad_request("file", f"the file {error.cause}", error.remedy, "invalid_file") from None
    tenant = files.tenant_of(request)
    stored = Stored(files.namer.file_id(medium.digest, tenant=tenant), medium, text, sent.filename)
    if not files.store.put(tenant, stored):
        raise ApiError(413, "file_too_large", f"the store holds {files.store.max_bytes >> 20} MiB; send a smaller file")
    return answer(described(files.store.get(tenant, stored.file_id) or stored))


async def listing(request: web.Request) -> web.Response:
    """GET /v1/files."""
    files = request.app[FILES]
    tenant = files.tenant_of(request)
    held = [described(stored) for stored in files.store.files(tenant)]
    if batches := request.app.get(BATCHES):
        held += [file_object(card) for card in batches.shelf.files(tenant)]
    return answer({"object": "list", "data": held, "has_more": False})


async def show(request: web.Request) -> web.Response:
    """GET /v1/files/{id}."""
    if card := card_of(request):
        return answer(file_object(card))
    files = request.app[FILES]
    stored = files.store.get(files.tenant_of(request), request.match_info["id"])
    if stored is None:
        raise unknown(request.match_info["id"])
    return answer(described(stored))


async def download(request: web.Request) -> web.StreamResponse:
    """GET /v1/files/{id}/content: what a batch reads, and what it wrote."""
    if card := card_of(request):
        return await content(request, card)
    files, file_id = request.app[FILES], request.match_info["id"]
    if files.store.get(files.tenant_of(request), file_id) is None:
        raise unknown(file_id)
    raise bad_request(None, "a medium is not given out again", "only files of batches are")


async def delete(request: web.Request) -> web.Response:
    """DELETE /v1/files/{id}."""
    files, file_id = request.app[FILES], request.match_info["id"]
    if card := card_of(request):
        if request.app[BATCHES].shelf.in_use(card.id):
            raise ApiError(409, "file_in_use", "a batch that is not finished reads the file; cancel it first")
        request.app[BATCHES].shelf.remove(card.tenant, card.id)
    elif not files.store.remove(files.tenant_of(request), file_id):
        raise unknown(file_id)
    return answer({"id": file_id, "object": "file", "deleted": True})


def card_of(request: web.Request) -> Card | None:
    """The file of a batch that the path names; None for everything else."""
    batches = request.app.get(BATCHES)
    return batches.shelf.file(batches.tenant_of(request), request.match_info["id"]) if batches else None


class Base64:
    """Bytes turned to base64 as they come: 16 MiB at once would hold up the loop for 20 ms."""

    def __init__(self) -> None:
        self.bytes = 0
        self._text = bytearray()
        self._rest = b""

    def feed(self, chunk: bytes) -> None:
        self.bytes += len(chunk)
        chunk = self._rest + chunk
        whole = len(chunk) - len(chunk) % 3
        self._text += binascii.b2a_base64(chunk[:whole], newline=False)
        self._rest = chunk[whole:]

    def finish(self) -> bytes:
        return bytes(self._text) + binascii.b2a_base64(self._rest, newline=False)


class Sent:
    """An upload as it came. What is not said to be a video is taken for a picture, and judged by its bytes."""

    def __init__(self, kind: str = "", filename: str = "") -> None:
        self.modality = "video" if kind == "video" else "image"
        self.filename = filename[:255]
        self.file = Base64()


async def read_form(request: web.Request, files: Files, stall: asyncio.Timeout) -> Sent | Card:
    """The file of a form, whose other fields are checked. One with purpose=batch is on disk already.

    Raises:
        ApiError: the form is damaged, too large, or for another purpose.
    """
    sent, purpose = Sent(), "vision"
    batches, card = request.app.get(BATCHES), None
    try:
        reader = await request.multipart()
        for _ in range(MAX_FIELDS):
            part = await reader.next()
            if part is None:
                break
            if not isinstance(part, BodyPartReader):
                raise bad_request("file", "the form holds a form", "send fields only")
            name, filename = part.name or "", part.filename or ""
            if name == "file" and batches and (purpose == INPUT or filename.lower().endswith(".jsonl")):
                card = await receive(request, pieces(part, files, stall), filename[:255])
            elif name == "file":
                video = part.headers.get("Content-Type", "").startswith("video/") or filename.lower().endswith(".mp4")
                sent = Sent("video" if video else "image", filename)
                await fill(sent.file, part.read_chunk, files, stall)
            else:
                value = await small_field(part, name)
                purpose = value if name == "purpose" else purpose
    except (ValueError, HttpProcessingError):  # aiohttp's words for boundaries and headers that are none
        raise bad_request(None, "the form cannot be read", "send multipart/form-data with a file") from None
    if card and batches:
        if purpose == INPUT:
            return card
        batches.shelf.remove(card.tenant, card.id)
        raise bad_request("purpose", "a .jsonl file is no picture", "send it with purpose=batch")
    if purpose == INPUT and batches:
        raise bad_request("file", "the file of a batch is not named .jsonl", "name it so, or send purpose before it")
    if purpose not in PURPOSES:
        raise bad_request("purpose", f"purpose is {purpose[:32]!r}", f"use {' or '.join(PURPOSES)}")
    return sent


async def pieces(part: BodyPartReader, files: Files, stall: asyncio.Timeout) -> AsyncIterator[bytes]:
    """A file of a form, as it comes."""
    loop = asyncio.get_running_loop()
    while chunk := await part.read_chunk(CHUNK_BYTES):
        yield chunk
        stall.reschedule(loop.time() + files.stall_seconds)


async def fill(file: Base64, read: Callable[..., Any], files: Files, stall: asyncio.Timeout) -> None:
    """Reads a file to its end.

    Raises:
        ApiError: 413 as soon as it is known to be too large.
    """
    loop = asyncio.get_running_loop()
    while chunk := await read():
        file.feed(chunk)
        if file.bytes > files.limits.encoded_bytes:
            most = files.limits.encoded_bytes >> 20
            raise ApiError(413, "file_too_large", f"the file is larger than {most} MiB; send a smaller one")
        stall.reschedule(loop.time() + files.stall_seconds)


async def small_field(part: BodyPartReader, name: str) -> str:
    value = bytearray()
    while chunk := await part.read_chunk():
        value += chunk
        if len(value) > FIELD_BYTES:
            raise bad_request(name[:32] or None, f"the field {name[:32]!r} is too long", "send file and purpose")
    return value.decode("utf-8", "replace").strip()


def described(stored: Stored) -> dict[str, Any]:
    """An OpenAI File object, with what the medium costs."""
    medium = stored.medium
    return {
        "id": stored.file_id,
        "object": "file",
        "bytes": medium.encoded_bytes,
        "created_at": int(stored.created_at),
        "filename": stored.filename or stored.file_id,
        "purpose": "vision",
        "status": "processed",
        "width": medium.width,
        "height": medium.height,
        "frames": medium.frames,
        "visual_tokens": medium.tokens,
    }


def unknown(file_id: str) -> ApiError:
    return ApiError(404, "file_not_found", f"there is no file {file_id[:80]!r}; upload it with POST /v1/files")


def answer(payload: dict[str, Any]) -> web.Response:
    return web.Response(body=orjson.dumps(payload), headers={"Content-Type": "application/json"})
