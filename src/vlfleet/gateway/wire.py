"""HTTP/1.1 to the engines: connections that are kept, requests of any size, answers as they come.

It knows whom it talks to: processes on this machine, in HTTP/1.1, without TLS, redirects, cookies or compression. That
makes it cost a quarter of aiohttp's client; what came is taken apart by llhttp in its strict mode, as there.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable, Sequence
from typing import cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from vlfleet.media.identity import Buffer

HOST = "127.0.0.1"
SLICE_BYTES = 256 << 10
"""Of a large body that are handed over at once: other requests are looked at between two of them."""
UNREAD_BYTES = 256 << 10
"""Of an answer that may lie here unread; then the engine has to wait."""
STRAY_BYTES = 64 << 10
"""Of heads, interim answers, trailers and chunk extensions without a byte of a body between them."""


class WireError(Exception):
    """An engine did not answer as it should."""


class Unreachable(WireError):  # noqa: N818  (the other kinds of failure are named alike)
    """There is no connection: it got nothing of the request."""


class Broken(WireError):  # noqa: N818
    """The connection ended before the answer did, or what came is not HTTP."""


class Wire(asyncio.Protocol):
    """One connection, with one request at a time, of one task: `ask`, `read` until nothing comes, `release`."""

    def __init__(self, port: int, keep: Callable[[Wire], None], forget: Callable[[Wire], None]) -> None:
        """`keep` is told when the request is over and another one may be sent, `forget` when it was closed."""
        self.port = port
        self._keep, self._forget = keep, forget
        self.kept_at = 0.0
        self._loop = asyncio.get_running_loop()
        self._parser = HttpResponseParser(self)
        self._poll = select.poll()
        self._waiter: asyncio.Future[None] | None = None
        self._full = self._paused = self._lost = False
        self._begin()

    def _begin(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        """By their names in lower case; of several the last."""
        self._asked = self._sent = self._headed = self._done = self._again = False
        self._error: Exception | None = None
        self._chunks: list[bytes] = []
        self._unread_bytes = self._stray_bytes = 0

    async def ask(self, head: bytes, pieces: Sequence[Buffer] = ()) -> None:
        """Sends a request and waits until the head of its answer is in `status` and `headers`. An engine that answers
        before it has everything gets no more.

        Raises:
            WireError: there is no answer. Exception: what `stop` was given.
        """
        self._asked = True
        size = sum(len(piece) for piece in pieces)
        if size <= SLICE_BYTES:
            self._transport.write(b"".join((head, *pieces)))
            self._sent = True
        else:
            self._transport.write(head)
            self._sent = await self._write(pieces)
        while not self._headed:
            if self._error is not None:
                raise self._error
            await self._wait()

    async def _write(self, pieces: Sequence[Buffer]) -> bool:
        """Whether all of it was wanted."""
        for piece in pieces:
            view = memoryview(piece)
            for start in range(0, len(view), SLICE_BYTES):
                while self._full and not self._headed and self._error is None:
                    await self._wait()
                if self._headed or self._error is not None:
                    return False
                self._transport.write(view[start : start + SLICE_BYTES])
        return True

    async def read(self) -> bytes:
        """What has come of the answer's body, at least a byte; nothing at its end.

        Raises:
            Broken: it ends too early. Exception: what `stop` was given.
        """
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self._done:
                return b""
            await self._wait()
        chunks = self._chunks
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._chunks, self._unread_bytes = [], 0
        if self._paused and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()
        return data

    def header(self, name: bytes) -> str:
        """The value of an answer's header, empty where there is none."""
        return self.headers.get(name, b"").decode("latin-1")

    def stop(self, error: Exception) -> None:
        """Whoever waits for the answer gets `error` instead."""
        if not self._done and self._error is None:
            self._error = error
            self._wake()

    def release(self) -> None:
        """The request is over. The connection is kept where the answer was whole; else it is closed, and with it ends
        what the engine may still do."""
        whole = self._done and self._sent and self._again and self._error is None
        if whole and not self._lost and not self._transport.is_closing():
            self._begin()
            self._keep(self)
        else:
            self._transport.abort()

    def usable(self, oldest: float) -> bool:
        """Whether another request may be sent: it is kept no longer than since `oldest`, and nothing has come, not even
        its end: an engine that closes it just now is not asked in vain."""
        closing = self._lost or self._transport.is_closing()
        return not closing and self.kept_at >= oldest and not self._poll.poll(0)

    def close(self) -> None:
        self._transport.abort()

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._forget(self)
        if self._headed and exc is None and self._ends_with_connection():
            self._done = True
        self.stop(Broken("the connection was closed"))
        self._wake()
        del self._parser  # which holds this object

    def _ends_with_connection(self) -> bool:
        return b"content-length" not in self.headers and b"transfer-encoding" not in self.headers

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._wake()

    def data_received(self, data: bytes) -> None:
        if self._done or not self._asked:  # nobody asked for it: the next answer here might be for somebody else
            self._again = False
            self._transport.abort()
            return
        unread = self._unread_bytes
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self._again = False
            self.stop(Broken("what came is not HTTP"))
        if self._unread_bytes != unread or self._done:
            self._stray_bytes = 0
            if self._unread_bytes > UNREAD_BYTES and not self._paused:
                self._paused = True
                self._transport.pause_reading()
        else:
            self._stray_bytes += len(data)
            if self._stray_bytes > STRAY_BYTES:
                self.stop(Broken("its head has no end"))
        if self._headed or self._error is not None:
            self._wake()

    def on_message_begin(self) -> None:
        if self._done:  # a second answer to one request
            self._again = False
            self.stop(Broken("what came is not one answer"))

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._headed and not self._done:
            self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        if not self._done:
            self.status = self._parser.get_status_code()
            self._headed = self.status >= 200

    def on_body(self, body: bytes) -> None:
        if not self._done:
            self._chunks.append(body)
            self._unread_bytes += len(body)

    def on_message_complete(self) -> None:
        if not self._headed:  # an interim answer: the real one follows
            self.headers = {}
        elif not self._done:
            self._done = True
            self._again = self._parser.should_keep_alive()
