"""What stands for a bar or a curve: blocks where the terminal shows them, else ASCII."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vlfleet.watch.top.figures import bounded

_PLAIN_TERMINALS = ("dumb", "vt100", "vt102", "vt220", "linux")
"""Their fonts lack eighths of blocks, or nobody knows what they have. `linux` is the console without a desktop."""


@dataclass(frozen=True)
class Signs:
    """The characters of one kind of terminal."""

    full: str
    empty: str
    parts: str
    """Of a cell, from an eighth (or the whole) upwards."""
    levels: str
    """Heights of a curve, the first is zero."""
    chosen: str
    marked: str
    """The chosen row of a pane that the keys do not act on."""
    split: str
    """Between two columns of panes."""
    rule: str
    ellipsis: str
    dot: str
    corners: str
    """Of a box: top left, top right, bottom left, bottom right."""

    def bar(self, share: float | None, cells: int) -> str:
        """The share of so many cells; spaces where it is unknown."""
        if share is None:
            return " " * cells
        steps = len(self.parts)
        filled = round(bounded(share) * cells * steps)
        whole, part = divmod(filled, steps)
        text = self.full * whole + (self.parts[part - 1] if part else "")
        return text + self.empty * (cells - len(text))

    def curve(self, values: Sequence[float | None]) -> str:
        """One character a value, the largest is the highest; a space where it is unknown."""
        top = max((value for value in values if value is not None), default=0.0)
        return "".join(self._level(value, top) for value in values)

    def _level(self, value: float | None, top: float) -> str:
        if value is None:
            return " "
        # A value above zero never looks like zero.
        highest = len(self.levels) - 1
        return self.levels[min(highest, max(1, round(value / top * highest))) if value > 0 and top > 0 else 0]


BLOCKS = Signs("█", "░", "▏▎▍▌▋▊▉█", "▁▂▃▄▅▆▇█", "▸", "·", "│", "─", "…", "·", "┌┐└┘")
ASCII = Signs("#", ".", "#", "_.-=+*#", ">", "*", "|", "-", "~", "-", "++++")


def signs_of(environ: Mapping[str, str] | None = None) -> Signs:
    """Those that this terminal shows, by its name and the locale."""
    env = os.environ if environ is None else environ
    locale = env.get("LC_ALL") or env.get("LC_CTYPE") or env.get("LANG") or ""
    unicode = "utf8" in locale.lower().replace("-", "")
    return BLOCKS if unicode and env.get("TERM", "dumb") not in _PLAIN_TERMINALS else ASCII
