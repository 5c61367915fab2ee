"""The gateway's socket."""

from __future__ import annotations

import errno
import logging

from aiohttp import web

from vlfleet.errors import VlfleetError
from vlfleet.gateway import batches
from vlfleet.gateway.connection import LIMITS, ConnectionLimits, Runner

LINGER_SECONDS = 2.0
"""After an answer that comes before the end of the body: so long the rest is read away, and the client can see it."""


async def serve(app: web.Application, host: str, port: int, limits: ConnectionLimits = LIMITS) -> web.AppRunner:
    """Listens; `await runner.cleanup()` ends it, and cuts what is still in flight. Port 0 takes a free one, then in
    `runner.addresses`.

    `handler_cancellation` is what ends a request at its engine when the client leaves.

    Raises:
        VlfleetError: the address is taken or not ours.
    """
    runner = Runner(
        app,
        limits,
        access_log=None,
        handler_cancellation=True,
        keepalive_timeout=limits.idle_seconds,
        max_line_size=limits.header_bytes,
        max_field_size=limits.header_bytes,
        max_headers=limits.headers,
        auto_decompress=False,
        lingering_time=LINGER_SECONDS,
        shutdown_timeout=1.0,
        logger=logging.getLogger("vlfleet.gateway.http"),
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        await runner.cleanup()
        if error.errno == errno.EADDRINUSE:
            raise VlfleetError(f"port {port} of {host} is in use", "take another with --port") from None
        raise VlfleetError(f"cannot listen on {host}:{port}: {error.strerror}", "check --host and --port") from None
    batches.opened(app, host, int(runner.addresses[0][1]))
    return runner
