"""What a chat costs a model before it is sent: media exactly, text nearly."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vlfleet.client.sources import usage_error
from vlfleet.errors import VlfleetError
from vlfleet.media import MediaError, Vision, examine_data_url, references
from vlfleet.media.header import MediaLimits

LIMITS = MediaLimits(1 << 30, 1 << 40, 1 << 20)
"""Whatever the server takes is counted; what it takes is for it to say."""
MEDIA_MARKERS = 2
"""<|vision_start|> and <|vision_end|> around a medium."""
TURN_TOKENS = 5
"""<|im_start|>, the role, a line end; <|im_end|>, a line end (chat_template.jinja of Qwen2.5-VL)."""
ANSWER_TOKENS = 3
"""<|im_start|>, assistant, a line end: what the answer is written behind."""
DEFAULT_SYSTEM_TOKENS = TURN_TOKENS + 6
"""`You are a helpful assistant.`, which the template adds where a chat begins with no system message."""
PIECES = re.compile(r"[^\W\d_]+|\d|_|\s+|[^\w\s]+")
"""Roughly as Qwen's tokenizer splits a text before it merges: letters, single digits, spaces, signs."""
LETTERS_PER_TOKEN = 6
SIGNS_PER_TOKEN = 2
FIRST_CJK = "\u2e80"
"""From here on a letter is about a token; before, in Cyrillic, Arabic or Thai, about half of one."""


@dataclass(frozen=True)
class TokenCount:
    """Tokens of a prompt. `media` holds the visual tokens of each picture and video in its order, exactly as the engine
    counts them; `text` is an estimate of all else, chat template and markers included."""

    media: tuple[int, ...]
    text: int

    @property
    def visual(self) -> int:
        return sum(self.media)

    @property
    def total(self) -> int:
        return self.visual + self.text


def vision_under(vision: Vision | None, mm_processor_kwargs: Mapping[str, Any] | None) -> Vision | None:
    """How a request that carries `mm_processor_kwargs` is seen by a server that sees as `vision` says.

    Raises:
        VlfleetError: exit code 2; it asks for what the server refuses.
    """
    if vision is None or not mm_processor_kwargs:
        return vision
    try:
        return vision.under(mm_processor_kwargs)
    except MediaError as error:
        raise usage_error(f"mm_processor_kwargs {error.cause}", error.remedy) from None


def count_messages(messages: Sequence[dict[str, Any]], vision: Vision | None) -> TokenCount:
    """The tokens of a chat as the model sees it with `vision`. Hashes media, and belongs off the event loop.

    Raises:
        VlfleetError: exit code 2; a medium that is not inside the messages, or none at all.
    """
    media = tuple(medium_tokens(each.url, each.modality, each.path, vision) for each in references(messages))
    text = ANSWER_TOKENS + MEDIA_MARKERS * len(media)
    if not messages or messages[0].get("role") != "system":
        text += DEFAULT_SYSTEM_TOKENS
    for message in messages:
        text += TURN_TOKENS + sum(estimate(piece) for piece in texts_of(message))
    return TokenCount(media, text)


def medium_tokens(url: str | None, modality: str, place: str, vision: Vision | None) -> int:
    """
    Raises:
        VlfleetError: exit code 2; it is not here, or no medium; nobody knows how it is seen.
    """
    if vision is None:
        cause = "the server does not say how it sees pictures"
        raise VlfleetError(cause, 'give vision=Vision.of(family_of("qwen2_5_vl")), or the family that it serves')
    if url is None or url[:5].lower() != "data:":
        raise usage_error(f"{place} is not inside the request and cannot be counted", "give the file itself")
    try:
        return examine_data_url(url, modality, vision, LIMITS).tokens
    except MediaError as error:
        raise usage_error(f"{place} {error.cause}", error.remedy) from None


def texts_of(message: dict[str, Any]) -> list[str]:
    content = message.get("content")
    if isinstance(content, str):
        return [content]
    parts = content if isinstance(content, list) else []
    return [part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)]


def estimate(text: str) -> int:
    """About how many tokens Qwen's tokenizer makes of a text, without its 2.5 MB of merges: 0.9 to 1.2 of its count for
    English, German, Chinese, code, JSON and tables; up to 1.4 in other scripts; too few in long base64. The engine's
    own count comes back as `Answer.usage`.
    """
    return sum(_piece_tokens(piece) for piece in PIECES.findall(text))


def _piece_tokens(piece: str) -> int:
    first = piece[0]
    if first.isspace():
        return 0 if piece == " " else 1  # a single space belongs to the word behind it
    if not first.isalnum():
        return -(-len(piece) // SIGNS_PER_TOKEN) if piece.isascii() else len(piece)
    if piece.isascii():
        return -(-len(piece) // LETTERS_PER_TOKEN)
    return len(piece) if first >= FIRST_CJK else -(-len(piece) // 2)
