"""What was said and shown so far, and the messages that tell it to a model. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

Message = dict[str, Any]
SUMMARY_HEAD = "This is what we said and saw before:"
SUMMARY_SEEN = "Thank you, I will go on from there."
"""The model's turn behind a summary: templates want user and assistant to take turns."""


@dataclass(frozen=True)
class Medium:
    """A picture or video as the content part in which it travels, complete in itself."""

    part: Message
    tokens: int
    """Visual tokens, as the engine counts them."""


@dataclass(frozen=True)
class Turn:
    """A question with what was shown along, and its answer. `whole` is false where the answer was stopped."""

    question: str
    media: tuple[Medium, ...]
    answer: str
    whole: bool = True


@dataclass(frozen=True)
class History:
    """A conversation: its system prompt, a summary of its beginning, and its turns since then.

    `kept` are media of the summarised part that are still shown, before the summary.
    """

    system: str = ""
    summary: str = ""
    kept: tuple[Medium, ...] = ()
    turns: tuple[Turn, ...] = ()

    @property
    def media(self) -> tuple[Medium, ...]:
        """All that is shown, in order."""
        return (*self.kept, *(medium for turn in self.turns for medium in turn.media))

    def messages(self, question: str | None = None, media: Sequence[Medium] = ()) -> list[Message]:
        """As a chat, with the next question at its end. The same history gives the same bytes every time."""
        messages: list[Message] = [{"role": "system", "content": self.system}] if self.system else []
        if self.summary or self.kept:
            said = f"{SUMMARY_HEAD}\n{self.summary}" if self.summary else SUMMARY_HEAD
            messages += [user(said, self.kept), assistant(SUMMARY_SEEN)]
        for turn in self.turns:
            messages += [user(turn.question, turn.media), assistant(turn.answer)]
        return messages if question is None else [*messages, user(question, media)]

    def said(self, turn: Turn) -> History:
        """With one more turn."""
        return replace(self, turns=(*self.turns, turn))

    def shows(self, media: Sequence[Medium]) -> bool:
        """Whether exactly these were shown last, so that a question about them need not show them again."""
        shown = [turn.media for turn in self.turns if turn.media]
        last = shown[-1] if shown else self.kept
        return bool(media) and tuple(medium.part for medium in media) == tuple(medium.part for medium in last)


def user(text: str, media: Sequence[Medium] = ()) -> Message:
    """A user's message: media first, so that several questions about them begin with the same bytes."""
    if not media:
        return {"role": "user", "content": text}
    return {"role": "user", "content": [*(medium.part for medium in media), {"type": "text", "text": text}]}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}
