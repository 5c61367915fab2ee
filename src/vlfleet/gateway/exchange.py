"""One request on its way through the gateway, and what may become of a try."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import orjson
from aiohttp import web

from vlfleet.fleet.replica import Replica
from vlfleet.gateway.errors import ApiError
from vlfleet.gateway.inspection import Ask
from vlfleet.gateway.metrics import CLIENT_LEFT
from vlfleet.gateway.pool import get
from vlfleet.gateway.route.gate import Turn
from vlfleet.gateway.route.router import Decision, explain
from vlfleet.gateway.route.tracker import Job
from vlfleet.gateway.state import Gateway
from vlfleet.gateway.wire import Wire, WireError

if TYPE_CHECKING:
    from vlfleet.gateway.traces import Trace

REQUEST_ID = web.RequestKey("request_id", str)
REPLICA = web.RequestKey("replica", str)
"""The one that was asked last; missing when none was."""
HEALTH_SECONDS, PAGE_BYTES = 1.0, 64 << 10
CACHE_MISS = b"Cache miss for"
ROUTE = "x-vlfleet-route"
"""1 in a request: its answer says in a header of this name where it went, and why."""


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


_NOTHING, _NO_TURN = Ask(), Turn(-1)


@dataclass(eq=False)
class Exchange:
    """One request and what became of it."""

    gateway: Gateway
    request: web.Request
    started: float
    """`time.perf_counter()` at the last byte of the body."""
    tenant: str = ""
    """Who asks, for shares and for names of media."""
    body: bytes = b""
    turn: Turn = field(default_factory=lambda: _NO_TURN)
    ask: Ask = _NOTHING
    code: int = CLIENT_LEFT
    """The status to count it under."""
    tried: list[Replica] = field(default_factory=list)
    """In their order; the last one has it now."""
    visit: Visit | None = None
    """The present try."""
    wire: Wire | None = None
    """The connection of the present try, once there is one."""
    moved: bool = False
    """This try was ended for another, and paid for."""
    patience: asyncio.TimerHandle | None = None
    """Ends the present try."""
    trace: Trace | None = None
    """None: it becomes no spans."""

    def connected(self, wire: Wire, seconds: float | None) -> None:
        """The try has its connection. After `seconds` without `begin`, or when it is moved, the wire raises
        TimeoutError.

        Raises:
            TimeoutError: it was moved while it waited for the connection.
        """
        self.wire = wire
        if self.moved:
            raise TimeoutError
        if seconds is not None:
            self.patience = asyncio.get_running_loop().call_later(seconds, wire.stop, TimeoutError())

    def begin(self) -> None:
        """The answer is on its way to the client: it has all the time, and stays where it is."""
        self.gateway.waiting.discard(self)
        if self.patience:
            self.patience.cancel()

    def over(self) -> None:
        """The try has ended, one way or another: what its engine may still do is ended, too."""
        self.begin()
        if self.wire:
            self.wire.release()
        self.wire, self.patience, self.moved = None, None, False

    def move(self) -> None:
        """Ends this try, so that the next one begins."""
        self.gateway.waiting.discard(self)
        self.moved = True
        if self.wire:
            self.wire.stop(TimeoutError())


def reply_headers(exchange: Exchange, replica: Replica, content_type: str) -> dict[str, str]:
    request_id = exchange.request[REQUEST_ID]
    headers = {"Content-Type": content_type, "X-Request-Id": request_id, "X-Vlfleet-Replica": replica.name}
    if exchange.visit and exchange.request.headers.get(ROUTE) == "1":
        headers[ROUTE] = orjson.dumps(explain(exchange.visit.decision)).decode()
    return headers


def died(exchange: Exchange, replica: Replica) -> Unanswered:
    message = f"{replica.name} died before it answered request {exchange.request[REQUEST_ID]}; send it again"
    return Unanswered(ApiError(502, "replica_died", message), unreachable=True)


async def healthy(gateway: Gateway, replica: Replica) -> bool:
    """Whether an engine that has just reported an error can go on. When vLLM's engine process dies, its API server
    lives some seconds longer, answers 500 to everything, and 503 to /health."""
    try:
        status, _ = await get(gateway.pool, replica.port, "/health", replica.api_key, HEALTH_SECONDS, PAGE_BYTES)
    except (TimeoutError, WireError):
        return False
    return status == 200


def lacks_medium(body: bytes) -> bool:
    """vLLM's words (multimodal/cache.py, 0.20 to 0.32)."""
    return CACHE_MISS in body and b"data is not provided" in body
