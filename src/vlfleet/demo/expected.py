"""Whether an answer is right. Pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels of the picture as the model sees it."""
GOOD_IOU = 0.5
"""Overlap from which a box counts as found, as in PASCAL VOC."""


@dataclass(frozen=True)
class Fields:
    """A JSON object that has at least these fields."""

    fields: dict[str, str]


@dataclass(frozen=True)
class Number:
    """This number and no other."""

    number: int


@dataclass(frozen=True)
class WordAt:
    """JSON with this text in `text_content` and its box in `bbox_2d`."""

    text: str
    box: Box


Expected = Fields | Number | WordAt


def matches(expected: Expected, answer: str) -> bool:
    """Whether `answer` says what is expected; how it puts it does not matter."""
    match expected:
        case Fields(fields):
            told = parse_json(answer)
            return isinstance(told, dict) and all(told.get(name) == value for name, value in fields.items())
        case Number(number):
            return [int(each) for each in re.findall(r"\d+", answer)] == [number]
        case WordAt(text, box):
            told = parse_json(answer)
            item = told[0] if isinstance(told, list) and len(told) == 1 else told
            if not isinstance(item, dict) or item.get("text_content") != text:
                return False
            found = item.get("bbox_2d")
            return isinstance(found, list) and len(found) == 4 and iou(box, found) >= GOOD_IOU


def parse_json(text: str) -> Any:
    """The JSON in an answer, with or without the fence that Qwen models put around it; None when there is none."""
    try:
        return json.loads(re.sub(r"^```(?:json)?\s*|\s*```$", "", text.strip()))
    except ValueError:
        return None


def iou(one: Box, other: Any) -> float:
    """Intersection over union of two boxes; 0 for what is no box."""
    if not all(isinstance(side, int | float) for side in other):
        return 0.0
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return float(both / (area(one) + area(other) - both))


def area(box: Any) -> float:
    return float((box[2] - box[0]) * (box[3] - box[1]))
