"""How many tokens a history costs, and what of it stays when it costs too many. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from vlfleet.client.conversation_history import History, Medium, Turn
from vlfleet.client.sources import usage_error
from vlfleet.client.tokens import (
    ANSWER_TOKENS,
    DEFAULT_SYSTEM_TOKENS,
    MEDIA_MARKERS,
    TURN_TOKENS,
    estimate,
    texts_of,
)

MARGIN = 0.05
"""Of the text: a question may have more tokens a letter than what its scale was learnt from."""
ROOM_AFTER = 0.6
"""A summary leaves at most this share of the prompt's tokens in use, so that the next one is some turns away."""


@dataclass(frozen=True)
class Budget:
    """Tokens of one request: `total` for prompt and answer, of which `answer` and, when it comes to that, `summary` are
    kept free for what the model writes."""

    total: int
    answer: int
    summary: int

    @classmethod
    def of(cls, total: int, answer: int | None = None) -> Budget:
        """Shares that leave most of it to the prompt.

        Raises:
            VlfleetError: exit code 2; nothing is left for the prompt.
        """
        answer = min(1024, total // 4) if answer is None else answer
        if total < 1 or not 0 < answer < total:
            cause = f"a budget of {total} tokens leaves nothing beside {answer} for the answer"
            raise usage_error(cause, "give a larger budget, or fewer answer_tokens")
        return cls(total, answer, max(1, min(1024, total // 8)))

    @property
    def prompt(self) -> int:
        """The longest prompt that the answer still fits behind."""
        return self.total - self.answer


@dataclass(frozen=True)
class Meter:
    """Counts a prompt: media exactly, text by an estimate times `scale`, which every answer's usage corrects."""

    scale: float = 1.0

    def prompt(self, history: History, question: str | None = None, media: Sequence[Medium] = ()) -> int:
        """Tokens of the chat with this question at its end."""
        shown = (*history.media, *media)
        text = text_estimate(history, question, len(shown))
        return sum(medium.tokens for medium in shown) + self.text(text)

    def text(self, estimated: int) -> int:
        return int(estimated * self.scale * (1 + MARGIN)) + 1

    def corrected(self, history: History, question: str, media: Sequence[Medium], prompt_tokens: int) -> Meter:
        """What the engine counted for this prompt, learnt. 0 tells nothing."""
        shown = (*history.media, *media)
        counted = prompt_tokens - sum(medium.tokens for medium in shown)
        if prompt_tokens <= 0 or counted <= 0:
            return self
        return replace(self, scale=counted / text_estimate(history, question, len(shown)))


def text_estimate(history: History, question: str | None, media: int) -> int:
    """All tokens of the chat but the visual ones, as `client.count_messages` estimates them."""
    messages = history.messages(question)
    tokens = ANSWER_TOKENS + MEDIA_MARKERS * media + (0 if history.system else DEFAULT_SYSTEM_TOKENS)
    return tokens + sum(TURN_TOKENS + estimate(text) for message in messages for text in texts_of(message))


@dataclass(frozen=True)
class Cut:
    """A history taken apart: `old` becomes text, `kept` media of it and `recent` turns stay as they are."""

    old: tuple[Turn, ...]
    kept: tuple[Medium, ...]
    recent: tuple[Turn, ...]
    summary_tokens: int = 0
    """The longest summary that still fits; 0 leaves no room for one."""


def cut(
    history: History, meter: Meter, budget: Budget, question: str, media: Sequence[Medium], turns: int, images: int
) -> Cut | None:
    """What to summarise so that the question fits; None where it fits as it is.

    The last `turns` turns and `images` media (the question's own included) stay whole if they can; else fewer and
    fewer do. After it there is room for some turns, if that can be had without giving up more.

    Raises:
        VlfleetError: exit code 2; the question does not fit even alone.
    """
    if meter.prompt(history, question, media) <= budget.prompt:
        return None
    alone = meter.prompt(History(history.system), question, media)
    if alone > budget.prompt:
        raise too_large(alone, media, budget)
    tried = [taken_apart(history, turns, images, len(media)) for turns, images in steps(turns, images)]
    sizes = [size(each, history, meter, question, media) for each in tried]
    chosen, tokens = tried[-1], sizes[-1]
    for most in (int(ROOM_AFTER * budget.prompt), budget.prompt):
        fitting = [pair for pair in zip(tried, sizes, strict=True) if pair[1] + budget.summary <= most]
        if fitting:
            chosen, tokens = fitting[0]
            break
    return replace(chosen, summary_tokens=max(0, min(budget.summary, budget.prompt - tokens)))


def steps(turns: int, images: int) -> Iterator[tuple[int, int]]:
    """How many turns and media stay, from all that are wanted down to none."""
    while True:
        yield turns, images
        if not turns and not images:
            return
        if images > 1:
            images //= 2
        elif turns:
            turns //= 2
        else:
            images = 0


def taken_apart(history: History, turns: int, images: int, asked: int) -> Cut:
    """The longest end of at most `turns` turns whose media, with the `asked` ones, are at most `images`."""
    room, first = images - asked, len(history.turns)
    while first > max(0, len(history.turns) - turns):
        shown = len(history.turns[first - 1].media)
        if shown > max(0, room):
            break
        room, first = room - shown, first - 1
    old, recent = history.turns[:first], history.turns[first:]
    before = (*history.kept, *(medium for turn in old for medium in turn.media))
    return Cut(old, before[max(0, len(before) - room) :] if room > 0 else (), recent)


def size(made: Cut, history: History, meter: Meter, question: str, media: Sequence[Medium]) -> int:
    """Tokens of the question behind what is left, without the words of the summary itself."""
    after = History(history.system, " ", made.kept, made.recent)
    return meter.prompt(after, question, media)


def too_large(tokens: int, media: Sequence[Medium], budget: Budget) -> Exception:
    """The question alone costs more than the budget."""
    left = f"{budget.prompt} of the budget's {budget.total} tokens are for the prompt"
    largest = max((medium.tokens for medium in media), default=0)
    if largest > budget.prompt:
        return usage_error(f"one picture costs {largest} tokens, and {left}", "give a larger budget, or scale it down")
    shown = f" with {len(media)} pictures" if len(media) > 1 else " with its picture" if media else ""
    return usage_error(f"the question{shown} costs {tokens} tokens, and {left}", "give a larger budget, or ask less")
