"""The gateway as an aiohttp application: what it answers, and what every answer carries."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web
from aiohttp.typedefs import Handler

from vlfleet.batch.shelf import Shelf
from vlfleet.errors import VlfleetError
from vlfleet.fleet.replica import Replica
from vlfleet.gateway import pages
from vlfleet.gateway.access import ACCESS, Access, admit
from vlfleet.gateway.admission import LIMITS, Limits
from vlfleet.gateway.assets import installed, side_routes
from vlfleet.gateway.batch_worker import Worker
from vlfleet.gateway.batches import Batches, add_batches
from vlfleet.gateway.behalf import BEHALF, Behalf
from vlfleet.gateway.connection import SERVER, Connection, where
from vlfleet.gateway.errors import ApiError
from vlfleet.gateway.exchange import REPLICA, REQUEST_ID
from vlfleet.gateway.files import Files, add_files
from vlfleet.gateway.heads import BadHeadError, check_head
from vlfleet.gateway.metrics import Metrics
from vlfleet.gateway.pool import Pool
from vlfleet.gateway.proxy import generate, tenant_of, tend
from vlfleet.gateway.route.policy import Policy
from vlfleet.gateway.route.router import Router
from vlfleet.gateway.scrape import scrape
from vlfleet.gateway.state import GATEWAY, EngineMedia, Gateway
from vlfleet.gateway.tracing import traces_of
from vlfleet.media import Namer, Store
from vlfleet.media.addresses import FetchPolicy, Urls
from vlfleet.media.fetch import Fetcher
from vlfleet.media.identity import SECRET_BYTES

if TYPE_CHECKING:
    from vlfleet.media.fit import Fit, Fitter

SANE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
UPSTREAM_KEEPALIVE_SECONDS = 2.0
"""Shorter than the 5 s after which vLLM closes an idle connection (VLLM_HTTP_TIMEOUT_KEEP_ALIVE): a request sent into
a closing one looks like a replica that died."""

log = logging.getLogger("vlfleet.gateway")


def build_app(
    replicas: Sequence[Replica],
    *,
    served_model_name: str,
    on_unreachable: Callable[[Replica], None],
    draining: asyncio.Event,
    limits: Limits = LIMITS,
    media: EngineMedia | None = None,
    policy: Policy = Policy.PREDICTED,
    urls: FetchPolicy | None = None,
    secret: bytes | None = None,
    access: Access | None = None,
    batches: Path | None = None,
    fleet: str = "default",
) -> web.Application:
    """The gateway before `replicas`, whose phases the supervisor may change at any time.

    `on_unreachable` is called, on the loop, when a connection to a replica fails. While `draining` is set no new
    request is taken and those in flight go on. `media` says how the engines see media; without, they get no names.
    `urls` says which media are fetched; without, none. `secret` names media: with the same one, engines find again what
    they hold. `access` says who may come in; without, everybody. `batches` is the folder of /v1/batches; without,
    there are none. `fleet` is its name, for the page.
    """
    app = web.Application(middlewares=[finish, admit])
    app[ACCESS], app[BEHALF] = access or Access(), Behalf()
    app.on_response_prepare.append(name_server)
    media = media or EngineMedia()
    store, namer = Store(), Namer(secret or secrets.token_bytes(SECRET_BYTES))

    async def session(app: web.Application) -> AsyncIterator[None]:
        pool, metrics = Pool(limits.connect_seconds, UPSTREAM_KEEPALIVE_SECONDS), Metrics(replicas)
        gateway = Gateway(
            replicas,
            served_model_name,
            on_unreachable,
            draining,
            limits,
            metrics,
            pool,
            media=media,
            router=Router(policy),
            namer=namer,
            store=store,
            traces=traces_of(served_model_name),
        )
        app[GATEWAY] = gateway
        tasks = [asyncio.create_task(tend(gateway)), asyncio.create_task(scrape(gateway))]
        async with AsyncExitStack() as stack:
            if urls and urls.urls is not Urls.DENY:
                gateway.fetcher = await stack.enter_async_context(Fetcher(urls))
            if media.fit:
                gateway.fitter = stack.enter_context(fitting(media.fit))
            yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await gateway.pages.close()
        pool.close()
        if gateway.traces:
            await gateway.traces.close()

    app.cleanup_ctx.append(session)
    app.router.add_post("/v1/chat/completions", generate)
    app.router.add_post("/v1/completions", generate)
    add_files(app, Files(store, namer, media.vision, tenant_of))
    if batches:
        add_batches(app, batches_in(batches, app, replicas))
    app.router.add_get("/v1/models", pages.models)
    app.router.add_get("/health", pages.health)
    app.router.add_get("/ready", pages.ready)
    app.router.add_get("/metrics", pages.metrics)
    app.router.add_get("/version", pages.version)
    app.add_routes([*installed().routes(), *side_routes(pages.side_of(fleet, served_model_name), served_model_name)])
    return app


def batches_in(folder: Path, app: web.Application, replicas: Sequence[Replica]) -> Batches:
    """The batches that `folder` keeps, whose requests this gateway sends to itself.

    Raises:
        VlfleetError: the folder cannot be used.
    """
    try:
        shelf = Shelf(folder)
    except OSError as error:
        raise VlfleetError(f"{folder} cannot be used: {error.strerror}", "mend its owner and mode") from None
    ready = lambda: sum(replica.in_rotation for replica in replicas)  # noqa: E731
    return Batches(shelf, Worker(shelf, app[BEHALF], lambda: bool(app[GATEWAY].gate.queue), ready), tenant_of)


@contextmanager
def fitting(how: Fit) -> Iterator[Fitter]:
    """Half of the cores fit pictures: the engines need the rest."""
    from vlfleet.media.fit import Fitter

    fitter = Fitter(how, max(1, (os.cpu_count() or 1) // 2))
    try:
        yield fitter
    finally:
        fitter.close()


async def name_server(request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = SERVER


@web.middleware
async def finish(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Gives every request its id, and every failure the form of an OpenAI error."""
    came = request.headers.get("X-Request-Id", "")
    request[REQUEST_ID] = came if SANE_ID.fullmatch(came) else os.urandom(16).hex()
    try:
        check_head(request)
        response = await handler(request)
    except ApiError as error:
        response = error.response()
        if error.status in (408, 413) or isinstance(error, BadHeadError):
            response.force_close()  # what is left of the body is not worth reading
    except web.HTTPException as error:
        response = not_here(request, error).response()
    except Exception as error:
        log.error("%s failed in the gateway: %s", request[REQUEST_ID], where(error))
        message = f"the gateway failed on request {request[REQUEST_ID]}; its log says why"
        response = ApiError(500, "internal_error", message).response()
    finally:
        if isinstance(request.protocol, Connection):
            request.protocol.idles()
    if not response.prepared:
        response.headers["X-Request-Id"] = request[REQUEST_ID]
        if REPLICA in request:
            response.headers["X-Vlfleet-Replica"] = request[REPLICA]
    return response


def not_here(request: web.Request, error: web.HTTPException) -> ApiError:
    """404 and 405: an engine's other endpoints (sleep, tokenize, pause, ...) are nobody's business out here."""
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods - {"HEAD"}))
        message = f"{request.method} is not for {request.path}; use {allowed}"
        return ApiError(405, "method_not_allowed", message, headers={"Allow": allowed})
    if error.status == 404:
        return ApiError(404, "not_found", f"there is nothing at {request.path[:80]}; the API is below /v1")
    return ApiError(error.status, "http_error", error.reason)
