"""A conversation with pictures that never outgrows its budget of tokens: what was said first becomes a summary."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlfleet.client import conversation_file, summary
from vlfleet.client.answer import Answer
from vlfleet.client.client import AsyncClient
from vlfleet.client.conversation_budget import Budget, Cut, Meter, cut
from vlfleet.client.conversation_history import History, Medium, Turn
from vlfleet.client.errors import ServerError
from vlfleet.client.neutral import neutralise
from vlfleet.client.tokens import estimate, medium_tokens, vision_under
from vlfleet.families import FAMILIES
from vlfleet.media import Vision

if TYPE_CHECKING:
    from vlfleet.client.conversation_stream import ConversationStream

UNKNOWN_CONTEXT_TOKENS = 8192
"""The budget where neither the caller nor the server says one."""
ASSUMED = Vision.of(FAMILIES["qwen2_5_vl"])
"""How pictures are counted where the server does not say how it sees them: of the families the one that makes most
tokens of a picture, 28 x 28 pixels each, up to 16,384."""
LENGTH_SIGNS = ("context", "max_model_len", "too long")
"""In the message of a server that refuses a prompt for its length."""
_LONGEST = re.compile(r"context (?:length )?(?:is|of|holds)\D{0,12}([\d,]+)")
"""How vLLM ("maximum context length is 4096 tokens") and the embedded engine say what they take."""
CAUTION = 1.25
"""After such a refusal text is taken to cost so much more."""
ATTEMPTS = 3


@dataclass(frozen=True)
class Spent:
    """Tokens of the history as the next prompt begins with it: media exactly, text nearly; and what they may be."""

    visual: int
    text: int
    prompt: int
    """The most that a prompt may have."""
    budget: int
    """The most for prompt and answer together."""

    @property
    def total(self) -> int:
        return self.visual + self.text


class Conversation:
    """Questions that follow one another, to one client. Not for two questions at once: `fork` it for that."""

    def __init__(
        self,
        client: AsyncClient,
        *,
        system: str = "",
        budget: int | None = None,
        answer_tokens: int | None = None,
        keep_turns: int = 4,
        keep_images: int = 2,
        summarise: bool = True,
        **fields: Any,
    ) -> None:
        """
        Args:
            budget: tokens for prompt and answer together; the server's max_model_len unless it is given.
            answer_tokens: how many of them are for an answer; 1024 or a quarter of the budget.
            keep_turns: so many of the last turns stay whole when older ones become a summary.
            keep_images: so many of the last pictures and videos stay; the older ones become text.
            summarise: the model writes the summary; else questions and answers are cut short.
            fields: OpenAI's, for every question (temperature, ...).
        """
        self.client = client
        self.history = History(neutralise(system))
        self.keep_turns, self.keep_images = keep_turns, keep_images
        self.summarise = summarise
        self.fields = fields
        self._wanted, self._answer_tokens = budget, answer_tokens
        self._meter = Meter()
        self._longest: int | None = None
        """The context that a refusal told of."""
        self._asked: AsyncGenerator[str, None] | None = None
        """What runs, or was left."""

    async def ask(self, question: str, images: Any = (), videos: Any = (), **fields: Any) -> Answer:
        """The answer to the next question. Pictures as `AsyncClient.ask` takes them; those that the last turn with
        pictures showed are not shown twice.

        Raises:
            VlfleetError: see `AsyncClient.ask`; or the question does not fit the budget. The history stays as it was.
        """
        stream = self.stream(question, images, videos, **fields)
        async for _ in stream:
            pass
        return stream.answer

    def stream(self, question: str, images: Any = (), videos: Any = (), **fields: Any) -> ConversationStream:
        """As `ask`, the answer read while it is written. Leaving the loop stops the answer; what was written of it
        stays in the history."""
        from vlfleet.client.conversation_stream import ConversationStream

        return ConversationStream(self, question, images, videos, {**self.fields, **fields})

    async def spent(self) -> Spent:
        """What the history costs.

        Raises:
            VlfleetError: no server.
        """
        budget = await self._budget()
        visual = sum(medium.tokens for medium in self.history.media)
        text = self._meter.prompt(self.history) - visual
        return Spent(visual, text, budget.prompt, budget.total)

    def fork(self) -> Conversation:
        """Another conversation with the same history; the two go on apart."""
        other = Conversation(self.client, budget=self._wanted, answer_tokens=self._answer_tokens,
                             keep_turns=self.keep_turns, keep_images=self.keep_images, summarise=self.summarise,
                             **self.fields)  # fmt: skip
        other.history, other._meter = self.history, self._meter
        return other

    def save(self, path: str | PathLike[str], *, inside: bool = False) -> None:
        """Writes the history as JSON; media by their content in a folder beside it, or with `inside` in the file.

        Raises:
            VlfleetError: it cannot be written. What stood there before is untouched then.
        """
        conversation_file.save(Path(path), self.history, self._meter.scale, inside=inside)

    @classmethod
    def load(cls, client: AsyncClient, path: str | PathLike[str], **options: Any) -> Conversation:
        """What `save` wrote, to go on with. `options` are those of a new one, but for `system`.

        Raises:
            VlfleetError: exit code 2; no such file, damaged, or a medium of it is missing.
        """
        loaded = cls(client, **options)
        loaded.history, scale = conversation_file.load(Path(path))
        loaded._meter = Meter(scale)
        return loaded

    def clear(self) -> None:
        """Forgets all but the system prompt."""
        self.history = History(self.history.system)

    async def _budget(self, answer_tokens: int | None = None) -> Budget:
        longest = self._longest or (await self.client.model_info()).max_model_len
        total = min(self._wanted or longest or UNKNOWN_CONTEXT_TOKENS, longest or 1 << 40)
        return Budget.of(total, answer_tokens or self._answer_tokens)

    async def _media(self, images: Any, videos: Any, fields: Mapping[str, Any]) -> tuple[Medium, ...]:
        parts = await self.client.parts(images, videos, here=True)
        told = (await self.client.model_info()).vision
        vision = vision_under(told or ASSUMED, fields.get("mm_processor_kwargs"))

        def counted() -> tuple[Medium, ...]:
            found = []
            for number, part in enumerate(parts, 1):
                kind = part["type"]
                tokens = medium_tokens(part[kind]["url"], kind.removesuffix("_url"), f"medium {number}", vision)
                found.append(Medium(part, tokens))
            return tuple(found)

        return await asyncio.to_thread(counted)

    async def _fit(self, question: str, media: tuple[Medium, ...], budget: Budget) -> None:
        """Makes the history short enough for the question."""
        turns, images = self.keep_turns, self.keep_images
        for _ in range(ATTEMPTS):
            made = cut(self.history, self._meter, budget, question, media, turns, images)
            if made is None:
                return
            self.history = await self._shortened(made, budget)
            turns, images = turns // 2, images // 2
        if cut(self.history, self._meter, budget, question, media, 0, 0) is not None:
            self.history = History(self.history.system)

    async def _shortened(self, made: Cut, budget: Budget) -> History:
        """The history with its old turns as text. They are summarised as many at a time as fit one request."""
        system, turns = self.history.system, list(made.old)
        done = replace(self.history, turns=())
        while turns and made.summary_tokens:
            count = self._fitting(done, turns, budget, made.summary_tokens)
            text = await self._summary(replace(done, turns=tuple(turns[:count])), made.summary_tokens) if count else ""
            count = max(1, count)
            text = text or self._brief(done, turns[:count], made.summary_tokens)
            done, turns = History(system, text), turns[count:]
        return History(system, done.summary if made.summary_tokens else "", made.kept, made.recent)

    def _fitting(self, done: History, turns: list[Turn], budget: Budget, summary_tokens: int) -> int:
        """How many of `turns` the model can be shown at once to summarise them."""
        if not self.summarise:
            return 0
        asked, count = summary.request(summary_tokens), 0
        while count < len(turns):
            longer = replace(done, turns=tuple(turns[: count + 1]))
            if self._meter.prompt(longer, asked) + summary_tokens > budget.total:
                break
            count += 1
        return count

    async def _summary(self, history: History, summary_tokens: int) -> str:
        """The model's summary; empty where it gives none, or refuses so long a prompt."""
        asked = summary.request(summary_tokens)
        fields = {**self.fields, "temperature": 0, "max_tokens": summary_tokens}
        try:
            answer = await self.client.chat(history.messages(asked), **fields).complete()
        except ServerError as error:
            if error.transient or not is_about_length(error):
                raise
            return ""
        self._meter = self._meter.corrected(history, asked, (), answer.usage.prompt_tokens)
        return answer.text.strip()

    def _refused(self, error: ServerError) -> None:
        """Learns from a server that takes less than was thought."""
        told = _LONGEST.search(str(error))
        known = self._longest
        self._longest = int(told[1].replace(",", "")) if told else known
        if self._longest == known:
            self._meter = replace(self._meter, scale=self._meter.scale * CAUTION)

    def _brief(self, done: History, turns: list[Turn], summary_tokens: int) -> str:
        characters = 4 * summary_tokens
        while characters > summary.SHORTEST:
            text = summary.brief(done, turns, characters)
            if self._meter.text(estimate(text)) <= summary_tokens:
                return text
            characters = characters * 3 // 4
        return ""


def is_about_length(error: ServerError) -> bool:
    """Whether a request was refused because it is too long."""
    return error.status in (400, 413, 422) and any(sign in str(error) for sign in LENGTH_SIGNS)
