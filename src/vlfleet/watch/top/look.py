"""How this terminal is spoken to: its language and its signs."""

from __future__ import annotations

from dataclasses import dataclass, field

from vlfleet.watch.top.signs import BLOCKS, Signs, signs_of
from vlfleet.watch.top.words import Words, words_of


@dataclass(frozen=True)
class Look:
    """Language and signs."""

    say: Words = field(default_factory=Words)
    signs: Signs = BLOCKS

    @classmethod
    def of_terminal(cls) -> Look:
        return cls(words_of(), signs_of())
