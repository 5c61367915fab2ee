"""One question of a conversation, its answer read while it is written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from vlfleet.client.answer import Answer
from vlfleet.client.conversation import ATTEMPTS, Conversation, is_about_length
from vlfleet.client.conversation_history import History, Medium, Turn
from vlfleet.client.errors import ServerError
from vlfleet.client.neutral import neutralise
from vlfleet.client.sources import usage_error


class ConversationStream:
    """Pieces of text by `async for`; `answer` is complete when they end."""

    def __init__(
        self, conversation: Conversation, question: str, images: Any, videos: Any, fields: dict[str, Any]
    ) -> None:
        self.answer = Answer()
        self._conversation, self._question = conversation, neutralise(question)
        self._images, self._videos, self._fields = images, videos, fields

    def __aiter__(self) -> AsyncGenerator[str, None]:
        """
        Raises:
            VlfleetError: see `Conversation.ask`.
        """
        talk = self._conversation
        talk._asked = self._run(talk._asked)
        return talk._asked

    async def _run(self, before: AsyncGenerator[str, None] | None) -> AsyncGenerator[str, None]:
        talk = self._conversation
        if before is not None:
            try:
                await before.aclose()  # a loop that was left is over, though its generator may not know it yet
            except RuntimeError:
                talk._asked = before
                raise usage_error("this conversation waits for an answer already", "fork() it to ask twice") from None
        media = await talk._media(self._images, self._videos, self._fields)
        for attempt in range(ATTEMPTS):
            try:
                async with aclosing(self._pieces(media)) as pieces:
                    async for piece in pieces:
                        yield piece
                return
            except ServerError as error:
                if attempt + 1 == ATTEMPTS or self.answer.text or not is_about_length(error):
                    raise
                talk._refused(error)

    async def _pieces(self, media: tuple[Medium, ...]) -> AsyncGenerator[str, None]:
        """One attempt. What is said becomes a turn when it ends, or is left after its first piece."""
        talk, question = self._conversation, self._question
        budget = await talk._budget(self._fields.get("max_tokens"))
        await talk._fit(question, () if talk.history.shows(media) else media, budget)
        history = talk.history
        new = () if history.shows(media) else media
        stream = talk.client.chat(history.messages(question, new), **{**self._fields, "max_tokens": budget.answer})
        try:
            async with aclosing(stream.__aiter__()) as pieces:
                async for piece in pieces:
                    self.answer = stream.answer
                    yield piece
        except (GeneratorExit, asyncio.CancelledError):
            if stream.answer.text:
                self._said(history, new, stream.answer, whole=False)
            raise
        self._said(history, new, stream.answer, whole=True)

    def _said(self, history: History, media: tuple[Medium, ...], answer: Answer, *, whole: bool) -> None:
        talk = self._conversation
        self.answer = answer
        talk.history = history.said(Turn(self._question, media, answer.text, whole))
        talk._meter = talk._meter.corrected(history, self._question, media, answer.usage.prompt_tokens)
