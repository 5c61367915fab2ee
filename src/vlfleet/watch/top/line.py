"""A line of a terminal: spans of text with a tone, measured in cells, since a Chinese character takes two."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from rich.cells import cell_len

_PIECES = re.compile(
    r" +|[^ \u2e80-\u9fff\uff00-\uffef]+[\u3000-\u303f\uff00-\uff1f]?|[\u2e80-\u9fff\uff00-\uffef]"
    r"[\u3001\u3002\uff0c\uff1a\uff1b\uff1f\uff09]?"
)
"""What stays together: a word, spaces, one Chinese character with the punctuation after it."""


class Tone(enum.Enum):
    """What a text means. A screen without colour shows none of this: the words must say it too."""

    PLAIN = enum.auto()
    STRONG = enum.auto()
    DIM = enum.auto()
    GOOD = enum.auto()
    WARN = enum.auto()
    BAD = enum.auto()
    HEAD = enum.auto()
    """Titles of columns."""
    HERE = enum.auto()
    """Titles of the pane that the keys act on."""
    CHOSEN = enum.auto()
    """The row that the keys act on."""


class Span(NamedTuple):
    """A piece of a line."""

    text: str
    tone: Tone = Tone.PLAIN


class Line(NamedTuple):
    """One line of the screen."""

    spans: tuple[Span, ...]

    @property
    def text(self) -> str:
        return "".join(span.text for span in self.spans)


EMPTY = Line(())


def line(text: str, tone: Tone = Tone.PLAIN) -> Line:
    return Line((Span(text, tone),))


@lru_cache(4096)
def clean(text: str) -> str:
    """`text` on one line, without anything that a terminal would obey: controls, escapes, marks that turn the writing
    direction. What is left out becomes `?`, white space becomes a space."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else " " if each.isspace() else "?" for each in text)


@lru_cache(4096)
def fit(text: str, cells: int, right: bool = False, ellipsis: str = "…") -> str:
    """`text` in exactly so many cells: filled with spaces, or cut with an ellipsis."""
    width = cell_len(text)
    if width > cells:
        text = cut(text, cells - len(ellipsis)) + ellipsis if cells > len(ellipsis) else cut(text, cells)
        width = cell_len(text)
    space = " " * (cells - width)
    return space + text if right else text + space


def cut(text: str, cells: int) -> str:
    """As much of the beginning of `text` as so many cells hold: one less where a wide character would be halved."""
    if cell_len(text) <= cells:
        return text
    used = 0
    for at, character in enumerate(text):
        used += cell_len(character)
        if used > cells:
            return text[:at]
    return text


def wrap(text: str, cells: int) -> list[str]:
    """`text` in lines of at most so many cells, broken at spaces, between Chinese characters, or where it must be."""
    lines, cells = [""], max(2, cells)
    for piece in _PIECES.findall(text):
        if cell_len(lines[-1] + piece) > cells:
            lines[-1] = lines[-1].rstrip()
            if lines[-1]:
                lines.append("")
            piece = piece.lstrip()
        while cell_len(piece) > cells:
            lines[-1:] = [cut(piece, cells), ""]
            piece = piece[len(lines[-2]) :]
        lines[-1] += piece
    return lines


_WHOLE = (Tone.HEAD, Tone.HERE, Tone.CHOSEN)
"""Tones that go to the end of the line."""


def pad(row: Line, cells: int) -> Line:
    """The line in exactly so many cells."""
    left = cells
    spans: list[Span] = []
    for text, tone in row.spans:
        width = cell_len(text)
        if width > left:
            text = fit(cut(text, left), left)
            width = left
        if width:
            spans.append(Span(text, tone))
        left -= width
    if left:
        last = row.spans[-1].tone if row.spans else Tone.PLAIN
        spans.append(Span(" " * left, last if last in _WHOLE else Tone.PLAIN))
    return Line(tuple(spans))


def join(rows: Iterable[Line], between: str = " ", tone: Tone = Tone.PLAIN) -> Line:
    """Lines after one another as one line."""
    spans: list[Span] = []
    for at, row in enumerate(rows):
        if at:
            spans.append(Span(between, tone))
        spans += row.spans
    return Line(tuple(spans))


def flow(pieces: Iterable[Line], cells: int, between: str = "  ") -> Line:
    """As many pieces after one another as fit into so many cells."""
    shown: list[Line] = []
    for piece in pieces:
        need = cell_len(piece.text) + (len(between) if shown else 0)
        if need > cells:
            break
        cells -= need
        shown.append(piece)
    return join(shown, between)
