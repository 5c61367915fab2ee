"""An event loop on a thread of its own, for what an ordinary program asks of asynchronous code."""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import weakref
from collections.abc import AsyncGenerator, Coroutine, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import aclosing, suppress
from typing import Any, Protocol, TypeVar

from vlfleet.client.answer import Answer
from vlfleet.client.client import AsyncClient
from vlfleet.errors import VlfleetError

T = TypeVar("T")
CLOSE_SECONDS = 5.0


class LoopThread:
    """An event loop on a thread, and the client that lives there."""

    finalizer: weakref.finalize[Any, Any]

    def __init__(self, client: AsyncClient) -> None:
        self.client = client
        self.pid = os.getpid()
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="vlfleet-client", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
            self.loop.run_until_complete(self._end())
        finally:
            self.loop.close()

    async def _end(self) -> None:
        """Cancels what runs, which ends it at the server too."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.client.close()
        await self.loop.shutdown_asyncgens()
        await self.loop.shutdown_default_executor()

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """
        Raises:
            VlfleetError: the client has been closed, or this is its own thread.
        """
        if self.is_own_thread():
            work.close()
            raise VlfleetError("a Client was called from its own event loop", "use AsyncClient there")
        try:
            return asyncio.run_coroutine_threadsafe(work, self.loop)
        except RuntimeError:  # the loop is closed
            work.close()
            raise VlfleetError("this client is closed", "make another one") from None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` returns. Ctrl-C cancels it."""
        future = self.submit(work)
        try:
            return future.result()
        except BaseException as error:
            future.cancel()
            if isinstance(error, CancelledError):
                raise VlfleetError("the client was closed before the answer came", "close it later") from None
            raise

    def is_own_thread(self) -> bool:
        """Whether the caller runs on the loop, and must not wait for it."""
        return threading.current_thread() is self._thread

    def stop(self) -> None:
        if self.pid != os.getpid() or self.loop.is_closed():
            return
        self.loop.call_soon_threadsafe(self.loop.stop)
        if not self.is_own_thread():  # the collector runs wherever it likes
            self._thread.join(CLOSE_SECONDS)


class Pieces(Protocol):
    """`ChatStream` and `ConversationStream`."""

    answer: Answer

    def __aiter__(self) -> AsyncGenerator[str, None]: ...


class SyncStream:
    """Pieces of text by `for`; `answer` is complete when they end. Leaving the loop ends the request."""

    def __init__(self, loop: LoopThread, stream: Pieces) -> None:
        self._loop, self._stream = loop, stream

    @property
    def answer(self) -> Answer:
        return self._stream.answer

    def __iter__(self) -> Iterator[str]:
        """
        Raises:
            VlfleetError: see `ChatStream`.
        """
        read: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        future = self._loop.submit(self._pump(read))
        try:
            while (piece := read.get()) is not None:
                yield piece
            self._outcome(future)
        finally:
            if future.cancel() and not self._loop.is_own_thread():  # the collector runs wherever it likes
                with suppress(queue.Empty):  # what was left ends before anything else is asked
                    while read.get(timeout=CLOSE_SECONDS) is not None:
                        pass

    def complete(self) -> Answer:
        """The whole answer.

        Raises:
            VlfleetError: see `ChatStream`.
        """
        return self._loop.run(self._whole())

    async def _whole(self) -> Answer:
        async with aclosing(self._stream.__aiter__()) as pieces:
            async for _ in pieces:
                pass
        return self._stream.answer

    async def _pump(self, read: queue.SimpleQueue[str | None]) -> None:
        """Runs ahead of the reader: an answer is small, and a slow reader holds up nobody."""
        try:
            async with aclosing(self._stream.__aiter__()) as pieces:
                async for piece in pieces:
                    read.put(piece)
        finally:
            read.put(None)

    def _outcome(self, future: Future[None]) -> None:
        try:
            future.result()
        except CancelledError:
            raise VlfleetError("the client was closed before the answer ended", "close it later") from None
