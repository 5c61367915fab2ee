"""`python -m vlfleet.engine.embedded MODEL --port N`: one replica. Its log tells phases and, if it fails, why."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys

from vlfleet.engine.embedded.args import EngineArgs, parse
from vlfleet.engine.embedded.boot import boot, phase
from vlfleet.errors import ExitCode, VlfleetError

SHUTDOWN_SECONDS = 1.0
"""For clients to take what was written; one that does not read is cut off."""


def main(argv: list[str]) -> int:
    """Serve until SIGTERM. Returns the exit code."""
    try:
        return asyncio.run(_start(parse(argv)))
    except VlfleetError as error:
        cause = " ".join(error.cause.split())
        print(f"ERROR: {cause} | {error.remedy}", flush=True)
        return error.exit_code


async def _start(args: EngineArgs) -> int:
    with _bind(args.port) as listener:
        return await _serve(args, listener)


async def _serve(args: EngineArgs, listener: socket.socket) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    loading = asyncio.create_task(asyncio.to_thread(boot, args))
    await asyncio.wait({loading, asyncio.create_task(stop.wait())}, return_when=asyncio.FIRST_COMPLETED)
    if not loading.done():
        os._exit(0)  # a thread inside torch cannot be interrupted, and nothing is lost
    service = loading.result()

    from aiohttp import web

    from vlfleet.engine.embedded.server import build_app

    runner = web.AppRunner(
        build_app(service), handler_cancellation=True, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS
    )
    await runner.setup()
    try:
        await web.SockSite(runner, listener, backlog=1024).start()
    except OSError as error:  # another process bound it too, and listened first
        raise _port_error(args.port, error) from None
    phase("ready")
    await stop.wait()
    await asyncio.to_thread(service.scheduler.close)
    await runner.cleanup()
    service.pool.shutdown(wait=False, cancel_futures=True)
    if service.scheduler.alive:
        os._exit(ExitCode.DONE)  # it is inside a long prompt, and torch does not let the interpreter end around it
    return ExitCode.DONE


def _bind(port: int) -> socket.socket:
    """Take the port before the model is loaded: a clash shows at once. Nobody connects before `listen`."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OverflowError:
        raise VlfleetError(f"port {port} does not exist", "choose one from 1 to 65535", ExitCode.USAGE) from None
    except OSError as error:
        raise _port_error(port, error) from None
    return listener


def _port_error(port: int, error: OSError) -> VlfleetError:
    return VlfleetError(f"port {port} cannot be used: {error.strerror}", "choose another port")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
