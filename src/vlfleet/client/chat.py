"""A chat, its answer read while it is written."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from vlfleet.client.answer import Answer
from vlfleet.client.errors import MEDIA_MISSING, ServerError
from vlfleet.client.http import too_slow_in_all
from vlfleet.client.reply import Reply
from vlfleet.client.timeouts import until
from vlfleet.errors import ExitCode, VlfleetError

if TYPE_CHECKING:
    from vlfleet.client.client import AsyncClient

Message = dict[str, Any]
Messages = Sequence[Message]


class ChatStream:
    """Pieces of text by `async for`; `answer` is complete when they end. Leaving the loop ends the request.

    Nothing is asked before the loop begins, and it is asked once.
    """

    def __init__(
        self, client: AsyncClient, messages: Callable[[], Awaitable[Messages]], fields: dict[str, Any]
    ) -> None:
        self.answer = Answer()
        self._client, self._messages, self._fields = client, messages, fields
        self._asked = False
        self._key: str | None = None
        """What the answer is kept under; None where it is not."""

    async def __aiter__(self) -> AsyncGenerator[str, None]:
        """
        Raises:
            VlfleetError: no server, an error of it, a timeout, or a stream that ends before the answer does.
        """
        if self._asked:
            raise VlfleetError("this chat was asked already", "call chat() again to ask again")
        self._asked = True
        answer, started = self.answer, time.monotonic()
        total = self._client.timeouts.total
        deadline = float("inf") if total is None else started + total
        reply: Reply | None = None
        try:
            reply = await self._begin(deadline)
            if reply is None:
                answer = self.answer
                yield answer.text
                return
            piece = reply.first
            while piece is not None:
                answer.ttft_seconds = answer.ttft_seconds or time.monotonic() - started
                answer.text += piece
                yield piece
                piece = await self._next(reply)
            answer.seconds = time.monotonic() - started
            if self._key is not None:
                await self._client.keep(self._key, answer)
        finally:
            if reply is not None:
                reply.close()
            answer.seconds = time.monotonic() - started

    async def complete(self) -> Answer:
        """The whole answer.

        Raises:
            VlfleetError: see `__aiter__`.
        """
        async for _ in self:
            pass
        return self.answer

    async def _begin(self, deadline: float) -> Reply | None:
        """The reply up to its first text; None where the cache had the answer."""
        try:
            async with until(deadline):
                messages = await self._messages()
                self._key = await self._client.cache_key(messages, self._fields)
                if self._key is not None and (kept := await self._client.recall(self._key)) is not None:
                    self.answer = kept
                    return None
                return await self._send(messages, deadline)
        except TimeoutError:
            raise too_slow_in_all(self._client.timeouts, self.answer) from None

    async def _send(self, messages: Messages, deadline: float) -> Reply:
        client = self._client
        travelling = await client.travelling(messages)
        try:
            return await client.send(travelling, self._fields, self.answer, deadline)
        except ServerError as error:
            if error.code != MEDIA_MISSING or travelling is messages:
                raise
        client.forget(travelling)
        return await client.send(messages, self._fields, self.answer, deadline)

    async def _next(self, reply: Reply) -> str | None:
        try:
            return await reply.next()
        except TimeoutError:
            raise too_slow_in_all(self._client.timeouts, self.answer) from None


def body_of(messages: Messages, fields: dict[str, Any]) -> dict[str, Any]:
    """The request as it is sent; a field that is None is left out.

    Raises:
        VlfleetError: exit code 2; a field that a stream of one answer cannot have.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    if given.get("n", 1) != 1:
        raise VlfleetError(f"n is {given['n']}", "ask several times instead", ExitCode.USAGE)
    if not given.pop("stream", True):
        raise VlfleetError("stream is False", "leave it out: complete() returns the whole answer", ExitCode.USAGE)
    options = {"include_usage": True, **given.pop("stream_options", {})}
    return {**given, "messages": list(messages), "stream": True, "stream_options": options}
