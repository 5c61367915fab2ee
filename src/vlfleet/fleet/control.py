"""Orders to a running supervisor, over a unix socket that only its owner can open."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import orjson
from aiohttp import web
from aiohttp.typedefs import Handler

from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.fleet.cordon import Cordon, Drain
from vlfleet.fleet.folder import FleetFolder
from vlfleet.fleet.roll import Order
from vlfleet.fleet.supervisor import Supervisor

Event = dict[str, Any]
AnyOrder = TypeVar("AnyOrder", Order, Drain, Cordon)
_LONGEST_PATH_BYTES = 103
"""sun_path holds 104 bytes on macOS and 108 on Linux, the last one a NUL."""
_FAILED, _DONE = "failed", "done"


class Control:
    """The supervisor's end of the socket."""

    def __init__(self, supervisor: Supervisor, folder: FleetFolder) -> None:
        self._supervisor, self._path = supervisor, folder.control
        self.orders: Mapping[str, Handler] = {
            "/restart": self.restart,
            "/drain": self.drain,
            "/cordon": self.cordon,
            "/uncordon": self.uncordon,
        }
        """By path: what is posted here, and may be posted elsewhere to whoever asks for a token."""
        app = web.Application()
        app.add_routes(web.post(path, handler) for path, handler in self.orders.items())
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        self._reach = ExitStack()

    async def open(self, say: Callable[[str], None]) -> None:
        """Listens. A fleet whose socket cannot be made serves all the same, and says what does not work."""
        await self._runner.setup()
        try:
            path = self._reach.enter_context(reachable(self._path))
            await web.UnixSite(self._runner, path).start()
            self._path.chmod(0o600)
        except OSError as error:
            why = error.strerror or error
            say(f"`vlfleet restart`, cordon and drain will not work: {self._path} cannot be made: {why}")

    async def close(self) -> None:
        await self._runner.cleanup()
        self._reach.close()
        self._path.unlink(missing_ok=True)

    async def restart(self, request: web.Request) -> web.StreamResponse:
        """The events of a restart, one JSON line each; the last one is done or failed. It does not need a listener."""
        events: asyncio.Queue[Event | None] = asyncio.Queue()
        try:
            task = self._supervisor.restart(_order(Order, await request.read()), events.put_nowait)
        except VlfleetError as error:
            return _refused(error)
        task.add_done_callback(lambda _: events.put_nowait(None))

        async def told() -> AsyncIterator[Event]:
            while event := await events.get():
                yield event
            yield _end(task)

        return await _lines(request, told())

    async def drain(self, request: web.Request) -> web.StreamResponse:
        """Cordons, and then the events of the wait as for a restart. Who leaves early leaves it cordoned."""
        try:
            order = _order(Drain, await request.read())
            await self._supervisor.cordon(Cordon(order.replica, order.force))
        except VlfleetError as error:
            return _refused(error)

        async def told() -> AsyncIterator[Event]:
            try:
                async for event in self._supervisor.drained(order):
                    yield event
                yield {"event": _DONE}
            except VlfleetError as error:
                yield _failure(error)

        return await _lines(request, told())

    async def cordon(self, request: web.Request) -> web.StreamResponse:
        """{"cordoned": ["r0"]}: all that are out of rotation by hand now."""
        return await self._cordon(request, cordoned=True)

    async def uncordon(self, request: web.Request) -> web.StreamResponse:
        """As `cordon`."""
        return await self._cordon(request, cordoned=False)

    async def _cordon(self, request: web.Request, *, cordoned: bool) -> web.StreamResponse:
        try:
            order = _order(Cordon, await request.read())
            names = await self._supervisor.cordon(order, cordoned=cordoned)
        except VlfleetError as error:
            return _refused(error)
        return _json(200, {"cordoned": names})


async def _lines(request: web.Request, events: AsyncIterator[Event]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    with contextlib.suppress(ConnectionResetError):  # nobody listens any more
        await response.prepare(request)
        async for event in events:
            await response.write(orjson.dumps(event) + b"\n")
    return response


def _json(status: int, payload: dict[str, Any]) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(payload), headers={"Content-Type": "application/json"})


def _refused(error: VlfleetError) -> web.Response:
    """As an event for the command line, and as an OpenAI error for whoever reads those."""
    told = {"message": str(error), "type": "invalid_request_error", "code": "refused", "param": None}
    return _json(409, {**_failure(error), "error": told})


def _order(kind: type[AnyOrder], body: bytes) -> AnyOrder:
    """
    Raises:
        VlfleetError: these bytes are no order.
    """
    try:
        order = kind(**orjson.loads(body or b"{}"))
        if all(_fits(getattr(order, each.name), each.default) for each in fields(kind)):
            return order
    except (TypeError, ValueError):
        pass
    example = orjson.dumps(asdict(kind(replica="r0"))).decode()
    raise VlfleetError("this is no order", f"send {example}")


def _fits(value: object, default: object) -> bool:
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
    return isinstance(value, type(default))


def _end(task: asyncio.Task[None]) -> Event:
    if task.cancelled():
        return _failure(VlfleetError("the fleet is shutting down", "start it again with `vlfleet up`"))
    error = task.exception()
    if isinstance(error, VlfleetError):
        return _failure(error)
    return _failure(VlfleetError(str(error))) if error else {"event": _DONE}


def _failure(error: VlfleetError) -> Event:
    return {"event": _FAILED, "cause": error.cause, "remedy": error.remedy, "exit_code": error.exit_code}


async def give(folder: FleetFolder, path: str, order: Order | Drain | Cordon) -> AsyncIterator[Event]:
    """Gives an order to the supervisor of this fleet; its events, for /restart and /drain up to `done`, else its
    answer.

    Raises:
        VlfleetError: it was refused or ended early; nobody listens; the supervisor ended meanwhile.
    """
    try:
        with reachable(folder.control) as socket:
            timeout = aiohttp.ClientTimeout(total=None)
            connector = aiohttp.UnixConnector(socket)
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
                session.post(f"http://supervisor{path}", json=asdict(order)) as answer,
            ):
                async for line in answer.content:
                    event: Event = orjson.loads(line)
                    if event.get("event") == _FAILED:
                        raise VlfleetError(event["cause"], event["remedy"], ExitCode(event["exit_code"]))
                    yield event
                    if event.get("event", _DONE) == _DONE:
                        return
    except (aiohttp.ClientConnectorError, FileNotFoundError):
        raise VlfleetError("the fleet's supervisor takes no orders", "see `vlfleet status`") from None
    except (aiohttp.ClientError, OSError):
        pass
    raise VlfleetError("the supervisor ended meanwhile", "see `vlfleet status`")


@contextmanager
def reachable(path: Path) -> Iterator[str]:
    """A name for the socket at `path` that is short enough for the kernel, good until the end of the context.

    Raises:
        OSError: there is none.
    """
    if len(os.fsencode(path)) <= _LONGEST_PATH_BYTES:
        yield str(path)
        return
    if not Path("/proc/self/fd").is_dir():
        raise OSError(errno.ENAMETOOLONG, "its path is too long for a socket")
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
