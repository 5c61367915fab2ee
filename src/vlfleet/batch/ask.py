"""One request to a server: its answer, or what kind of trouble it met."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

import aiohttp
import orjson

from vlfleet.batch.record import Failure, Reply
from vlfleet.batch.request import Request
from vlfleet.client.errors import MEDIA_MISSING, error_of, one_line, server_error
from vlfleet.client.http import Http, pieces
from vlfleet.client.retries import retry_after
from vlfleet.client.upload import Uploads

BUSY = frozenset({429, 503})
BROKEN = frozenset({408, 409, 425, 500, 502, 504})
SHUT = frozenset({401, 403})


class Kind(Enum):
    """Whose fault it is that there is no answer, and so what to do."""

    BUSY = "busy"
    """The fleet has too much to do, or none ready: the row is as good as never asked."""
    AWAY = "away"
    """Nothing answers at the address: the same."""
    BROKEN = "broken"
    """The fleet failed over this row, which may be the row's fault: it is asked a few times."""
    REFUSED = "refused"
    """The row is at fault."""
    SHUT = "shut"
    """The server does not take our key: no row will be answered."""


class Trouble(Exception):  # noqa: N818 - no fault of this program
    """A request without an answer."""

    def __init__(self, kind: Kind, failure: Failure, retry_after_seconds: float | None = None) -> None:
        super().__init__(failure.message)
        self.kind, self.failure, self.retry_after_seconds = kind, failure, retry_after_seconds


class Ask(Protocol):
    """How the runner asks; a test has its own."""

    async def __call__(self, request: Request) -> Reply:
        """
        Raises:
            Trouble: there is no answer.
        """
        ...


@dataclass
class HttpAsk:
    """A server that speaks OpenAI's API."""

    http: Http
    uploads: Uploads
    """What it holds travels as a reference."""
    timeout_seconds: float = 600.0
    headers: Mapping[str, str] = field(default_factory=dict)
    """Of every request."""

    async def __call__(self, request: Request) -> Reply:
        messages = request.body.get("messages")
        if not isinstance(messages, list) or not all(isinstance(each, dict) for each in messages):
            return await self._post(request.row.url, request.body)
        travelling = await self.uploads.travelling(messages)
        try:
            return await self._post(request.row.url, {**request.body, "messages": travelling})
        except Trouble as trouble:
            if trouble.failure.code != MEDIA_MISSING or travelling is messages:
                raise
        self.uploads.forget(travelling)  # the gateway kept it no longer
        return await self._post(request.row.url, request.body)

    async def _post(self, path: str, content: Mapping[str, Any]) -> Reply:
        body, started = orjson.dumps(content), time.perf_counter()
        headers = {**self.headers, "Content-Type": "application/json", "Content-Length": str(len(body))}
        timeout = aiohttp.ClientTimeout(total=self.timeout_seconds, sock_connect=self.http.timeouts.connect)
        url = self.http.base_url + path
        try:
            async with self.http.session().post(
                url, data=pieces(body), headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                answer = await response.read()
        except aiohttp.ConnectionTimeoutError:
            raise away(self.http.base_url, "it takes no connection") from None
        except TimeoutError:
            failure = Failure(f"no answer within {self.timeout_seconds:g} s", "give it longer with --timeout")
            raise Trouble(Kind.BROKEN, failure) from None
        except aiohttp.ClientConnectorError as error:
            raise away(self.http.base_url, error.strerror or str(error.os_error)) from None
        except (aiohttp.ClientError, ConnectionError, ValueError):
            failure = Failure("the connection ended before the answer did", "see `vlfleet status`")
            raise Trouble(Kind.BROKEN, failure) from None
        if response.status != 200:
            raise judged(response.status, response.headers, answer)
        return Reply(
            read_answer(answer),
            time.perf_counter() - started,
            response.headers.get("X-Vlfleet-Replica", ""),
            response.headers.get("X-Request-Id", ""),
        )


def away(base_url: str, reason: str) -> Trouble:
    failure = Failure(f"nothing answers at {base_url}: {reason.lower()}", "start the fleet again with `vlfleet up`")
    return Trouble(Kind.AWAY, failure)


def judged(status: int, headers: Mapping[str, str], body: bytes) -> Trouble:
    """The trouble that an answer other than 200 is."""
    error = server_error(status, body)
    failure = Failure(error.cause, error.remedy, status, error_of(body)[1])
    if status in BUSY:
        return Trouble(Kind.BUSY, failure, retry_after(headers.get("Retry-After")))
    if status in BROKEN or status >= 500 or status < 400:
        return Trouble(Kind.BROKEN, failure)
    return Trouble(Kind.SHUT if status in SHUT else Kind.REFUSED, failure)


def read_answer(body: bytes) -> dict[str, Any]:
    """The body of a 200.

    Raises:
        Trouble: it holds no answer.
    """
    try:
        answer = orjson.loads(body)
        choice = answer["choices"][0]
        if not isinstance(choice.get("message", {}), dict) or not ("message" in choice or "text" in choice):
            raise TypeError
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        said = one_line(body[:80].decode("utf-8", "replace"))
        failure = Failure(f"the server answered 200 without an answer: {said!r}", "check the URL", 200)
        raise Trouble(Kind.BROKEN, failure) from None
    found: dict[str, Any] = answer
    return found
