"""Tokens to text as they come: no half characters, nothing that may yet become a stop string."""

from __future__ import annotations

from collections.abc import Callable

REPLACEMENT = "�"

LONGEST_CHARACTER_TOKENS = 4
"""UTF-8 has at most 4 bytes a character and a token at least one; what is not whole by then never will be."""


class Detokenizer:
    """The text of one answer. `push` returns what may be shown already; `finish` the rest."""

    def __init__(self, decode: Callable[[list[int]], str], stop: tuple[str, ...] = ()) -> None:
        self._decode = decode
        self._stop = stop
        self._tokens: list[int] = []
        self._prefix = 0
        """Tokens before it are settled: their text is shown and no longer decoded."""
        self._settled = 0
        """Tokens between it and `_prefix` are decoded again as context of the newest."""
        self._text = ""
        """Decoded, not shown yet."""
        self.stopped = False
        """A stop string came; no more text follows."""

    def push(self, token: int) -> str:
        """Take one token in, and return the text that is certain now (often empty)."""
        self._tokens.append(token)
        context = self._decode(self._tokens[self._prefix : self._settled])
        whole = self._decode(self._tokens[self._prefix :])
        inside = whole.endswith(REPLACEMENT) and len(self._tokens) - self._settled < LONGEST_CHARACTER_TOKENS
        if inside:  # the token ends inside a character of several bytes
            return ""
        self._text += whole[len(context) :]
        self._prefix, self._settled = self._settled, len(self._tokens)
        return self._release()

    def finish(self) -> str:
        """What was held back, when no more tokens come. A character that is not whole is left out, as in vLLM."""
        if self.stopped:
            return ""
        context = self._decode(self._tokens[self._prefix : self._settled])
        self._text += self._decode(self._tokens[self._prefix :])[len(context) :].rstrip(REPLACEMENT)
        text, self._text = self._text, ""
        return text

    def _release(self) -> str:
        at = min((place for stop in self._stop if (place := self._text.find(stop)) >= 0), default=-1)
        if at >= 0:
            self.stopped = True
            return self._text[:at]
        held = max((_overlap(self._text, stop) for stop in self._stop), default=0)
        cut = len(self._text) - held
        text, self._text = self._text[:cut], self._text[cut:]
        return text


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)
