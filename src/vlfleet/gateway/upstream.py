"""One try of one request at one replica: sent as it came, its answer passed on as it comes."""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import aiohttp
import orjson
from aiohttp import web

from vlfleet.fleet.replica import Replica
from vlfleet.gateway.errors import ApiError, bad_request
from vlfleet.gateway.inspection import Ask
from vlfleet.gateway.metrics import CLIENT_LEFT
from vlfleet.gateway.route.gate import Turn
from vlfleet.gateway.route.pauses import retry_after_seconds
from vlfleet.gateway.route.router import Decision, explain
from vlfleet.gateway.route.tracker import Job
from vlfleet.gateway.sse import WholeEvents
from vlfleet.gateway.state import Gateway
from vlfleet.media import Edit, MediaError, Spliced, splice
from vlfleet.media.identity import Buffer

REQUEST_ID = web.RequestKey("request_id", str)
REPLICA = web.RequestKey("replica", str)
"""The one that was asked last; missing when none was."""
PASSED_ON = ("Accept", "User-Agent", "traceparent", "tracestate")
"""Headers that reach the engine. The rest stays here: the client's key and cookies, hop-by-hop headers, and those by
which vLLM would let a client pick a data-parallel rank."""
SLICE_BYTES = 256 << 10
HEALTH_SECONDS = 1.0
ROUTE = "x-vlfleet-route"
"""1 in a request: its answer says in a header of this name where it went, and why."""
CACHE_MISS = b"Cache miss for"
COMPLETION_TOKENS = re.compile(rb'"completion_tokens":\s*(\d+)')
UNREACHABLE = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


class Unanswered(Exception):  # noqa: N818  (a state of the request, told to nobody)
    """The replica gave nothing that has reached the client, so another may be asked; else `error` is the answer."""

    def __init__(
        self, error: ApiError, *, sent: bool = True, unreachable: bool = False, pause_seconds: float = 0.0
    ) -> None:
        super().__init__(error.message)
        self.error = error
        self.sent = sent
        """The engine may have begun to work on it, and another try is not paid for."""
        self.unreachable = unreachable
        """The connection failed: the engine may be dead."""
        self.pause_seconds = pause_seconds
        """It asked to be left alone for so long."""


class Missed(Exception):  # noqa: N818  (told to nobody: the request goes again)
    """The engine lacks a medium that it was sent by its name alone."""


class ClientGone(Exception):  # noqa: N818
    """Nobody reads the answer any more."""


@dataclass
class Visit:
    """A request at a replica, as the router sees it."""

    decision: Decision
    job: Job
    tokens: int = 0
    """Of the answer: events of the stream, or what the engine counted."""


@dataclass(eq=False)
class Exchange:
    """One request and what became of it."""

    gateway: Gateway
    request: web.Request
    started: float
    """`time.perf_counter()` at the last byte of the body."""
    tenant: str = ""
    """Who asks, for shares and for names of media."""
    body: bytearray = field(default_factory=bytearray)
    turn: Turn = field(default_factory=lambda: Turn(-1))
    ask: Ask = field(default_factory=Ask)
    code: int = CLIENT_LEFT
    """The status to count it under."""
    tried: list[Replica] = field(default_factory=list)
    """In their order; the last one has it now."""
    visit: Visit | None = None
    """The present try."""
    patience: asyncio.Timeout | None = None
    """Ends the current try."""
    moved: bool = False
    """This try was ended for another, and paid for."""

    @asynccontextmanager
    async def attempt(self, seconds: float | None) -> AsyncIterator[None]:
        """One try, which may be moved to another replica until `begin`. TimeoutError: it was, or `seconds` are over."""
        self.moved = False
        self.gateway.waiting.add(self)
        try:
            async with asyncio.timeout(seconds) as self.patience:
                yield
        finally:
            self.gateway.waiting.discard(self)

    def begin(self) -> None:
        """The answer is on its way to the client: it has all the time, and stays where it is."""
        self.gateway.waiting.discard(self)
        if self.patience:
            self.patience.reschedule(None)

    def move(self) -> None:
        """Ends this try, so that the next one begins."""
        if self.patience and not self.patience.expired():
            self.moved = True
            self.patience.reschedule(asyncio.get_running_loop().time())
            self.gateway.waiting.discard(self)


