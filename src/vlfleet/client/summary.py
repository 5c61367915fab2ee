"""The beginning of a conversation as text: written by the model, or put together without it."""

from __future__ import annotations

from collections.abc import Sequence

from vlfleet.client.conversation_history import History, Turn

REQUEST = (
    "Summarise our conversation so far in at most {words} words, for yourself: you will go on with it and see nothing "
    "of it but your summary. Keep every fact, name, number and decision, what I want, and what each picture shows. "
    "Write in the language of the conversation, and only the summary."
)
WORDS_PER_TOKEN = 0.6
"""English has about 1.3 tokens a word; the summary shall end before its limit."""
SHORTEST = 80
"""Characters of a question or an answer that `brief` leaves at least."""


def request(summary_tokens: int) -> str:
    """What the model is asked, behind the turns that it shall summarise."""
    return REQUEST.format(words=max(20, int(summary_tokens * WORDS_PER_TOKEN)))


def brief(history: History, turns: Sequence[Turn], most_characters: int) -> str:
    """Questions and answers, cut short until they fit, the oldest shorter than the youngest. Pure: for a model that
    cannot summarise, and for a turn that is too long to be sent once more."""
    lines = history.summary.split("\n") if history.summary else []
    lines += [_line(turn, max(SHORTEST, most_characters // 4)) for turn in turns]
    shortest = max(SHORTEST, most_characters // max(1, len(lines)))
    for at in range(len(lines)):
        if sum(map(len, lines)) + len(lines) <= most_characters:
            break
        lines[at] = _short(lines[at], shortest)
    while len(lines) > 1 and sum(map(len, lines)) + len(lines) > most_characters:
        del lines[len(lines) // 2]  # what came first and what came last matter most
    return "\n".join(lines)[:most_characters]


def _line(turn: Turn, most: int) -> str:
    shown = f"(showed {len(turn.media)} picture{'s' * (len(turn.media) > 1)}) " if turn.media else ""
    return f"User: {shown}{_short(turn.question, most)} Assistant: {_short(turn.answer, most)}"


def _short(text: str, most: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else text[: max(0, most - 3)] + "..."
