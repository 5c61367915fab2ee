"""The client for programs without an event loop: it runs one on a thread of its own."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Coroutine, Mapping
from os import PathLike
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from vlfleet.client.answer import Answer
from vlfleet.client.chat import Message, Messages
from vlfleet.client.client import AsyncClient
from vlfleet.client.model import ModelInfo
from vlfleet.client.sync_loop import LoopThread, SyncStream
from vlfleet.client.timeouts import TIMEOUTS, Timeouts
from vlfleet.errors import VlfleetError

if TYPE_CHECKING:
    from vlfleet.client.cache import ResponseCache
    from vlfleet.client.images import Part
    from vlfleet.client.tokens import TokenCount
    from vlfleet.media import Vision

T = TypeVar("T")
P = ParamSpec("P")


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
        self._loop: LoopThread | None = None
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
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.finalizer()

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
        loop = self.ready()
        stream = loop.client.stream(text, images, videos, system=system, neutral=neutral, **fields)
        return SyncStream(loop, stream)

    def chat(self, messages: Messages, **fields: Any) -> SyncStream:
        """The answer to a chat, not yet asked for."""
        loop = self.ready()
        return SyncStream(loop, loop.client.chat(messages, **fields))

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

    def count(
        self,
        images: Any = (),
        videos: Any = (),
        *,
        text: str = "",
        system: str | None = None,
        mm_processor_kwargs: Mapping[str, Any] | None = None,
    ) -> TokenCount:
        """What a question costs before it is sent: visual tokens exactly, text nearly."""
        return self._run(
            lambda client: client.count(
                images, videos, text=text, system=system, mm_processor_kwargs=mm_processor_kwargs
            )
        )

    def count_messages(self, messages: Messages, mm_processor_kwargs: Mapping[str, Any] | None = None) -> TokenCount:
        """As `count`, of a whole chat."""
        return self._run(lambda client: client.count_messages(messages, mm_processor_kwargs))

    def run(
        self, work: Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """What a function for an `AsyncClient` returns, a task for instance: `client.run(tasks.ocr, "page.png")`."""
        loop = self.ready()
        return loop.run(work(loop.client, *args, **kwargs))

    def _run(self, call: Callable[[AsyncClient], Coroutine[Any, Any, T]]) -> T:
        loop = self.ready()
        return loop.run(call(loop.client))

    def ready(self) -> LoopThread:
        """For `SyncConversation`: the loop, and the client that lives on it.

        Raises:
            VlfleetError: it is closed.
        """
        with self._lock:
            if self._closed:
                raise VlfleetError("this client is closed", "make another one")
            if self._loop is None or self._loop.pid != os.getpid():
                self._loop = LoopThread(self._make())
                self._loop.finalizer = weakref.finalize(self, self._loop.stop)
            return self._loop
