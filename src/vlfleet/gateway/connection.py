"""One client's connection, and all of them together: how many, how long each may take, and what a bad request hears.

aiohttp closes a connection that is idle for too long and knows how large one header may be. What is added here: the
time and the size of a whole head, clients that do not read, how many connections there are, and errors in the form of
the API whose bytes reach no log.
"""

from __future__ import annotations

import asyncio
import ipaddress
import resource
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage, LineTooLong

from vlfleet.gateway.errors import ApiError

RESERVED_DESCRIPTORS = 256
"""For engines' logs, state, and what Python itself opens."""
EVICTION_LOOKS = 8


@dataclass(frozen=True)
class ConnectionLimits:
    """Seconds, bytes and numbers (research/ops.md 5, S10)."""

    header_seconds: float = 10.0
    """From the first byte of a request's head to its last."""
    header_bytes: int = 32 << 10
    """Of a whole head. vLLM before 0.10.1.1 died of larger ones (CVE-2025-48956)."""
    headers: int = 100
    idle_seconds: float = 75.0
    write_stall_seconds: float = 30.0
    """For a client that does not read its answer."""
    most: int = 16_384
    most_a_client: int = 4096
    """From one address, or one /64 network of IPv6; this machine itself may have them all: proxies run there."""


LIMITS = ConnectionLimits()


