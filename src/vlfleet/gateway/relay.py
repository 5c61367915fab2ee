"""A stream on its way from an engine to a client, event by event."""

from __future__ import annotations

import asyncio
import time

from aiohttp import web

from vlfleet.fleet.replica import Replica
from vlfleet.gateway.errors import ApiError
from vlfleet.gateway.exchange import (
    REQUEST_ID,
    ClientGone,
    Exchange,
    Missed,
    Unanswered,
    died,
    healthy,
    lacks_medium,
    reply_headers,
)
from vlfleet.gateway.sse import WholeEvents
from vlfleet.gateway.wire import Wire, WireError


async def pass_stream(exchange: Exchange, replica: Replica, wire: Wire) -> web.StreamResponse:
    """The client's headers wait for the first event: vLLM sends its own headers before it has looked at the picture,
    and as long as nothing is written another replica can still be asked.

    Raises:
        Unanswered: nothing has reached the client.
        Missed: the replica lacks a medium that was sent by its name.
    """
    events = WholeEvents()
    try:
        first = await next_events(replica, wire, events)
    except ValueError:
        first = b""
    if not first:
        raise Unanswered(ApiError(502, "bad_answer", f"{replica.name} sent a stream without events"))
    if first.startswith(b'data: {"error"') and lacks_medium(first):
        raise Missed
    if first.startswith(b'data: {"error"') and not await healthy(exchange.gateway, replica):
        raise died(exchange, replica)
    exchange.begin()
    count_first(exchange, replica)
    client = Client(exchange, reply_headers(exchange, replica, "text/event-stream; charset=utf-8"))
    try:
        await client.open()
        await write_events(exchange, replica, client, events, first)
        if failure := await pass_rest(exchange, replica, client, wire, events):
            exchange.gateway.metrics.broken_streams.labels(replica.name).inc()
            await client.write(broken(exchange, replica, failure).event())
            exchange.code = 502
        await client.response.write_eof()
    except (ClientGone, ConnectionError):
        pass  # counted as CLIENT_LEFT, unless it has everything
    return client.response


def count_first(exchange: Exchange, replica: Replica) -> None:
    metrics = exchange.gateway.metrics
    if visit := exchange.visit:
        exchange.gateway.router.first_token(replica.name, visit.job, time.monotonic())
        metrics.predicted_first_token.labels(replica.name).inc(visit.decision.terms.first_token)
    metrics.first_token(replica.name, exchange.ask, exchange.started)
    if exchange.trace:
        exchange.trace.first_token()


class Client:
    """The client's end of a stream."""

    def __init__(self, exchange: Exchange, headers: dict[str, str]) -> None:
        # Proxies on the way to the client must not hold events back (X-Accel-Buffering is nginx's).
        self.response = web.StreamResponse(headers={**headers, "Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        self._request = exchange.request
        self._stall_seconds = exchange.gateway.limits.write_stall_seconds
        self._chunked = self._begun = False

    async def open(self) -> None:
        await self.response.prepare(self._request)
        self._chunked = self.response.headers.get("Transfer-Encoding") == "chunked"

    async def write(self, data: bytes) -> None:
        """Writes to the client; waits only while it does not read. Events go to the socket as a chunk each, for aiohttp
        would cost as much as the rest of their way; it writes the first one, with its headers.

        Raises:
            ClientGone: it left, or has not read for `Limits.write_stall_seconds`.
        """
        transport = self._request.transport
        if transport is None or transport.is_closing():
            raise ClientGone
        if self._begun and self._chunked and not self._request.protocol.writing_paused:
            transport.write(b"%x\r\n%b\r\n" % (len(data), data))
            return
        self._begun = True
        try:
            async with asyncio.timeout(self._stall_seconds):
                await self.response.write(data)
        except TimeoutError:
            transport.abort()
            raise ClientGone from None
        except ConnectionError:
            raise ClientGone from None


async def write_events(exchange: Exchange, replica: Replica, client: Client, events: WholeEvents, data: bytes) -> None:
    """Writes whole events. With the last one the request is served: many clients close at once and wait for no end."""
    if exchange.visit:
        exchange.visit.tokens += data.count(b"\n\n")
    await client.write(data)
    if events.done:
        exchange.code = 200
        replica.served += 1


async def pass_rest(exchange: Exchange, replica: Replica, client: Client, wire: Wire, events: WholeEvents) -> str:
    """Passes events on until the stream ends; says what went wrong, or nothing."""
    while True:
        if exchange.visit and exchange.visit.tokens > exchange.ask.most_events:
            return f"did not stop after {exchange.ask.most_events} events"
        try:
            data = await next_events(replica, wire, events)
        except WireError:
            return "" if events.done else "died"
        except ValueError as error:
            return f"failed ({error})"
        if not data:
            return "" if events.done else "stopped early"
        await write_events(exchange, replica, client, events, data)


async def next_events(replica: Replica, wire: Wire, events: WholeEvents) -> bytes:
    """The next whole events; empty at the end of the stream."""
    while chunk := await wire.read():
        replica.progress_at = time.monotonic()
        if data := events.feed(chunk):
            return data
    return b""


def broken(exchange: Exchange, replica: Replica, failure: str) -> ApiError:
    if failure == "died":
        exchange.gateway.report_unreachable(replica)
    message = f"{replica.name} {failure} in the middle of request {exchange.request[REQUEST_ID]}; send it again"
    return ApiError(502, "stream_broken", message)
