"""The client for programs without an event loop: it runs one on a thread of its own."""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import aclosing
from os import PathLike
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from vlfleet.client.answer import Answer
from vlfleet.client.chat import ChatStream, Message, Messages
from vlfleet.client.client import AsyncClient
from vlfleet.client.model import ModelInfo
from vlfleet.client.timeouts import TIMEOUTS, Timeouts
from vlfleet.errors import VlfleetError

if TYPE_CHECKING:
    from vlfleet.client.cache import ResponseCache
    from vlfleet.client.images import Part
    from vlfleet.client.tokens import TokenCount
    from vlfleet.media import Vision

T = TypeVar("T")
CLOSE_SECONDS = 5.0


class Client:
    """`AsyncClient` for ordinary programs; every method is explained there.

    Any number of threads may use one. It closes itself when it is dropped, at the latest with the program; `with
    Client(url) as client: ...` closes it sooner. A process that was forked off connects anew.
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        api_key: str = "",
        *,
        model: str | None = None,
        timeouts: Timeouts = TIMEOUTS,
        retries: int = 2,
        fit: bool = False,
        cache: ResponseCache | str | PathLike[str] | None = None,
        vision: Vision | None = None,
    ) -> None:
        def make() -> AsyncClient:
            return AsyncClient(
                base_url, api_key, model=model, timeouts=timeouts, retries=retries, fit=fit, cache=cache, vision=vision
            )

        self._make = make
        self._lock = threading.Lock()
        self._runner: Runner | None = None
        self._closed = False

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends what is still being answered, and the thread. Twice is once."""
        with self._lock:
            self._closed = True
            runner, self._runner = self._runner, None
        if runner is not None:
            runner.finalizer()

    def ask(
        self,
        text: str,
        images: Any = (),
        videos: Any = (),
        *,
        system: str | None = None,
        neutral: bool = True,
        **fields: Any,
    ) -> Answer:
        """The answer to a question about pictures and videos."""
        return self._run(lambda client: client.ask(text, images, videos, system=system, neutral=neutral, **fields))

    def stream(
        self,
        text: str,
        images: Any = (),
        videos: Any = (),
        *,
        system: str | None = None,
        neutral: bool = True,
        **fields: Any,
    ) -> SyncStream:
        """As `ask`, the answer read while it is written: `for piece in client.stream(...)`."""
        runner = self._ready()
        stream = runner.client.stream(text, images, videos, system=system, neutral=neutral, **fields)
        return SyncStream(runner, stream)

    def chat(self, messages: Messages, **fields: Any) -> SyncStream:
        """The answer to a chat, not yet asked for."""
        runner = self._ready()
        return SyncStream(runner, runner.client.chat(messages, **fields))

    def messages(
        self, text: str, images: Any = (), videos: Any = (), *, system: str | None = None, neutral: bool = True
    ) -> list[Message]:
        """The chat that `ask` sends."""
        return self._run(lambda client: client.messages(text, images, videos, system=system, neutral=neutral))

    def parts(self, images: Any = (), videos: Any = ()) -> list[Part]:
        """Pictures and videos as the content parts of a message."""
        return self._run(lambda client: client.parts(images, videos))

    def model_info(self) -> ModelInfo:
        """What the server says about its model."""
        return self._run(lambda client: client.model_info())

    def count(self, images: Any = (), videos: Any = (), *, text: str = "", system: str | None = None) -> TokenCount:
        """What a question costs before it is sent: visual tokens exactly, text nearly."""
        return self._run(lambda client: client.count(images, videos, text=text, system=system))

    def count_messages(self, messages: Messages) -> TokenCount:
        """As `count`, of a whole chat."""
        return self._run(lambda client: client.count_messages(messages))

    def _run(self, call: Callable[[AsyncClient], Coroutine[Any, Any, T]]) -> T:
        runner = self._ready()
        return runner.run(call(runner.client))

    def _ready(self) -> Runner:
        with self._lock:
            if self._closed:
                raise VlfleetError("this client is closed", "make another one")
            if self._runner is None or self._runner.pid != os.getpid():
                self._runner = Runner(self._make())
                self._runner.finalizer = weakref.finalize(self, self._runner.stop)
            return self._runner


class Runner:
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
        if threading.current_thread() is self._thread:
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

    def stop(self) -> None:
        if self.pid != os.getpid() or self.loop.is_closed():
            return
        self.loop.call_soon_threadsafe(self.loop.stop)
        if threading.current_thread() is not self._thread:  # the collector runs wherever it likes
            self._thread.join(CLOSE_SECONDS)


class SyncStream:
    """Pieces of text by `for`; `answer` is complete when they end. Leaving the loop ends the request."""

    def __init__(self, runner: Runner, stream: ChatStream) -> None:
        self._runner, self._stream = runner, stream

    @property
    def answer(self) -> Answer:
        return self._stream.answer

    def __iter__(self) -> Iterator[str]:
        """
        Raises:
            VlfleetError: see `ChatStream`.
        """
        read: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        future = self._runner.submit(self._pump(read))
        try:
            while (piece := read.get()) is not None:
                yield piece
            self._outcome(future)
        finally:
            future.cancel()

    def complete(self) -> Answer:
        """The whole answer.

        Raises:
            VlfleetError: see `ChatStream`.
        """
        return self._runner.run(self._stream.complete())

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
