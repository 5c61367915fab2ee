"""The text by which a failure is known, written as the engine writes it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

_HOLE = re.compile(r"<([a-z_]*)([#~]?)>")
_HOLES = {
    "#": r"-?\d+(?:,\d{3})*(?:\.\d+)?",
    "~": r".{0,600}?",
    "": r"[^\s'\"`,()\[\]{}]{0,300}[^\s'\"`,()\[\]{}.:;]",
}
_MOST_OF_A_SYMPTOM = 1000
"""Characters of a line in which a person's words are looked for."""


@dataclass(frozen=True)
class Sign:
    """A pattern for the message of one log line, and a part of it that every such line contains."""

    text: str
    """A message with holes, or a regular expression where `literal` is empty."""
    literal: str = ""
    """Looked for first, which is quick. Empty: there is no such part."""
    frames: str = ""
    """A regular expression that the traceback above the line must hold; empty: none is asked for."""
    holes: Mapping[str, str] = field(default_factory=dict)
    """Regular expressions for single holes, by name."""

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Compiled when the literal is first met: a hundred patterns at import would cost every command 50 ms."""
        return re.compile(_pattern(self.text, self.holes)) if self.literal else re.compile(self.text, re.IGNORECASE)

    @cached_property
    def frames_pattern(self) -> re.Pattern[str]:
        """Of `frames`."""
        return re.compile(self.frames)

    def match(self, text: str) -> re.Match[str] | None:
        """The match, whose named groups are what the message says in figures and names, or None."""
        if not self.literal:
            return self.pattern.search(text, 0, _MOST_OF_A_SYMPTOM)
        return self.pattern.search(text) if self.literal in text else None


def sign(text: str, frames: str = "", **holes: str) -> Sign:
    """A sign from a message with holes: `<tp#>` a number, `<device>` a word, `<name~>` any text; unnamed, not kept.

    White space stands for any amount of it; a leading `^` and a trailing `$` tie the text to the message's ends.
    `frames` is a pattern for the traceback above it; `holes` are patterns for single holes.
    """
    pieces = _HOLE.sub("\0", _body(text)).split("\0")
    literal = max((part for piece in pieces for part in re.split(r"\s{2,}", piece)), key=len)
    return Sign(text, literal, frames, holes)


def phrase(pattern: str) -> Sign:
    """A sign for what a person writes, in any case."""
    return Sign(pattern)


def _body(text: str) -> str:
    return text.removeprefix("^").removesuffix("$")


def _pattern(text: str, holes: Mapping[str, str]) -> str:
    """Each hole for any text ends at the first place where the text after it stands, and is not tried again further on:
    a line of 16 KiB that says the same thing over and over would take minutes otherwise.
    """
    body, end = _body(text), 0
    pattern, atoms = "^" if text.startswith("^") else "", ""
    for hole in _HOLE.finditer(body):
        inner = holes.get(hole[1]) or _HOLES[hole[2]]
        name = f"?P<{hole[1]}>" if hole[1] else "?:"
        pattern += _escaped(body[end : hole.start()]) + atoms
        atoms = ")" if hole[2] == "~" else ""
        pattern += f"{'(?>' if atoms else ''}({name}{inner})"
        end = hole.end()
    return pattern + _escaped(body[end:]) + ("$" if text.endswith("$") else "") + atoms


def _escaped(text: str) -> str:
    return re.sub(r"(?:\\ |\s)+", r"\\s+", re.escape(text))
