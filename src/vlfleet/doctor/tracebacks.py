"""Follows the tracebacks that several processes print through each other, and tells which of them end an engine."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field

from vlfleet.doctor.lines import Line

_MOST_FRAMES = 400
"""Lines of a traceback that are kept, the last ones; vLLM 0.32's longest, through torch.compile, has about 250."""
_HEAD = "Traceback (most recent call last)"
_FRAME = re.compile(r'^\s*File "[^"]+", line \d+')
"""Also begins a traceback: of a log's tail the head may be missing."""
_MESSAGE_LINES = 3
"""Lines below an exception's that may still be its message; pydantic writes three."""
_CHAINED = ("During handling of the above exception", "The above exception was the direct cause")
_RAISED = re.compile(r"^(?:[A-Za-z_]\w*\.)*([A-Z]\w*)(?:\([\w.]+\))?(?::(?:\s|$)|$)")
_ERROR_NAME = re.compile(r"(?:Error|Exception|Interrupt|Exit|Failed|Timeout|Expired)$")
_HARMLESS = frozenset(("KeyboardInterrupt", "SystemExit", "CancelledError", "GeneratorExit", "BrokenPipeError"))
"""How a process ends that was told to end."""
_OF_A_REQUEST = ("uvicorn/protocols/", "starlette/middleware", "/serving.py", "/serving_", "fastapi/routing.py")
"""Files through which every request goes, and no start of an engine."""
_IGNORED = ("Exception ignored in", "Task exception was never retrieved", "exception calling callback")


@dataclass
class Traceback:
    """The last traceback of one process, with the ones that it was raised from."""

    frames: deque[str] = field(default_factory=lambda: deque(maxlen=_MOST_FRAMES))
    open: bool = False
    """Its exception line is still to come."""
    of_request: bool = False
    """One request fails with it; the engine goes on."""
    ignored: bool = False
    """Printed of an exception that nobody has to care for."""
    chained: bool = False
    """Another traceback follows that belongs to it."""
    next_of_request: bool = False
    next_ignored: bool = False
    raised_at: int = 0
    """The number of the line that named the exception; 0 while none has."""

    def begin(self) -> None:
        """A new traceback; of the last one only what it is raised from stays."""
        if not self.chained:
            self.frames.clear()
            self.of_request, self.ignored = self.next_of_request, self.next_ignored
        self.next_of_request = self.next_ignored = self.chained = False
        self.open = True

    def explains(self, line: Line) -> bool:
        """Whether the line belongs to it, and not to what came later."""
        return self.open or self.chained or line.number - self.raised_at <= _MESSAGE_LINES

    def holds(self, pattern: re.Pattern[str]) -> bool:
        """Whether its lines have the pattern."""
        return pattern.search("\n".join(self.frames)) is not None


class Tracebacks:
    """One traceback for each process that has printed any; what is printed without a process's name counts as one."""

    def __init__(self) -> None:
        self._of: dict[str, Traceback] = {}

    def read(self, line: Line) -> tuple[Traceback, bool]:
        """The traceback to which the line belongs, and whether it is the line that names the exception."""
        traceback = self._of.get(line.process)
        if traceback is None:
            traceback = self._of[line.process] = Traceback()
        text = line.text
        if _HEAD in text or (not traceback.open and _FRAME.match(text)):
            traceback.begin()
            traceback.ignored |= line.level == "WARNING"
            self._frame(traceback, line)
        elif text.startswith(_CHAINED):
            traceback.chained = True
        elif traceback.open and (text[:1] in (" ", "") or line.level in ("INFO", "DEBUG")):
            self._frame(traceback, line)
        elif "xception" in text:
            traceback.next_of_request |= "Exception in ASGI application" in text
            traceback.next_ignored |= text.startswith(_IGNORED)
        return traceback, self._raised(traceback, line)

    @staticmethod
    def _frame(traceback: Traceback, line: Line) -> None:
        if line.level not in ("INFO", "DEBUG"):
            traceback.frames.append(line.text)
            traceback.of_request |= line.source.startswith("serving")
            traceback.of_request |= any(mark in line.text for mark in _OF_A_REQUEST)

    @staticmethod
    def _raised(traceback: Traceback, line: Line) -> bool:
        match = _RAISED.match(line.text) if line.level in ("", "ERROR", "CRITICAL") else None
        if not match or not (traceback.open or _ERROR_NAME.search(match[1])):
            return False
        traceback.open, traceback.raised_at = False, line.number
        return match[1] not in _HARMLESS
