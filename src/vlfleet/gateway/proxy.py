"""A request's way to a replica and back: the choice, one retry before the first byte, the count."""

from __future__ import annotations

import asyncio
import binascii
import hashlib
import logging
import math
import re
import time

from aiohttp import web

from vlfleet.fleet.replica import Replica
from vlfleet.gateway.access import ACCESS, KEY
from vlfleet.gateway.admission import read_body, refusal
from vlfleet.gateway.behalf import HEADER, TENANT
from vlfleet.gateway.errors import ApiError, bad_request
from vlfleet.gateway.exchange import REPLICA, REQUEST_ID, ROUTE, Exchange, Missed, Unanswered, Visit
from vlfleet.gateway.inspection import Ask, inspect
from vlfleet.gateway.media import Elsewhere, Media
from vlfleet.gateway.route.fair_queue import Refusal, Waiter
from vlfleet.gateway.route.gate import Refused
from vlfleet.gateway.route.router import Decision, explain
from vlfleet.gateway.state import GATEWAY, Gateway, charge
from vlfleet.gateway.upstream import send
from vlfleet.media import MediaError, Stored, Vision, examine_bytes, modality_of
from vlfleet.media.fetch import Fetcher

TRIES = 2
SESSION = "X-Session-Id"
"""Of the policy `sticky`; the name that vllm-router reads, too."""
PATIENCE_SECONDS = 2
"""Where every replica asked for a longer pause, nobody is let wait for its end."""
TEND_SECONDS = 0.25
"""Between two looks at those who wait."""
TIMEOUTS = ("X-Request-Timeout", "X-Stainless-Read-Timeout")
"""Headers in which clients say how many seconds they wait for the first byte; the second one is of OpenAI's SDKs."""
SECONDS = re.compile(r"\d{1,6}(\.\d{1,6})?")

log = logging.getLogger("vlfleet.gateway")


async def generate(request: web.Request) -> web.StreamResponse:
    """POST /v1/chat/completions and /v1/completions."""
    exchange = Exchange(request.app[GATEWAY], request, time.perf_counter())
    if traces := exchange.gateway.traces:
        exchange.trace = traces.begin(request.method, request.path, request[REQUEST_ID], request.headers)
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
    exchange.tenant = tenant_of(request)
    if hopeless := gateway.gate.hopeless(exchange.tenant):
        raise too_much(hopeless)
    exchange.body = await read_body(request, gateway.limits)
    exchange.started = time.perf_counter()
    exchange.ask = await look(exchange, chat=request.path.endswith("/chat/completions"))
    request.app[ACCESS].look_at(request, exchange.ask.pixels)
    if exchange.trace:
        exchange.trace.asked(exchange.ask)
    if request.headers.get(ROUTE) == "explain":
        return explanation(exchange)
    if gateway.pause_seconds() > PATIENCE_SECONDS and not gateway.ready():
        raise nobody(gateway)
    gateway.flights[exchange] = None
    try:
        async with gateway.gate.turn(lambda: waiter_of(exchange)) as exchange.turn:
            gateway.metrics.queue_seconds.since(exchange.started)
            if exchange.trace:
                exchange.trace.step("queue")
            return await forward(exchange)
    except Refused as turned_away:
        if exchange.trace:
            exchange.trace.step("queue")
        raise too_much(turned_away.refusal) from None
    finally:
        del gateway.flights[exchange]


def waiter_of(exchange: Exchange) -> Waiter:
    """The request as the queue sees it. An answer that is not begun after the client's timeout is for nobody."""
    ask, headers = exchange.ask, exchange.request.headers
    given = next((headers[name] for name in TIMEOUTS if name in headers), "")
    seconds = float(given) if SECONDS.fullmatch(given) else math.inf
    gone = time.perf_counter() - exchange.started
    work, until_heard = exchange.gateway.estimate(ask.features, streams=ask.stream)
    return Waiter(
        number=0,
        key=exchange.tenant,
        seconds=work,
        visual_tokens=ask.features.visual_tokens,
        body_bytes=len(exchange.body),
        priority=ask.priority,
        deadline=time.monotonic() + seconds - gone - until_heard,
    )


def too_much(refusal: Refusal) -> ApiError:
    headers = {"Retry-After": str(refusal.retry_after_seconds)}
    return ApiError(refusal.status, refusal.code, refusal.message, headers=headers)


def explanation(exchange: Exchange) -> web.Response:
    """Where the request would go now, and why. It goes nowhere.

    Raises:
        ApiError: no replica could take it.
    """
    found = exchange.gateway.decide(exchange.ask.features)
    if found is None:
        raise nobody(exchange.gateway)
    exchange.code = 200
    return web.json_response(explain(found[1]))


