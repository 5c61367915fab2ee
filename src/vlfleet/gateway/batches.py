"""/v1/batches, in OpenAI's form: a file of requests is worked off behind everybody else's, its answers are a file."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web

from vlfleet.batch.row import CHAT, COMPLETIONS
from vlfleet.batch.shelf import FINAL, INPUT, Card, FullError, Record, Shelf
from vlfleet.gateway.access import KEY
from vlfleet.gateway.admission import LIMITS, Limits, read_body
from vlfleet.gateway.batch_objects import described, metadata_of
from vlfleet.gateway.batch_worker import Worker
from vlfleet.gateway.behalf import claimed
from vlfleet.gateway.errors import ApiError, bad_request

ENDPOINTS = (CHAT, COMPLETIONS)
WINDOW = "24h"
WINDOW_SECONDS = 86_400
BODY_BYTES = 64 << 10
PAGE = 100


@dataclass(frozen=True)
class Batches:
    """What the handlers need."""

    shelf: Shelf
    worker: Worker
    tenant_of: Callable[[web.Request], str]


BATCHES = web.AppKey("batches", Batches)


def add_batches(app: web.Application, batches: Batches) -> None:
    """Adds the routes to the gateway. The worker begins when `opened` is called with the gateway's address."""
    app[BATCHES] = batches
    app.router.add_post("/v1/batches", create)
    app.router.add_get("/v1/batches", listing)
    app.router.add_get("/v1/batches/{id}", show)
    app.router.add_post("/v1/batches/{id}/cancel", cancel)

    async def close(app: web.Application) -> None:
        await batches.worker.close()

    app.on_shutdown.append(close)


def opened(app: web.Application, host: str, port: int) -> None:
    """The gateway listens: its batches can be asked."""
    if batches := app.get(BATCHES):
        own = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104
        batches.worker.opened(f"http://[{own}]:{port}" if ":" in own else f"http://{own}:{port}")


async def create(request: web.Request) -> web.Response:
    """POST /v1/batches."""
    batches, body = request.app[BATCHES], await read_object(request)
    tenant = batches.tenant_of(request)
    endpoint, window = body.get("endpoint"), body.get("completion_window", WINDOW)
    if endpoint not in ENDPOINTS:
        raise bad_request("endpoint", f"endpoint is {str(endpoint)[:64]!r}", f"use {' or '.join(ENDPOINTS)}")
    if window != WINDOW:
        raise bad_request("completion_window", "completion_window is another than 24h", "use 24h")
    file_id = body.get("input_file_id")
    card = batches.shelf.file(tenant, file_id) if isinstance(file_id, str) else None
    if card is None or card.purpose != INPUT:
        raise bad_request(
            "input_file_id", "input_file_id names no file of yours with purpose=batch", "upload it with POST /v1/files"
        )
    now = int(time.time())
    key, claim = request.get(KEY), claimed(request)
    record = Record(
        id=f"batch_{secrets.token_hex(16)}",
        tenant=tenant,
        key_sha256=key.sha256 if key else claim.key_sha256 if claim else "",
        endpoint=endpoint,
        input_file_id=card.id,
        created_at=now,
        expires_at=now + WINDOW_SECONDS,
        metadata=metadata_of(body),
    )
    try:
        batches.shelf.begin_batch(record)
    except FullError:
        headers = {"Retry-After": "60"}
        message = "too many batches wait; send this one when some are finished"
        raise ApiError(429, "too_many_batches", message, headers=headers) from None
    except OSError as error:
        raise no_room(error) from None
    batches.worker.look()
    return answer(described(record))


async def listing(request: web.Request) -> web.Response:
    """GET /v1/batches, the newest first; `limit` and `after` as OpenAI has them."""
    batches, query = request.app[BATCHES], request.query
    records = batches.shelf.records(batches.tenant_of(request))
    if after := query.get("after"):
        places = [place for place, record in enumerate(records) if record.id == after]
        records = records[places[0] + 1 :] if places else []
    limit = query.get("limit", "20")
    most = int(limit) if limit.isascii() and limit.isdecimal() and 0 < int(limit[:9]) <= PAGE else 0
    if not most:
        raise bad_request("limit", "limit is no number from 1 to 100", "send one")
    page = records[:most]
    return answer(
        {
            "object": "list",
            "data": [described(record) for record in page],
            "first_id": page[0].id if page else None,
            "last_id": page[-1].id if page else None,
            "has_more": len(records) > most,
        }
    )


async def show(request: web.Request) -> web.Response:
    """GET /v1/batches/{id}."""
    return answer(described(found(request)))


async def cancel(request: web.Request) -> web.Response:
    """POST /v1/batches/{id}/cancel: takes no more rows; those in flight end."""
    batches, record = request.app[BATCHES], found(request)
    if record.status in FINAL:
        raise ApiError(409, "batch_finished", f"the batch is {record.status} already; nothing is left to cancel")
    if record.status != "cancelling":
        running = batches.worker.running is record
        record.become("cancelling" if running or record.status == "in_progress" else "cancelled")
        batches.shelf.save(record)
        batches.worker.look()
    return answer(described(record))


async def content(request: web.Request, card: Card) -> web.StreamResponse:
    """GET /v1/files/{id}/content, of a file on the shelf."""
    path = request.app[BATCHES].shelf.path(card.id)
    return web.FileResponse(path, headers={"Content-Type": "application/jsonl"})


async def receive(request: web.Request, chunks: AsyncIterator[bytes], filename: str) -> Card:
    """Takes an upload with purpose=batch, piece by piece to the disk.

    Raises:
        ApiError: it is too large, or there is no room.
    """
    batches = request.app[BATCHES]
    try:
        incoming = batches.shelf.begin()
    except FullError:
        raise ApiError(507, "storage_full", "no more files are kept here; delete some of yours") from None
    except OSError as error:
        raise no_room(error) from None
    try:
        async for chunk in chunks:
            incoming.feed(chunk)
        if not incoming.bytes:
            raise bad_request("file", "the upload holds no file", "send a form with file and purpose=batch")
        return incoming.keep(batches.tenant_of(request), filename)
    except FullError:
        most = batches.shelf.bounds.file_bytes >> 20
        message = f"the file is larger than {most} MiB, or there is no room for it; send a smaller one"
        raise ApiError(413, "file_too_large", message) from None
    except OSError as error:
        raise no_room(error) from None
    finally:
        incoming.drop()


def found(request: web.Request) -> Record:
    """The batch of the path.

    Raises:
        ApiError: 404, there is none, or it is another tenant's.
    """
    batches, batch_id = request.app[BATCHES], request.match_info["id"]
    record = batches.shelf.record(batches.tenant_of(request), batch_id)
    if record is None:
        raise ApiError(404, "batch_not_found", f"there is no batch {batch_id[:80]!r} of yours here")
    return record


async def read_object(request: web.Request) -> dict[str, Any]:
    """The body, a small JSON object.

    Raises:
        ApiError: it is none.
    """
    body = await read_body(request, Limits(BODY_BYTES, LIMITS.body_stall_seconds))
    try:
        sent = orjson.loads(body)
    except ValueError:
        sent = None
    if not isinstance(sent, dict):
        raise bad_request(None, "the body is not a JSON object", "send {...}", "invalid_json")
    return sent


def no_room(error: OSError) -> ApiError:
    message = f"the gateway cannot keep it: {(error.strerror or 'the disk fails').lower()}; make room on its disk"
    return ApiError(507, "storage_full", message)


def answer(payload: dict[str, Any]) -> web.Response:
    return web.Response(body=orjson.dumps(payload), headers={"Content-Type": "application/json"})
