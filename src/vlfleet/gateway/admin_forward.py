"""/v1 on the admin port, handed on to the fleet's own gateway: the page talks to its own origin only, and the owner of
a fleet needs no key for it. Bodies go through as they come, both ways; the gateway's limits are the limits."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable

import aiohttp
from aiohttp import web
from yarl import URL

from vlfleet.gateway.access import ACCESS
from vlfleet.gateway.admission import LIMITS, too_large
from vlfleet.gateway.behalf import BEHALF, HEADER, OWNER, Claim
from vlfleet.gateway.errors import ApiError
from vlfleet.gateway.exchange import ROUTE
from vlfleet.gateway.proxy import SESSION, TIMEOUTS

METHODS = ("GET", "POST", "DELETE")
GENERATES = ("/v1/chat/completions", "/v1/completions")
PATH = re.compile(r"/v1(?:/[A-Za-z0-9_-][A-Za-z0-9_.-]*)+")
"""Of the API; nothing in it means another place."""
SENT = (
    "Accept",
    "Content-Length",
    "Content-Type",
    "User-Agent",
    "X-Request-Id",
    "traceparent",
    "tracestate",
    ROUTE,
    SESSION,
    *TIMEOUTS,
)
"""Headers of the request that the gateway gets. The token of the admin is not among them, nor what a page adds."""
TOLD = (
    "Content-Disposition",
    "Content-Length",
    "Content-Type",
    "Retry-After",
    "X-Request-Id",
    "X-Vlfleet-Replica",
    ROUTE,
)
"""Headers of the answer that come back."""


class Forward:
    """The way to `gateway`, which listens at `url` once this is asked for it."""

    def __init__(self, gateway: web.Application, url: Callable[[], str]) -> None:
        self._gateway, self._url = gateway, url
        self._session: aiohttp.ClientSession

    def routes(self) -> list[web.RouteDef]:
        return [web.route(method, "/v1/{path:.+}", self.forward) for method in METHODS]

    async def context(self, app: web.Application) -> AsyncIterator[None]:
        """The connections, for as long as the admin runs."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector, auto_decompress=False) as self._session:
            yield

    async def forward(self, request: web.Request) -> web.StreamResponse:
        """The gateway's answer. When whoever asked leaves, the gateway's own client has left, too.

        Raises:
            ApiError: it is for no endpoint of the API; it is too large; the gateway does not answer.
        """
        path, _, query = request.raw_path.partition("?")
        if not PATH.fullmatch(path):
            raise ApiError(404, "not_found", "there is no such endpoint below /v1")
        if path in GENERATES and (request.content_length or 0) > LIMITS.body_bytes:
            raise too_large(LIMITS)
        headers = {name: request.headers[name] for name in SENT if name in request.headers}
        owner = Claim(OWNER if self._gateway[ACCESS].keyed else "", OWNER)
        headers |= {HEADER: self._gateway[BEHALF].header(owner), "Accept-Encoding": "identity"}
        url = URL(f"{self._url()}{path}{'?' * bool(query)}{query}", encoded=True)
        body = request.content if request.can_read_body else None
        response = web.StreamResponse()
        try:
            async with self._session.request(
                request.method, url, headers=headers, data=body, allow_redirects=False
            ) as answer:
                response.set_status(answer.status)
                response.headers.update({name: answer.headers[name] for name in TOLD if name in answer.headers})
                await response.prepare(request)
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
        except aiohttp.ClientError:
            if not response.prepared:
                raise ApiError(502, "gateway_unreachable", "the gateway ended the connection; send it again") from None
            if request.transport:  # what was sent so far is not the whole answer, and must not look like it
                request.transport.abort()
        except ConnectionError:
            pass  # whoever asked has left
        return response
