"""What the tasks about places answer: boxes and points in the pixels of the picture as a person sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vlfleet.tasks.dialogue import Reply


@dataclass(frozen=True)
class Box:
    """x1, y1 is the upper left corner, x2, y2 the lower right one, in pixels of the original, upright picture."""

    x1: float
    y1: float
    x2: float
    y2: float
    label: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """What else the model said of it, in JSON."""


@dataclass(frozen=True)
class Point:
    """In pixels of the original, upright picture."""

    x: float
    y: float
    label: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Located:
    """What was found in a picture of `width` x `height` original pixels, in the model's order."""

    boxes: tuple[Box, ...]
    points: tuple[Point, ...]
    width: int
    height: int
    complete: bool
    """False where the answer was cut off, or a place in it lay outside the picture: then some are missing."""
    reply: Reply


@dataclass(frozen=True)
class Count:
    """How many, and where they are if the model was asked to show them."""

    count: int
    located: Located | None
    reply: Reply


@dataclass(frozen=True)
class Text:
    """Text that was read or written. `complete` is false where a limit of tokens cut it off."""

    text: str
    complete: bool
    reply: Reply


@dataclass(frozen=True)
class Solution:
    """The steps as the model wrote them, and the final answer out of them; empty where it gives none."""

    answer: str
    steps: str
    complete: bool
    reply: Reply
