"""What the owner of a fleet does with it over HTTP: on a port of its own, on loopback, with a token of this run.

No cookie is ever set, so another page in the owner's browser has nothing to send along (CSRF); Host and Origin must be
this very address, so a name that an attacker lets point to 127.0.0.1 gets nowhere (DNS rebinding).
"""

from __future__ import annotations

import hmac
import logging
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler

from vlfleet.gateway.access import BEARER, unauthorized
from vlfleet.gateway.assets import CONTENT_SECURITY_POLICY
from vlfleet.gateway.connection import SERVER, where
from vlfleet.gateway.errors import ApiError
from vlfleet.gateway.heads import check_head

NAMES = ("127.0.0.1", "localhost", "[::1]")
"""Of this machine: what may stand in Host and Origin."""
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
"""Of every answer but the page's files."""


log = logging.getLogger("vlfleet.admin")


def build_admin(token: str, routes: Iterable[web.RouteDef], opened: Iterable[web.RouteDef] = ()) -> web.Application:
    """An application of `routes`, which ask for `token`, and of `opened`, which hold no secret and ask for none."""
    opened = tuple(opened)
    free = frozenset(route.handler for route in opened)

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            check_head(request)
            check_origin(request)
            if request.match_info.handler not in free:
                check_token(request, token)
            return await handler(request)
        except ApiError as error:
            return error.response()
        except web.HTTPException as error:
            return not_here(error).response()
        except Exception as error:
            log.error("failed in the admin: %s", where(error))
            return ApiError(500, "internal_error", "the admin failed; its log says where").response()

    async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
        response.headers["Server"] = SERVER
        if "Cache-Control" not in response.headers:  # the page's files bring their own
            response.headers.update(HEADERS)

    app = web.Application(middlewares=[guard])
    app.on_response_prepare.append(add_headers)
    app.add_routes([*routes, *opened])
    return app


def not_here(error: web.HTTPException) -> ApiError:
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        return ApiError(405, "method_not_allowed", f"use {allowed}", headers={"Allow": allowed})
    return ApiError(error.status, "not_found", "there is nothing here; docs/watch.md lists what there is")


def check_origin(request: web.Request) -> None:
    """
    Raises:
        ApiError: 403, the request is not meant for this address, or comes from a page of another.
    """
    port = request.transport.get_extra_info("sockname")[1] if request.transport else 0
    own = {f"{name}:{port}" for name in NAMES}
    origin = request.headers.get("Origin")
    if request.headers.get("Host", "").lower() not in own or (
        origin is not None and origin.lower() not in {f"http://{host}" for host in own}
    ):
        raise ApiError(403, "wrong_origin", f"this is for http://127.0.0.1:{port}, and for no other name or page")


def check_token(request: web.Request, token: str) -> None:
    """
    Raises:
        ApiError: 401, it does not have the token.
    """
    found = BEARER.fullmatch(request.headers.get("Authorization", ""))
    if not hmac.compare_digest((found[1] if found else "").encode("utf-8", "surrogateescape"), token.encode()):
        raise unauthorized(given=found is not None)


def new_token(path: Path) -> str:
    """A token of 256 bits, kept at `path` for whoever may read the owner's files.

    Raises:
        OSError: it cannot be written.
    """
    token = secrets.token_urlsafe(32)
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
        file.write(token + "\n")
    return token
