"""A request's way to a replica and back: the choice, one retry before the first byte, the count."""

from __future__ import annotations

import asyncio
import logging
import time

from aiohttp import web

from vlfleet.gateway.admission import read_body, refusal
from vlfleet.gateway.errors import ApiError
from vlfleet.gateway.inspection import inspect
from vlfleet.gateway.state import GATEWAY, Gateway, charge
from vlfleet.gateway.upstream import REPLICA, REQUEST_ID, Exchange, Unanswered, send

TRIES = 2
MOVE_SECONDS = 0.25
"""Between two looks for requests on stalled replicas."""

log = logging.getLogger("vlfleet.gateway")


async def generate(request: web.Request) -> web.StreamResponse:
    """POST /v1/chat/completions and /v1/completions."""
    exchange = Exchange(request.app[GATEWAY], request, time.perf_counter())
    try:
        return await answer(exchange)
    except ApiError as error:
        exchange.code = error.status
        raise
    finally:
        record(exchange)


async def answer(exchange: Exchange) -> web.StreamResponse:
    """Admit, read, inspect, forward.

    Raises:
        ApiError: it was refused, or nobody answered.
    """
    gateway, request = exchange.gateway, exchange.request
    if refused := refusal(gateway.replicas, draining=gateway.draining.is_set()):
        raise refused
    exchange.body = await read_body(request, gateway.limits)
    exchange.started = time.perf_counter()
    chat = request.path.endswith("/chat/completions")
    exchange.ask = inspect(exchange.body, gateway.served_model_name, chat=chat)
    return await forward(exchange)


async def forward(exchange: Exchange) -> web.StreamResponse:
    """The answer of a replica; a second one is asked when the first gives nothing.

    The engine's own 500 is an answer and is not tried elsewhere: it may be the request that breaks engines.

    Raises:
        ApiError: none answered.
    """
    gateway = exchange.gateway
    gateway.budget.earn()
    while True:
        replica = gateway.choose(names(exchange))
        if replica is None:
            raise refusal(gateway.replicas, draining=False) or ApiError(503, "not_ready", "no replica is ready")
        exchange.tried.append(replica)
        exchange.request[REPLICA] = replica.name
        try:
            with charge(replica, exchange.ask.work):
                return await send(exchange, replica)
        except Unanswered as failure:
            if failure.unreachable:
                gateway.report_unreachable(replica)
            if len(exchange.tried) == TRIES or not may_retry(exchange, failure):
                raise failure.error from None
            gateway.metrics.retries.labels(replica.name).inc()


def may_retry(exchange: Exchange, failure: Unanswered) -> bool:
    """A retry that cannot repeat work costs no budget: the engine never had the request."""
    gateway = exchange.gateway
    return gateway.choose(names(exchange)) is not None and (not failure.sent or gateway.budget.spend())


def names(exchange: Exchange) -> list[str]:
    return [replica.name for replica in exchange.tried]


async def move_stalled(gateway: Gateway) -> None:
    """Again and again gives what waits on a stalled replica to another, as far as tries and budget allow.

    What cannot be given away goes on waiting: the replica may recover, or be ended, and then the request is tried
    elsewhere as any other whose engine has died.
    """
    while True:
        await asyncio.sleep(MOVE_SECONDS)
        if not any(replica.stalled for replica in gateway.replicas):
            continue
        for exchange in list(gateway.waiting):
            stalled = exchange.tried[-1].stalled and len(exchange.tried) < TRIES
            if stalled and gateway.choose(names(exchange)) and gateway.budget.spend():
                exchange.move()


def record(exchange: Exchange) -> None:
    """Counts and logs the request: sizes and times, never what was said or shown (S14)."""
    request, ask, metrics = exchange.request, exchange.ask, exchange.gateway.metrics
    name = request.get(REPLICA, "")
    seconds = time.perf_counter() - exchange.started
    metrics.requests.labels(str(exchange.code), name).inc()
    metrics.duration.labels(name).observe(seconds)
    log.info(
        "%s %s %d replica=%s bytes=%d pictures=%d work=%.0f seconds=%.3f",
        request[REQUEST_ID],
        request.path,
        exchange.code,
        name or "-",
        len(exchange.body),
        ask.pictures,
        ask.work,
        seconds,
    )