async def send(exchange: Exchange, replica: Replica, omit: Collection[str] = ()) -> web.StreamResponse:
    """The replica's answer, already on its way to the client when it is a stream. `omit`: names of media that are sent
    without their data.

    Raises:
        Unanswered: nothing has reached the client.
        Missed: the replica lacks one of `omit`.
    """
    gateway = exchange.gateway
    body = named(exchange, replica, omit, await fitted(exchange, omit))
    size = body.length_bytes
    headers = upstream_headers(exchange, replica, size)
    # aiohttp copies a small body in one go; a large one is fed in slices so that other streams keep moving.
    data = body.join() if size <= SLICE_BYTES else slices(body.pieces)
    gateway.metrics.overhead.observe(time.perf_counter() - exchange.started)
    url = replica.base_url + exchange.request.path
    try:
        async with (
            exchange.attempt(gateway.limits.first_byte_seconds),
            gateway.session.post(url, data=data, headers=headers, allow_redirects=False) as upstream,
        ):
            if exchange.ask.stream and upstream.status == 200:
                return await pass_stream(exchange, replica, upstream)
            return await pass_whole(exchange, replica, upstream)
    except UNREACHABLE:
        error = ApiError(503, "replica_unreachable", f"{replica.name} cannot be reached", headers={"Retry-After": "1"})
        raise Unanswered(error, sent=False, unreachable=True) from None
    except TimeoutError:
        if exchange.moved:
            error = ApiError(504, "no_progress", f"{replica.name} makes no progress", headers={"Retry-After": "2"})
            raise Unanswered(error, sent=False) from None
        seconds = gateway.limits.first_byte_seconds
        raise Unanswered(ApiError(504, "timeout", f"{replica.name} gave no answer within {seconds} s")) from None
    except (aiohttp.ClientError, ConnectionError):
        raise died(exchange, replica) from None


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


def died(exchange: Exchange, replica: Replica) -> Unanswered:
    message = f"{replica.name} died before it answered request {exchange.request[REQUEST_ID]}; send it again"
    return Unanswered(ApiError(502, "replica_died", message), unreachable=True)


async def healthy(exchange: Exchange, replica: Replica) -> bool:
    """Whether an engine that has just reported an error can go on. When vLLM's engine process dies, its API server
    lives some seconds longer, answers 500 to everything, and 503 to /health."""
    headers, timeout = upstream_headers(exchange, replica, 0), aiohttp.ClientTimeout(total=HEALTH_SECONDS)
    del headers["Content-Length"]
    try:
        url = f"{replica.base_url}/health"
        async with exchange.gateway.session.get(url, headers=headers, timeout=timeout) as answer:
            return answer.status == 200
    except (TimeoutError, aiohttp.ClientError, ConnectionError):
        return False


def upstream_headers(exchange: Exchange, replica: Replica, size: int) -> dict[str, str]:
    came = exchange.request.headers
    return {
        **{name: came[name] for name in PASSED_ON if name in came},
        "Authorization": f"Bearer {replica.api_key}",
        "Content-Type": "application/json",
        "Content-Length": str(size),
        "Accept-Encoding": "identity",
        "X-Request-Id": exchange.request[REQUEST_ID],
    }


async def slices(pieces: Sequence[Buffer]) -> AsyncIterator[memoryview]:
    for piece in pieces:
        view = memoryview(piece)
        for start in range(0, len(view), SLICE_BYTES):
            yield view[start : start + SLICE_BYTES]


def reply_headers(exchange: Exchange, replica: Replica, content_type: str) -> dict[str, str]:
    request_id = exchange.request[REQUEST_ID]
    headers = {"Content-Type": content_type, "X-Request-Id": request_id, "X-Vlfleet-Replica": replica.name}
    if exchange.visit and exchange.request.headers.get(ROUTE) == "1":
        headers[ROUTE] = orjson.dumps(explain(exchange.visit.decision)).decode()
    return headers


def lacks_medium(body: bytes) -> bool:
    """vLLM's words (multimodal/cache.py, 0.20 to 0.32)."""
    return CACHE_MISS in body and b"data is not provided" in body


def told_tokens(body: bytes) -> int:
    """Of the answer, as the engine counted them; 0 if it did not."""
    found = COMPLETION_TOKENS.search(body, max(0, len(body) - 2048))
    return int(found[1]) if found else 0


async def pass_whole(exchange: Exchange, replica: Replica, upstream: aiohttp.ClientResponse) -> web.Response:
    """An answer in one piece. It is read to its end first, so an engine that dies over it leaves room for a retry."""
    body = await read_answer(exchange, replica, upstream)
    status, content_type = upstream.status, upstream.headers.get("Content-Type", "")
    if status == 200:
        replica.progress_at = time.monotonic()
        if exchange.visit:
            exchange.visit.tokens = told_tokens(body)
    if status == 400 and lacks_medium(body):
        raise Missed
    if status in (429, 503):
        seconds = retry_after_seconds(upstream.headers.get("Retry-After"), datetime.now(UTC)) or 1.0
        headers = {"Retry-After": str(math.ceil(seconds))}
        error = ApiError(503, "overloaded", f"{replica.name}: {engine_message(body)}", headers=headers)
        raise Unanswered(error, pause_seconds=seconds)
    if status in (401, 403):
        message = f"{replica.name} does not take the fleet's key; another program may listen on its port"
        raise Unanswered(ApiError(502, "replica_refused", message), sent=False)
    if status >= 500 and not await healthy(exchange, replica):
        raise died(exchange, replica)
    if not content_type.startswith("application/json") or (status == 200 and body[:1] not in (b"{", b"[")):
        raise Unanswered(ApiError(502, "bad_answer", f"{replica.name} answered {status} with no JSON"))
    replica.served += status == 200
    exchange.code = status
    return web.Response(status=status, body=body, headers=reply_headers(exchange, replica, content_type))


