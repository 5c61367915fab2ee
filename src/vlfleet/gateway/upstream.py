"""One try of one request at one replica: sent as it came, its answer passed on as it comes."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Collection, Mapping

import orjson
from aiohttp import web

from vlfleet.client.retries import retry_after
from vlfleet.fleet.replica import Replica
from vlfleet.gateway.errors import ApiError, bad_request
from vlfleet.gateway.exchange import (
    REQUEST_ID,
    Exchange,
    Missed,
    Unanswered,
    died,
    healthy,
    lacks_medium,
    reply_headers,
)
from vlfleet.gateway.relay import pass_stream
from vlfleet.gateway.wire import HOST, Unreachable, Wire, WireError
from vlfleet.media import Edit, MediaError, Spliced, splice

PASSED_ON, CONTEXT = ("Accept", "User-Agent"), ("traceparent", "tracestate")
"""Headers that reach the engine. The rest stays here: the client's key and cookies, hop-by-hop headers, and those by
which vLLM would let a client pick a data-parallel rank."""
LINE_END = re.compile(r"[\r\n\0]")
COMPLETION_TOKENS = re.compile(rb'"completion_tokens":\s*(\d+)')


async def send(exchange: Exchange, replica: Replica, omit: Collection[str] = ()) -> web.StreamResponse:
    """The replica's answer, already on its way to the client when it is a stream. `omit`: names of media that are sent
    without their data.

    Raises:
        Unanswered: nothing has reached the client.
        Missed: the replica lacks one of `omit`.
    """
    gateway = exchange.gateway
    fits = await fitted(exchange, omit) if gateway.fitter and exchange.ask.media else {}
    body = named(exchange, replica, omit, fits)
    head = upstream_head(exchange, replica, body.length_bytes)
    gateway.metrics.overhead.since(exchange.started)
    gateway.waiting.add(exchange)
    try:
        wire = await gateway.pool.connect(replica.port)
        exchange.connected(wire, gateway.limits.first_byte_seconds)
        await wire.ask(head, body.pieces)
        if exchange.ask.stream and wire.status == 200:
            return await pass_stream(exchange, replica, wire)
        return await pass_whole(exchange, replica, wire)
    except Unreachable:
        error = ApiError(503, "replica_unreachable", f"{replica.name} cannot be reached", headers={"Retry-After": "1"})
        raise Unanswered(error, sent=False, unreachable=True) from None
    except TimeoutError:
        if exchange.moved:
            error = ApiError(504, "no_progress", f"{replica.name} makes no progress", headers={"Retry-After": "2"})
            raise Unanswered(error, sent=False) from None
        seconds = gateway.limits.first_byte_seconds
        raise Unanswered(ApiError(504, "timeout", f"{replica.name} gave no answer within {seconds} s")) from None
    except WireError:
        raise died(exchange, replica) from None
    finally:
        exchange.over()


async def fitted(exchange: Exchange, omit: Collection[str]) -> dict[str, tuple[bytes, bytes]]:
    """By name, the pictures that go on at the size at which the model sees them.

    Raises:
        ApiError: 400, one is damaged.
    """
    fitter = exchange.gateway.fitter
    if fitter is None:
        return {}
    found: dict[str, tuple[bytes, bytes]] = {}
    for each in exchange.ask.media:
        if each.text is None or each.uuid in omit or each.uuid in found:
            continue
        try:
            data = await fitter.data(each.text)
        except MediaError as error:
            path = f"messages[{each.message}].content[{each.part}]"
            raise bad_request(path, f"{path} {error.cause}", error.remedy, "invalid_image") from None
        if data is not None:
            found[each.uuid] = data
    return found


def named(
    exchange: Exchange, replica: Replica, omit: Collection[str], fits: Mapping[str, tuple[bytes, bytes]]
) -> Spliced:
    """The body as it came, with a name for each medium, which takes the place of a name that the client chose (it might
    be another tenant's), and without data that the replica holds."""
    media = exchange.ask.media
    if not media:
        return Spliced([exchange.body])
    left_out = [each for each in media if each.uuid in omit]
    saved = sum(each.encoded_bytes for each in left_out)
    exchange.gateway.metrics.sent_media(replica.name, len(media), len(left_out), saved)
    edits = (
        Edit(each.message, each.part, each.uuid, drop=True)
        if each.uuid in omit
        else Edit(each.message, each.part, each.uuid, data=fits.get(each.uuid, each.data))
        for each in media
    )
    return splice(exchange.body, None, edits)


def upstream_head(exchange: Exchange, replica: Replica, size: int) -> bytes:
    """The head of the request as the engine gets it. What is passed on was taken apart by a parser that lets no line
    end into a value, and is left out all the same where it holds one."""
    request = exchange.request
    came = request.headers
    context = exchange.trace.headers if exchange.trace else came
    passed = [
        f"{name}: {value}\r\n"
        for names, where in ((PASSED_ON, came), (CONTEXT, context))
        for name in names
        if (value := where.get(name)) is not None and not LINE_END.search(value)
    ]
    return (
        f"POST {request.path} HTTP/1.1\r\nHost: {HOST}:{replica.port}\r\n{''.join(passed)}"
        f"Authorization: Bearer {replica.api_key}\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n"
        f"Accept-Encoding: identity\r\nX-Request-Id: {exchange.request[REQUEST_ID]}\r\n\r\n"
    ).encode("utf-8", "surrogateescape")


def told_tokens(body: bytes) -> int:
    """Of the answer, as the engine counted them; 0 if it did not."""
    found = COMPLETION_TOKENS.search(body, max(0, len(body) - 2048))
    return int(found[1]) if found else 0


async def pass_whole(exchange: Exchange, replica: Replica, wire: Wire) -> web.Response:
    """An answer in one piece. It is read to its end first, so an engine that dies over it leaves room for a retry."""
    body = await read_answer(exchange, replica, wire)
    status, content_type = wire.status, wire.header(b"content-type")
    if status == 200:
        replica.progress_at = time.monotonic()
        if exchange.visit:
            exchange.visit.tokens = told_tokens(body)
    if status == 400 and lacks_medium(body):
        raise Missed
    if status in (429, 503):
        seconds = retry_after(wire.header(b"retry-after")) or 1.0
        headers = {"Retry-After": str(math.ceil(seconds))}
        error = ApiError(503, "overloaded", f"{replica.name}: {engine_message(body)}", headers=headers)
        raise Unanswered(error, pause_seconds=seconds)
    if status in (401, 403):
        message = f"{replica.name} does not take the fleet's key; another program may listen on its port"
        raise Unanswered(ApiError(502, "replica_refused", message), sent=False)
    if status >= 500 and not await healthy(exchange.gateway, replica):
        raise died(exchange, replica)
    if not content_type.startswith("application/json") or (status == 200 and body[:1] not in (b"{", b"[")):
        raise Unanswered(ApiError(502, "bad_answer", f"{replica.name} answered {status} with no JSON"))
    replica.served += status == 200
    exchange.code = status
    return web.Response(status=status, body=body, headers=reply_headers(exchange, replica, content_type))


async def read_answer(exchange: Exchange, replica: Replica, wire: Wire) -> bytes:
    """The whole body of an engine's answer.

    Raises:
        ApiError: it does not end. Nobody else is asked: the next engine may not know how to stop either.
    """
    first, most = await wire.read(), exchange.gateway.limits.answer_bytes
    body = bytearray(first)
    while chunk := await wire.read():
        body += chunk
        if len(body) > most:
            message = f"{replica.name} answered more than {most >> 20} MiB; set max_tokens, or ask for a stream"
            raise ApiError(502, "endless_answer", message)
    return first if len(first) == len(body) else bytes(body)


def engine_message(body: bytes) -> str:
    try:
        return str(orjson.loads(body)["error"]["message"])
    except (ValueError, TypeError, KeyError):
        return "the engine is overloaded"
