"""GET /logs: what an engine wrote."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from pathlib import Path

from aiohttp import web

from vlfleet.fleet import log_page
from vlfleet.gateway.errors import ApiError, bad_request
from vlfleet.gateway.pages import json_response

DEFAULT_LINES, MOST_LINES = 200, 5000


def logs_route(names: Callable[[], Collection[str]], log: Callable[[str], Path]) -> web.RouteDef:
    """`names` are those of replicas, `log` is the file of each. A name that is not among them opens no file."""

    async def logs(request: web.Request) -> web.Response:
        query = request.query
        replica, after = query.get("replica", ""), query.get("after", "")
        if replica not in names():
            raise ApiError(404, "not_found", f"there is no such replica; choose one of: {' '.join(names())}")
        lines = _lines(query.get("lines", str(DEFAULT_LINES)))
        try:
            piece = await asyncio.to_thread(log_page.page, log(replica), after, lines)
        except ValueError:
            raise bad_request("after", "after is no offset of this log", "send the one that came before") from None
        told = {"replica": replica, "text": piece.text, "offset": piece.mark, "truncated": piece.truncated}
        return json_response(told)

    return web.get("/logs", logs)


def _lines(text: str) -> int:
    """
    Raises:
        ApiError: 400, it is no number of 1 to 5000.
    """
    lines = int(text) if text.isascii() and text.isdecimal() and len(text) < 6 else 0
    if not 1 <= lines <= MOST_LINES:
        raise bad_request("lines", f"lines is no number from 1 to {MOST_LINES}", "send one")
    return lines