async def read_answer(exchange: Exchange, replica: Replica, upstream: aiohttp.ClientResponse) -> bytes:
    """The whole body of an engine's answer.

    Raises:
        ApiError: it does not end. Nobody else is asked: the next engine may not know how to stop either.
    """
    body, most = bytearray(), exchange.gateway.limits.answer_bytes
    while chunk := await upstream.content.readany():
        body += chunk
        if len(body) > most:
            message = f"{replica.name} answered more than {most >> 20} MiB; set max_tokens, or ask for a stream"
            raise ApiError(502, "endless_answer", message)
    return bytes(body)


def engine_message(body: bytes) -> str:
    try:
        return str(orjson.loads(body)["error"]["message"])
    except (ValueError, TypeError, KeyError):
        return "the engine is overloaded"


async def pass_stream(exchange: Exchange, replica: Replica, upstream: aiohttp.ClientResponse) -> web.StreamResponse:
    """A stream, event by event. The client's headers wait for the first event: vLLM sends its own headers before it has
    looked at the picture, and as long as nothing is written another replica can still be asked."""
    events = WholeEvents()
    try:
        first = await next_events(replica, upstream, events)
    except ValueError:
        first = b""
    if not first:
        raise Unanswered(ApiError(502, "bad_answer", f"{replica.name} sent a stream without events"))
    if first.startswith(b'data: {"error"') and lacks_medium(first):
        raise Missed
    if first.startswith(b'data: {"error"') and not await healthy(exchange, replica):
        raise died(exchange, replica)
    exchange.begin()
    metrics = exchange.gateway.metrics
    if visit := exchange.visit:
        exchange.gateway.router.first_token(replica.name, visit.job, time.monotonic())
        metrics.predicted_first_token.labels(replica.name).inc(visit.decision.terms.first_token)
    metrics.time_to_first_token.labels(replica.name).observe(time.perf_counter() - exchange.started)
    response = web.StreamResponse(headers=reply_headers(exchange, replica, "text/event-stream; charset=utf-8"))
    # Proxies on the way to the client must not hold events back (X-Accel-Buffering is nginx's).
    response.headers.update({"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
    try:
        await response.prepare(exchange.request)
        await write_events(exchange, replica, response, events, first)
        if failure := await pass_rest(exchange, replica, response, upstream, events):
            metrics.broken_streams.labels(replica.name).inc()
            await write(exchange, response, broken(exchange, replica, failure).event())
            exchange.code = 502
        await response.write_eof()
    except (ClientGone, ConnectionError):
        pass  # counted as CLIENT_LEFT, unless it has everything
    return response


async def write_events(
    exchange: Exchange, replica: Replica, response: web.StreamResponse, events: WholeEvents, data: bytes
) -> None:
    """Writes whole events. With the last one the request is served: many clients close at once and wait for no end."""
    if exchange.visit:
        exchange.visit.tokens += data.count(b"\n\n")
    await write(exchange, response, data)
    if events.done:
        exchange.code = 200
        replica.served += 1


async def pass_rest(
    exchange: Exchange,
    replica: Replica,
    response: web.StreamResponse,
    upstream: aiohttp.ClientResponse,
    events: WholeEvents,
) -> str:
    """Passes events on until the stream ends; says what went wrong, or nothing."""
    while True:
        if exchange.visit and exchange.visit.tokens > exchange.ask.most_events:
            return f"did not stop after {exchange.ask.most_events} events"
        try:
            data = await next_events(replica, upstream, events)
        except (aiohttp.ClientError, ConnectionError):
            return "" if events.done else "died"
        except ValueError as error:
            return f"failed ({error})"
        if not data:
            return "" if events.done else "stopped early"
        await write_events(exchange, replica, response, events, data)


async def next_events(replica: Replica, upstream: aiohttp.ClientResponse, events: WholeEvents) -> bytes:
    """The next whole events; empty at the end of the stream."""
    while chunk := await upstream.content.readany():
        replica.progress_at = time.monotonic()
        if data := events.feed(chunk):
            return data
    return b""


def broken(exchange: Exchange, replica: Replica, failure: str) -> ApiError:
    if failure == "died":
        exchange.gateway.report_unreachable(replica)
    message = f"{replica.name} {failure} in the middle of request {exchange.request[REQUEST_ID]}; send it again"
    return ApiError(502, "stream_broken", message)


async def write(exchange: Exchange, response: web.StreamResponse, data: bytes) -> None:
    """Writes to the client.

    Raises:
        ClientGone: it left, or has not read for `Limits.write_stall_seconds`.
    """
    try:
        async with asyncio.timeout(exchange.gateway.limits.write_stall_seconds):
            await response.write(data)
    except TimeoutError:
        if exchange.request.transport is not None:
            exchange.request.transport.abort()
        raise ClientGone from None
    except ConnectionError:
        raise ClientGone from None
