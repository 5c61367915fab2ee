"""Orders to a running supervisor, over a unix socket that only its owner can open."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from aiohttp import web

from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.fleet.folder import FleetFolder
from vlfleet.fleet.roll import Order
from vlfleet.fleet.supervisor import Supervisor

Event = dict[str, Any]
_LONGEST_PATH_BYTES = 103
"""sun_path holds 104 bytes on macOS and 108 on Linux, the last one a NUL."""
_FAILED = "failed"


class Control:
    """The supervisor's end of the socket."""

    def __init__(self, supervisor: Supervisor, folder: FleetFolder) -> None:
        self._supervisor, self._path = supervisor, folder.control
        app = web.Application()
        app.router.add_post("/restart", self.restart)
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
            say(f"`vlfleet restart` will not work: {self._path} cannot be made: {error.strerror or error}")

    async def close(self) -> None:
        await self._runner.cleanup()
        self._reach.close()
        self._path.unlink(missing_ok=True)

    async def restart(self, request: web.Request) -> web.StreamResponse:
        """The events of a restart, one JSON line each; the last one is done or failed. It does not need a listener."""
        events: asyncio.Queue[Event | None] = asyncio.Queue()
        try:
            task = self._supervisor.restart(_order(await request.read()), events.put_nowait)
        except VlfleetError as error:
            return web.Response(status=409, body=orjson.dumps(_failure(error)))
        task.add_done_callback(lambda _: events.put_nowait(None))
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        while event := await events.get():
            await response.write(orjson.dumps(event) + b"\n")
        await response.write(orjson.dumps(_end(task)) + b"\n")
        return response


def _order(body: bytes) -> Order:
    """
    Raises:
        VlfleetError: these bytes are no order.
    """
    try:
        order = Order(**orjson.loads(body or b"{}"))
        if isinstance(order.replica, str) and isinstance(order.force, bool) and order.drain_timeout_seconds >= 0:
            return order
    except (TypeError, ValueError):
        pass
    raise VlfleetError("this is no order", 'send {"replica": "r0", "drain_timeout_seconds": 600, "force": false}')


def _end(task: asyncio.Task[None]) -> Event:
    if task.cancelled():
        return _failure(VlfleetError("the fleet is shutting down", "start it again with `vlfleet up`"))
    error = task.exception()
    if isinstance(error, VlfleetError):
        return _failure(error)
    return _failure(VlfleetError(str(error))) if error else {"event": "done"}


def _failure(error: VlfleetError) -> Event:
    return {"event": _FAILED, "cause": error.cause, "remedy": error.remedy, "exit_code": error.exit_code}


async def restart(folder: FleetFolder, order: Order) -> AsyncIterator[Event]:
    """Gives the order to the supervisor of this fleet; its events up to `done`.

    Raises:
        VlfleetError: it was refused or ended early; nobody listens; the supervisor ended meanwhile.
    """
    try:
        with reachable(folder.control) as path:
            timeout = aiohttp.ClientTimeout(total=None)
            connector = aiohttp.UnixConnector(path)
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
                session.post("http://supervisor/restart", json=asdict(order)) as answer,
            ):
                async for line in answer.content:
                    event: Event = orjson.loads(line)
                    if event["event"] == _FAILED:
                        raise VlfleetError(event["cause"], event["remedy"], ExitCode(event["exit_code"]))
                    yield event
                    if event["event"] == "done":
                        return
    except (aiohttp.ClientConnectorError, FileNotFoundError):
        raise VlfleetError("the fleet's supervisor takes no orders", "see `vlfleet status`") from None
    except (aiohttp.ClientError, OSError):
        pass
    raise VlfleetError("the supervisor ended during the restart", "see `vlfleet status`")


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
