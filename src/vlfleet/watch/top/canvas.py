"""Lines of spans on Textual's screen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

from rich.segment import Segment
from rich.style import Style
from textual.events import Resize
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from vlfleet.watch.top.line import Line, Tone


class Canvas(Widget, can_focus=True):
    """The whole screen, drawn line by line: only lines that changed are sent, which an ssh connection likes."""

    DEFAULT_CSS = "Canvas { width: 100%; height: 100%; }"

    def __init__(self, frame: Callable[[int, int], list[Line]], styles: Mapping[Tone, Style]) -> None:
        super().__init__()
        self._frame = frame
        self._lines: list[Line] = []
        self._strip = lru_cache(512)(lambda line: _strip(line, styles))

    def draw(self) -> None:
        """The screen as it is now."""
        old, self._lines = self._lines, self._frame(*self.size)
        if len(old) != len(self._lines):
            self.refresh()
            return
        changed = [at for at, (before, now) in enumerate(zip(old, self._lines, strict=True)) if before != now]
        if changed:
            self.refresh(*(Region(0, at, self.size.width, 1) for at in changed))

    def on_resize(self, event: Resize) -> None:
        self.draw()

    def render_line(self, y: int) -> Strip:
        return self._strip(self._lines[y]) if y < len(self._lines) else Strip.blank(self.size.width)

    @property
    def text(self) -> str:
        """What is seen."""
        return "\n".join(line.text for line in self._lines)


def _strip(line: Line, styles: Mapping[Tone, Style]) -> Strip:
    return Strip([Segment(text, styles[tone]) for text, tone in line.spans])
