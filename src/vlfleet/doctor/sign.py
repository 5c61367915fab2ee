"""The text by which a failure is known, written as the engine writes it."""

from __future__ import annotations

import re
from dataclasses import dataclass

_HOLE = re.compile(r"<([a-z_]*)([#~]?)>")
_HOLES = {
    "#": r"-?\d+(?:,\d{3})*(?:\.\d+)?",
    "~": r".*?",
    "": r"[^\s'\"`,()\[\]{}]*[^\s'\"`,()\[\]{}.:;]",
}


@dataclass(frozen=True)
class Sign:
    """A pattern for the message of one log line, and a part of it that every such line contains."""

    literal: str
    """Looked for first, which is quick. Empty: there is no such part."""
    pattern: re.Pattern[str]
    frames: re.Pattern[str] | None = None
    """The traceback above the line must hold this."""

    def match(self, text: str) -> re.Match[str] | None:
        """The match, whose named groups are what the message says in figures and names, or None."""
        return self.pattern.search(text) if self.literal in text else None


def sign(text: str, frames: str = "", **holes: str) -> Sign:
    """A sign from a message with holes: `<tp#>` a number, `<device>` a word, `<name~>` any text; unnamed, not kept.

    White space stands for any amount of it; a leading `^` and a trailing `$` tie the text to the message's ends.
    `frames` is a pattern for the traceback above it; `holes` are patterns for single holes.
    """
    body = text.removeprefix("^").removesuffix("$")
    pieces, pattern, end = [], "", 0
    for hole in _HOLE.finditer(body):
        pieces.append(body[end : hole.start()])
        inner = holes.get(hole[1]) or _HOLES[hole[2]]
        pattern += _escaped(pieces[-1]) + (f"(?P<{hole[1]}>{inner})" if hole[1] else f"(?:{inner})")
        end = hole.end()
    pieces.append(body[end:])
    pattern = ("^" if text.startswith("^") else "") + pattern + _escaped(pieces[-1]) + ("$" if text[-1:] == "$" else "")
    literal = max((word for piece in pieces for word in re.split(r"\s{2,}", piece)), key=len)
    return Sign(literal, re.compile(pattern), re.compile(frames) if frames else None)


def phrase(pattern: str) -> Sign:
    """A sign for what a person writes, in any case."""
    return Sign("", re.compile(pattern, re.IGNORECASE))


def _escaped(text: str) -> str:
    return re.sub(r"(?:\\ |\s)+", r"\\s+", re.escape(text))
