"""A request's way to a replica and back: the choice, one retry before the first byte, the count."""

from __future__ import annotations

import asyncio
import binascii
import hashlib
import logging
import time

from aiohttp import web

from vlfleet.fleet.replica import Replica
from vlfleet.gateway.admission import read_body, refusal
from vlfleet.gateway.errors import ApiError, bad_request
from vlfleet.gateway.inspection import Ask, inspect
from vlfleet.gateway.media import Elsewhere, Media
from vlfleet.gateway.route.router import Decision
from vlfleet.gateway.state import GATEWAY, Gateway, charge
from vlfleet.gateway.upstream import REPLICA, REQUEST_ID, Exchange, Missed, Unanswered, Visit, send
from vlfleet.media import MediaError, Stored, Vision, examine_bytes
from vlfleet.media.fetch import Fetcher

TRIES = 2
STILL = (b"avif", b"avis", b"heic", b"heix", b"mif1")
"""Brands of pictures in the same container as MP4 (ISO 14496-12)."""
SESSION = "X-Session-Id"
"""Of the policy `sticky`; the name that vllm-router reads, too."""
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
    exchange.ask = await look(exchange, chat=chat)
    return await forward(exchange)


async def look(exchange: Exchange, *, chat: bool) -> Ask:
    """What the request asks for, once its media are here.

    Raises:
        ApiError: it was refused.
    """
    gateway, request = exchange.gateway, exchange.request
    fetched: dict[str, Stored] | None = {} if gateway.fetcher else None
    while True:
        media = Media(gateway.media.vision, gateway.namer, tenant_of(request), gateway.store, fetched)
        session = request.headers.get(SESSION, "")
        try:
            return inspect(exchange.body, gateway.served_model_name, media, chat=chat, session=session)
        except Elsewhere as some:
            assert fetched is not None
            assert gateway.fetcher is not None
            urls = list(dict.fromkeys(some.urls))
            try:
                found = await asyncio.gather(*(fetch(gateway.fetcher, url, gateway.media.vision) for url in urls))
            except MediaError as error:
                message = f"a medium of the request {error.cause}"
                raise bad_request("messages", message, error.remedy, "unsupported_url") from None
            fetched.update(zip(urls, found, strict=True))


async def fetch(fetcher: Fetcher, url: str, vision: Vision) -> Stored:
    """The medium behind `url`, as it travels to an engine.

    Raises:
        MediaError: it cannot be had, or is none.
    """
    encoded = await fetcher.get(url)
    modality = "video" if encoded[4:8] == b"ftyp" and encoded[8:12] not in STILL else "image"
    medium = examine_bytes(encoded, modality, vision)
    return Stored("", medium, await asyncio.to_thread(binascii.b2a_base64, encoded, newline=False))


def tenant_of(request: web.Request) -> str:
    """Clients with different keys share no media; nothing of the key is kept."""
    key = request.headers.get("Authorization", "")
    return hashlib.blake2b(key.encode("utf-8", "replace"), digest_size=16).hexdigest() if key else ""


async def forward(exchange: Exchange) -> web.StreamResponse:
    """The answer of a replica; a second one is asked when the first gives nothing.

    The engine's own 500 is an answer and is not tried elsewhere: it may be the request that breaks engines.

    Raises:
        ApiError: none answered.
    """
    gateway = exchange.gateway
    gateway.budget.earn()
    while True:
        found = gateway.decide(exchange.ask.features, names(exchange))
        if found is None:
            raise refusal(gateway.replicas, draining=False) or ApiError(503, "not_ready", "no replica is ready")
        replica, decision = found
        exchange.tried.append(replica)
        exchange.request[REPLICA] = replica.name
        try:
            with charge(replica, exchange.ask.work):
                return await visit(exchange, replica, decision)
        except Unanswered as failure:
            if failure.unreachable:
                gateway.report_unreachable(replica)
            if len(exchange.tried) == TRIES or not may_retry(exchange, failure):
                raise failure.error from None
            gateway.metrics.retries.labels(replica.name).inc()


async def visit(exchange: Exchange, replica: Replica, decision: Decision) -> web.StreamResponse:
    """One try at one replica, which learns from it. An engine that lacks a medium which it was taken to hold gets the
    request again, with the data.

    Raises:
        Unanswered: nothing has reached the client.
    """
    router, features = exchange.gateway.router, exchange.ask.features
    omit = decision.omit
    while True:
        exchange.visit = Visit(decision, router.sent(features, decision, time.monotonic(), streams=exchange.ask.stream))
        try:
            response = await send(exchange, replica, omit)
        except BaseException as failure:
            missed = isinstance(failure, Missed)
            router.failed(replica.name, exchange.visit.job, time.monotonic(), missed=missed)
            if not missed:
                raise
            exchange.gateway.metrics.media_missed.labels(replica.name).inc()
            omit = frozenset()
            continue
        if exchange.code == 200:
            router.finished(replica.name, exchange.visit.job, time.monotonic(), exchange.visit.tokens or None)
        else:
            router.failed(replica.name, exchange.visit.job, time.monotonic())
        return response


def may_retry(exchange: Exchange, failure: Unanswered) -> bool:
    """A retry that cannot repeat work costs no budget: the engine never had the request."""
    gateway = exchange.gateway
    return bool(gateway.ready(names(exchange))) and (not failure.sent or gateway.budget.spend())


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
            if stalled and gateway.ready(names(exchange)) and gateway.budget.spend():
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