def most_connections(limits: ConnectionLimits = LIMITS) -> int:
    """How many connections this process can hold: a request needs two descriptors, one on each side. The soft limit of
    descriptors is raised as far as the hard one allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * limits.most + RESERVED_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY:
        return limits.most
    return max(16, min(limits.most, (soft - RESERVED_DESCRIPTORS) // 2))


@dataclass(eq=False)
class Connections:
    """All connections of one server."""

    limits: ConnectionLimits
    most: int
    by_client: Counter[str] = field(default_factory=Counter)
    idle: dict[Connection, None] = field(default_factory=dict)
    """Those that wait for a request, the one that has waited longest first."""
    refused: int = 0
    evicted: int = 0

    def admit(self, connection: Connection) -> bool:
        """Counts a new one. When all places are taken, the one that has been idle for longest loses its own."""
        client = connection.client
        if client != LOCAL and self.by_client[client] >= self.limits.most_a_client:
            self.refused += 1
            return False
        if self.by_client.total() >= self.most and not self._evict():
            self.refused += 1
            return False
        self.by_client[client] += 1
        self.idle[connection] = None
        return True

    def leave(self, connection: Connection) -> None:
        self.idle.pop(connection, None)
        self.by_client[connection.client] -= 1
        if not self.by_client[connection.client]:
            del self.by_client[connection.client]

    def _evict(self) -> bool:
        for connection in list(self.idle)[:EVICTION_LOOKS]:
            del self.idle[connection]
            if connection.waits():
                self.evicted += 1
                connection.leave()
                connection.abort()
                return True
        return False


LOCAL = "local"
SERVER = "vlfleet"
"""In place of the versions of Python and aiohttp."""


def client_of(peer: Any) -> str:
    """What counts as one client: an IPv4 address, a /64 of IPv6, or this machine."""
    try:
        address = ipaddress.ip_address(str(peer[0]).partition("%")[0])
    except (ValueError, TypeError, IndexError):
        return LOCAL
    address = getattr(address, "ipv4_mapped", None) or address
    if address.is_loopback:
        return LOCAL
    return str(address) if address.version == 4 else str(ipaddress.ip_network((address, 64), strict=False))


class Connection(web.RequestHandler):
    """aiohttp's connection with `Connections` around it."""

    __slots__ = ("_admitted", "_all", "_head_bytes", "_head_timer", "_stall_timer", "client")

    def __init__(self, manager: web.Server, connections: Connections, **kwargs: Any) -> None:
        super().__init__(manager, **kwargs)
        self._all = connections
        self._admitted = False
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self.client = LOCAL

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.client = client_of(transport.get_extra_info("peername"))
        self._admitted = self._all.admit(self)
        super().connection_made(transport)
        if not self._admitted:
            self.refuse(ApiError(503, "too_many_connections", "too many connections are open; come back later"))

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop(self._head_timer)
        self._stop(self._stall_timer)
        self.leave()
        super().connection_lost(exc)

    def leave(self) -> None:
        """Its place is free."""
        if self._admitted:
            self._admitted = False
            self._all.leave(self)

    def waits(self) -> bool:
        """Whether no request of this connection is being answered."""
        waiter = self._waiter
        return waiter is not None and not waiter.done()

    def idles(self) -> None:
        """A request was answered: from now on this connection may be given up for another."""
        if self._admitted:
            self._all.idle[self] = None

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self.waits():  # a request is complete
            self._all.idle.pop(self, None)
            self._head_bytes = 0
            self._head_timer = self._stop(self._head_timer)
            return
        self._head_bytes += len(data)
        if self._head_bytes > self._all.limits.header_bytes:
            self.refuse(too_large(self._all.limits))
        elif self._head_timer is None and self.transport is not None:
            self._head_timer = self._loop.call_later(self._all.limits.header_seconds, self._too_slow)

    def _too_slow(self) -> None:
        if self.waits():
            seconds = self._all.limits.header_seconds
            self.refuse(ApiError(408, "request_timeout", f"the head of the request did not come within {seconds:g} s"))

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stall_timer = self._loop.call_later(self._all.limits.write_stall_seconds, self.abort)

    def resume_writing(self) -> None:
        self._stall_timer = self._stop(self._stall_timer)
        super().resume_writing()

    def abort(self) -> None:
        """Ends it at once, with what was still to be written."""
        if self.transport is not None:
            self.transport.abort()

    def refuse(self, error: ApiError) -> None:
        """Answers without a request, and closes."""
        if self.transport is not None:
            self.transport.write(raw(error))
        self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What aiohttp's parser refuses, and what fails outside of the application. Neither the bytes nor the words of
        the exception, which may repeat them, are told or logged."""
        if isinstance(exc, LineTooLong):
            error = too_large(self._all.limits)
        elif isinstance(exc, BadHttpMessage):
            error = ApiError(400, "bad_request", "this is not an HTTP/1.1 request that can be read in one way only")
        else:
            error = ApiError(status, "internal_error", "the gateway failed on this request")
        self.logger.info("refused a request: %d %s", error.status, type(exc).__name__)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer was on its way")
        response = error.response()
        response.headers["Server"] = SERVER
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kwargs: Any) -> None:
        """Where it happened, without the words of the exception: they may hold what a client sent."""
        self.logger.error("%s", where(kwargs.get("exc_info")))

    @staticmethod
    def _stop(timer: asyncio.TimerHandle | None) -> None:
        if timer is not None:
            timer.cancel()


class Server(web.Server):
    """aiohttp's server, whose connections are ours."""

    def __init__(self, *args: Any, connections: Connections, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.all = connections

    def __call__(self) -> web.RequestHandler:
        return Connection(self, self.all, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """aiohttp's runner of an application, with our server."""

    __slots__ = ("all",)

    def __init__(self, app: web.Application, limits: ConnectionLimits = LIMITS, **kwargs: Any) -> None:
        super().__init__(app, **kwargs)
        self.all = Connections(limits, most_connections(limits))

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return Server(
            made.request_handler,
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            connections=self.all,
            **cast(Mapping[str, Any], made._kwargs),
        )


def too_large(limits: ConnectionLimits) -> ApiError:
    most = f"{limits.header_bytes >> 10} KiB in {limits.headers} headers"
    return ApiError(431, "header_too_large", f"the head of the request is larger than {most}")


def raw(error: ApiError) -> bytes:
    """The error as bytes on a socket, for where no request was read."""
    response = error.response()
    body = cast(bytes, response.body)
    head = f"HTTP/1.1 {error.status} {response.reason}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


def where(error: Any) -> str:
    """The kind of an exception and the lines it came through."""
    if not isinstance(error, BaseException):
        return "failed"
    lines = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        lines.append(f"{'/'.join(code.co_filename.rsplit('/', 2)[1:])}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    return f"{type(error).__name__} at " + " < ".join(reversed(lines))
