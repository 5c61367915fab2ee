"""POST /alerts/acknowledge and /alerts/silence."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from aiohttp import web

from vlfleet.gateway.batches import read_object
from vlfleet.gateway.errors import ApiError, bad_request
from vlfleet.watch.alert import Book, Silence

MOST_CHARACTERS = 100
MOST_SILENCES = 100
MOST_SECONDS = 366 * 86_400.0


def alert_routes(
    book: Callable[[], Book], acknowledged: Callable[[str, str, str], None], silenced: Callable[[Silence], None]
) -> list[web.RouteDef]:
    """`book` has the alerts of now; the other two are the watcher's, and get what was asked for."""

    async def acknowledge(request: web.Request) -> web.Response:
        asked = await read_object(request)
        code, subject, by = _word(asked, "code"), _word(asked, "subject"), _word(asked, "by", "the owner")
        if not any(alert.key == (code, subject) for alert in book().alerts):
            raise ApiError(404, "not_found", f"there is no alert {code} of {subject} now")
        acknowledged(code, subject, by)
        return web.Response(status=204)

    async def silence(request: web.Request) -> web.Response:
        asked = await read_object(request)
        code, subject, seconds = _word(asked, "code"), _word(asked, "subject", "*"), asked.get("seconds")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= MOST_SECONDS:
            raise bad_request("seconds", "seconds is no number from 0 to a year", "send one; 0 ends the silence")
        if seconds and len(book().silences) >= MOST_SILENCES:
            raise ApiError(409, "too_many", "there are too many silences; end some of them first")
        silenced(Silence(code, subject, time.time() + seconds))
        return web.Response(status=204)

    return [web.post("/alerts/acknowledge", acknowledge), web.post("/alerts/silence", silence)]


def _word(asked: dict[str, Any], name: str, default: str = "") -> str:
    """
    Raises:
        ApiError: 400, it is no short text.
    """
    value = asked.get(name) or default
    if not isinstance(value, str) or not 0 < len(value) <= MOST_CHARACTERS or not value.isprintable():
        raise bad_request(name, f"{name} is no text of 1 to {MOST_CHARACTERS} characters", "send one")
    return value