def nobody(gateway: Gateway) -> ApiError:
    """Why no replica takes a request, although some may be ready."""
    if refused := refusal(gateway.replicas, draining=False):
        return refused
    seconds = gateway.pause_seconds()
    message = f"every replica that is ready asked for a pause; ask again in {seconds} s"
    return ApiError(503, "overloaded", message, headers={"Retry-After": str(seconds)})


async def look(exchange: Exchange, *, chat: bool) -> Ask:
    """What the request asks for, once its media are here.

    Raises:
        ApiError: it was refused.
    """
    gateway, request = exchange.gateway, exchange.request
    fetched: dict[str, Stored] | None = {} if gateway.fetcher else None
    while True:
        fits = gateway.fitter is not None
        media = Media(gateway.media.vision, gateway.namer, exchange.tenant, gateway.store, fetched, fits)
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
    medium = examine_bytes(encoded, modality_of(encoded[:64]), vision)
    return Stored("", medium, await asyncio.to_thread(binascii.b2a_base64, encoded, newline=False))


def tenant_of(request: web.Request) -> str:
    """Clients with different keys share no media; nothing of the key is kept. One key is one tenant, however the header
    is spelt."""
    if "Authorization" not in request.headers and HEADER not in request.headers:
        return ""
    if TENANT in request:
        return request[TENANT]
    key = request[KEY].sha256 if KEY in request else request.headers.get("Authorization", "")
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
        found = gateway.decide(exchange.ask.features, names(exchange) if exchange.tried else ())
        if found is None:
            raise nobody(gateway)
        replica, decision = found
        exchange.tried.append(replica)
        exchange.request[REPLICA] = replica.name
        try:
            with charge(replica, exchange.ask.work):
                return await visit(exchange, replica, decision)
        except Unanswered as failure:
            if failure.unreachable:
                gateway.report_unreachable(replica)
            if failure.pause_seconds:
                gateway.pause(replica, failure.pause_seconds)
            if len(exchange.tried) == TRIES or not may_retry(exchange, failure):
                raise failure.error from None
            gateway.metrics.retries.labels(replica.name).inc()


async def visit(exchange: Exchange, replica: Replica, decision: Decision) -> web.StreamResponse:
    """One try at one replica, which learns from it. An engine that lacks a medium which it was taken to hold gets the
    request again, with the data.

    Raises:
        Unanswered: nothing has reached the client.
    """
    gateway, features, omit = exchange.gateway, exchange.ask.features, decision.omit
    router = gateway.router
    while True:
        exchange.visit = Visit(decision, router.sent(features, decision, time.monotonic(), streams=exchange.ask.stream))
        gateway.gate.sent(exchange.turn, decision.terms.work)
        if exchange.trace:
            exchange.trace.sent(decision, exchange.ask)
        try:
            response = await send(exchange, replica, omit)
        except BaseException as failure:
            if exchange.trace:
                exchange.trace.ended(type(failure).__name__)
            missed = isinstance(failure, Missed)
            router.failed(replica.name, exchange.visit.job, time.monotonic(), missed=missed)
            if not missed:
                raise
            gateway.metrics.media_missed.labels(replica.name).inc()
            omit = frozenset()
            continue
        if exchange.trace:
            exchange.trace.ended()
        if exchange.code == 200:
            router.finished(replica.name, exchange.visit.job, time.monotonic(), exchange.visit.tokens or None)
            gateway.metrics.answered(replica.name, exchange.ask, exchange.started)
        else:
            router.failed(replica.name, exchange.visit.job, time.monotonic())
        return response


def may_retry(exchange: Exchange, failure: Unanswered) -> bool:
    """A retry that cannot repeat work costs no budget: the engine never had the request."""
    gateway = exchange.gateway
    return bool(gateway.ready(names(exchange))) and (not failure.sent or gateway.budget.spend())


def names(exchange: Exchange) -> list[str]:
    return [replica.name for replica in exchange.tried]


async def tend(gateway: Gateway) -> None:
    """Again and again looks after those who wait: lets them through where time alone has made room, sends them away
    when no replica is left, and gives what waits on a stalled replica to another, as far as tries and budget allow.

    What cannot be given away goes on waiting: the replica may recover, or be ended, and then the request is tried
    elsewhere as any other whose engine has died.
    """
    while True:
        await asyncio.sleep(TEND_SECONDS)
        if gateway.gate.queue and (refused := refusal(gateway.replicas, draining=False)):
            wait = int(refused.headers["Retry-After"])
            gateway.gate.send_away(Refusal(refused.status, refused.code, refused.message, wait))
        gateway.gate.admit()
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
    metrics.over(exchange.code, name, exchange.started)
    if exchange.trace:
        exchange.trace.over(exchange.code, exchange.visit.tokens if exchange.visit else 0)
    if not log.isEnabledFor(logging.INFO):
        return
    seconds = time.perf_counter() - exchange.started
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
