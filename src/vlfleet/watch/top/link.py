"""The admin port of a fleet, as `vlfleet top` uses it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import aiohttp
import orjson

from vlfleet.errors import VlfleetError
from vlfleet.watch.top.facts import Facts
from vlfleet.watch.top.line import clean
from vlfleet.watch.top.view import Order

_PATHS = {
    "restart": "/restart",
    "drain": "/drain",
    "cordon": "/cordon",
    "uncordon": "/uncordon",
    "acknowledge": "/alerts/acknowledge",
    "silence": "/alerts/silence",
}
_MOST_BYTES = 64 << 20
"""Of one glance: 10,000 replicas take 10 MiB."""
_PATIENCE_SECONDS = 5.0
"""Beyond the interval, after which a fleet that says nothing counts as lost."""
_LOG_LINES = 200


@dataclass(frozen=True)
class Address:
    """Where a fleet's admin listens, and what it wants to see."""

    url: str
    token: str


@dataclass(frozen=True)
class Log:
    """A part of a replica's log."""

    text: str
    mark: str
    """What to ask for next time to get what came since."""
    gap: bool
    """Whether something between the last part and this one is lost."""


class Admin:
    """Asks one fleet. Its address is looked up anew for each connection: after a restart it listens elsewhere."""

    def __init__(self, address: Callable[[], Address]) -> None:
        self._address = address
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Admin:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None, sock_connect=_PATIENCE_SECONDS))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session:
            await self._session.close()

    async def glance(self) -> dict[str, Any]:
        """
        Raises:
            VlfleetError: the fleet cannot be reached, or what came is none.
        """
        body = await self._read("GET", "/glance")
        return _glance(body)

    async def live(self, interval_seconds: float) -> AsyncIterator[dict[str, Any]]:
        """Glances as they come, until the connection ends.

        Raises:
            VlfleetError: the fleet cannot be reached, says nothing any more, or something that is no glance.
        """
        silence = aiohttp.ClientTimeout(
            total=None, sock_connect=_PATIENCE_SECONDS, sock_read=_patience(interval_seconds)
        )
        async with self._answer("GET", f"/live?seconds={interval_seconds:g}", timeout=silence) as answer:
            held = bytearray()
            try:
                async for chunk in answer.content.iter_any():
                    held += chunk
                    while (end := held.find(b"\n\n")) >= 0:
                        event = bytes(held[:end])
                        del held[: end + 2]
                        if event.startswith(b"data:"):
                            yield _glance(event[5:])
                    if len(held) > _MOST_BYTES:
                        raise VlfleetError("the fleet sent no glance but too many bytes")
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                raise VlfleetError(_why(error)) from None

    async def order(self, order: Order) -> AsyncIterator[Facts]:
        """The events of an order; none for one that is done at once.

        Raises:
            VlfleetError: it was refused, or the connection ended before the order did.
        """
        try:
            async with self._answer("POST", _PATHS[order.act], json=order.body) as answer:
                async for row in answer.content:
                    event = Facts(_json(row))
                    if event.text("event") == "failed":
                        raise VlfleetError(event.text("cause"), event.text("remedy"))
                    if event.text("event"):
                        yield event
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise VlfleetError(_why(error)) from None

    async def log(self, replica: str, mark: str = "") -> Log:
        """What came to a replica's log since `mark`; its last lines without one.

        Raises:
            VlfleetError: the fleet cannot be reached, or knows no such replica or mark.
        """
        asked = {"replica": replica, **({"after": mark} if mark else {"lines": str(_LOG_LINES)})}
        found = Facts(_json(await self._read("GET", "/logs", params=asked)))
        return Log(found.raw("text"), found.raw("offset"), gap=bool(mark) and found.true("truncated"))

    async def _read(self, method: str, path: str, **more: Any) -> bytes:
        timeout = aiohttp.ClientTimeout(total=2 * _PATIENCE_SECONDS)
        try:
            async with self._answer(method, path, timeout=timeout, **more) as answer:
                return await answer.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise VlfleetError(_why(error)) from None

    @asynccontextmanager
    async def _answer(self, method: str, path: str, **more: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request, and its answer while the context lasts.

        Raises:
            VlfleetError: nobody listens, or the answer is an error.
        """
        assert self._session
        # The search for a fleet waits for one that has just begun: not on the loop.
        address = await asyncio.to_thread(self._address)
        headers = {"Authorization": f"Bearer {address.token}"}
        try:
            answer = await self._session.request(method, address.url + path, headers=headers, **more)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise VlfleetError(_why(error)) from None
        try:
            if answer.status >= 300:
                raise VlfleetError(*_refusal(answer.status, await answer.read()))
            yield answer
        finally:
            answer.close()


def _patience(interval_seconds: float) -> float:
    return 2 * interval_seconds + _PATIENCE_SECONDS


def _glance(body: bytes) -> dict[str, Any]:
    found = _json(body)
    if isinstance(found, dict) and isinstance(found.get("replicas"), list):
        return found
    raise VlfleetError("what the fleet sent is no glance", "is it of the same version? `vlfleet version`")


def _json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except ValueError:
        return None


def _refusal(status: int, body: bytes) -> tuple[str, str]:
    """Cause and remedy of an answer that is an error, in either of the two forms that the admin uses."""
    found = _json(body)
    facts = Facts(found)
    if cause := facts.text("cause"):
        return cause, facts.text("remedy")
    if message := facts.part("error").text("message"):
        return message, ""
    return f"the fleet answered {status}", ""


def _why(error: BaseException) -> str:
    """An error of the network in a few words."""
    if isinstance(error, TimeoutError):
        return "the fleet says nothing any more"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "nobody listens there"
    if isinstance(error, (aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError, ConnectionResetError)):
        return "the connection was cut"
    return clean(str(error)) or type(error).__name__
