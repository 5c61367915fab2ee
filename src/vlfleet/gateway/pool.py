"""The connections to the engines, kept between requests."""

from __future__ import annotations

import asyncio

from vlfleet.gateway.wire import HOST, Broken, Unreachable, Wire


class Pool:
    """The connections to all engines. Those that nobody uses are kept for `keep_seconds`."""

    def __init__(self, connect_seconds: float, keep_seconds: float) -> None:
        self.connect_seconds, self.keep_seconds = connect_seconds, keep_seconds
        self._loop = asyncio.get_running_loop()
        self._idle: dict[int, list[Wire]] = {}
        """By port, the one that was used last at the end."""
        self._sweeper: asyncio.TimerHandle | None = None

    async def connect(self, port: int) -> Wire:
        """A connection for one request, which ends with its `release`.

        Raises:
            Unreachable: the engine takes none.
        """
        idle = self._idle.get(port)
        if idle:
            oldest = self._loop.time() - self.keep_seconds
            while idle:
                wire = idle.pop()
                if wire.usable(oldest):
                    return wire
                wire.close()
        try:
            async with asyncio.timeout(self.connect_seconds):
                return (await self._loop.create_connection(lambda: Wire(port, self.keep, self.forget), HOST, port))[1]
        except (OSError, TimeoutError):
            raise Unreachable(f"port {port} takes no connection") from None

    def keep(self, wire: Wire) -> None:
        """Nobody uses it now."""
        wire.kept_at = self._loop.time()
        self._idle.setdefault(wire.port, []).append(wire)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(self.keep_seconds, self._sweep)

    def forget(self, wire: Wire) -> None:
        """It was closed."""
        idle = self._idle.get(wire.port, ())
        if wire in idle:
            self._idle[wire.port].remove(wire)

    def close(self) -> None:
        """Ends those that nobody uses."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for wire in [wire for idle in self._idle.values() for wire in idle]:
            wire.close()
        self._idle.clear()

    def _sweep(self) -> None:
        oldest = self._loop.time() - self.keep_seconds
        for port, idle in list(self._idle.items()):
            for wire in idle:
                if wire.kept_at < oldest:
                    wire.close()
            self._idle[port] = [wire for wire in idle if wire.kept_at >= oldest]
            if not self._idle[port]:
                del self._idle[port]
        self._sweeper = self._loop.call_later(self.keep_seconds, self._sweep) if self._idle else None


async def get(pool: Pool, port: int, path: str, key: str, seconds: float, most_bytes: int) -> tuple[int, bytes]:
    """Status and body of a page of an engine that asks for `key`.

    Raises:
        WireError: there is none, or it is larger than `most_bytes`. TimeoutError: it does not come in `seconds`.
    """
    async with asyncio.timeout(seconds):
        wire = await pool.connect(port)
        try:
            headers = f"Host: {HOST}:{port}\r\nAuthorization: Bearer {key}\r\nAccept-Encoding: identity\r\n"
            await wire.ask(f"GET {path} HTTP/1.1\r\n{headers}\r\n".encode())
            body = bytearray()
            while data := await wire.read():
                body += data
                if len(body) > most_bytes:
                    raise Broken("the page is too large")
            return wire.status, bytes(body)
        finally:
            wire.release()
