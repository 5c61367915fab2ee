"""The whole gateway on a transport of its own: bytes in, bytes out, no sockets."""

from __future__ import annotations

import asyncio
from functools import cache
from typing import Any

from vlfleet.fleet.replica import Phase, Replica
from vlfleet.gateway import build_app
from vlfleet.gateway.connection import LIMITS, Runner

ROUNDS = 60
"""Turns of the event loop that a request may take; what has not ended by then waits for more bytes."""


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.1", 4000)})
        self.written = bytearray()
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self.written += data

    def writelines(self, list_of_data: Any) -> None:
        for data in list_of_data:
            self.write(data)

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...


class Wire:
    """A gateway without a ready replica, and a loop to run it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.server = self.loop.run_until_complete(self._open())

    @classmethod
    @cache
    def shared(cls) -> Wire:
        return cls()

    async def _open(self) -> Any:
        replica = Replica("r0", 1, "key", "fake", phase=Phase.STARTING)
        app = build_app(
            [replica], served_model_name="fake-vl", on_unreachable=lambda replica: None, draining=asyncio.Event()
        )
        self.runner = Runner(
            app,
            LIMITS,
            access_log=None,
            handler_cancellation=True,
            max_field_size=LIMITS.header_bytes,
            max_line_size=LIMITS.header_bytes,
            max_headers=LIMITS.headers,
            auto_decompress=False,
        )
        await self.runner.setup()
        return self.runner.server

    def send(self, content: bytes) -> bytes:
        return self.loop.run_until_complete(self._send(content))

    async def _send(self, content: bytes) -> bytes:
        transport, connection = Transport(), self.server()
        connection.connection_made(transport)
        half = len(content) // 2
        for piece in (content[:half], content[half:]):
            if not transport.closed:
                connection.data_received(piece)
                await self._settle(transport)
        if not transport.closed:
            connection.eof_received()
        connection.connection_lost(None)
        await self._settle(transport, 10)
        return bytes(transport.written)

    async def _settle(self, transport: Transport, rounds: int = ROUNDS) -> None:
        for _ in range(rounds):
            await asyncio.sleep(0)

    def close(self) -> None:
        self.loop.run_until_complete(self.runner.cleanup())
        self.loop.close()
