"""How a tone looks: in the terminal's own sixteen colours, on its own background."""

from __future__ import annotations

import os
from collections.abc import Mapping

from rich.style import Style

from vlfleet.watch.top.line import Tone

STYLES: Mapping[Tone, Style] = {
    Tone.PLAIN: Style(),
    Tone.STRONG: Style(bold=True),
    Tone.DIM: Style(dim=True),
    Tone.GOOD: Style(color="green"),
    Tone.WARN: Style(color="yellow", bold=True),
    Tone.BAD: Style(color="red", bold=True),
    Tone.HEAD: Style(color="cyan", underline=True),
    Tone.HERE: Style(color="cyan", bold=True, reverse=True),
    Tone.CHOSEN: Style(reverse=True),
}
"""The sixteen colours follow the person's theme, light or dark."""
_COLOURLESS = ("dumb", "vt100", "vt102", "vt220")


def coloured(environ: Mapping[str, str] | None = None) -> bool:
    """Whether this terminal is to be given colours: not with NO_COLOR (no-color.org), not one that has none."""
    env = os.environ if environ is None else environ
    return not env.get("NO_COLOR") and env.get("TERM", "dumb") not in _COLOURLESS


def ansi(text: str, tone: Tone) -> str:
    """The text with the escapes of its tone."""
    return STYLES[tone].render(text) if text.strip() else text
