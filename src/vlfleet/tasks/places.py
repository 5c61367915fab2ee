"""Boxes and points in an answer, in the model's own units, however it writes them. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from vlfleet.tasks.json_text import NoJsonError, Read, read_json
from vlfleet.tasks.space import Corners

BOX_KEYS = ("bbox_2d", "bbox", "box_2d", "box")
POINT_KEYS = ("point_2d", "point", "coordinate", "coordinates")
LABEL_KEYS = ("label", "text_content", "text", "name", "content")
_TOKENS = re.compile(r"<\|(?:box_start|box_end|object_ref_start|object_ref_end|quad_start|quad_end)\|>")
_NUMBER = r"\s*(-?\d+(?:\.\d+)?)\s*"
_PAIR = re.compile(rf"\({_NUMBER},{_NUMBER}\)\s*,?\s*\({_NUMBER},{_NUMBER}\)")
_XML_POINTS = re.compile(r"<points?\b([^>]*)>([^<]*)")
_ATTRIBUTE = re.compile(r"""([a-z]+\d*)\s*=\s*["']([^"']*)["']""")


@dataclass(frozen=True)
class Place:
    """One box or one point as the model wrote it. `attributes` is whatever else stood beside it in JSON."""

    label: str
    box: Corners | None = None
    point: tuple[float, float] | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Places:
    """All of an answer. `complete` is false where the answer was cut off: its last place is left out."""

    places: tuple[Place, ...]
    complete: bool = True


def read_places(answer: str) -> Places:
    """JSON as Qwen2.5-VL and Qwen3-VL write it, `label(x1,y1),(x2,y2)` of Qwen2-VL with or without its tokens, or
    the XML points of the cookbook. An answer in plain words has none."""
    if points := list(_xml_points(answer)):
        return Places(tuple(points))
    text = _TOKENS.sub("", answer)
    try:
        read: Read = read_json(text)
    except NoJsonError:
        return Places(tuple(_qwen2(text)))
    found = tuple(_walk(read.value, ""))
    if not found and (pairs := tuple(_qwen2(text))):
        return Places(pairs)
    return Places(found, read.complete)


def _walk(value: Any, label: str) -> Iterator[Place]:
    """Every place in a JSON value; a list under a name, as {"cats": [[...], [...]]}, takes it for its label."""
    if isinstance(value, Mapping):
        place = _place(value, label)
        if place is not None:
            yield place
            return
        for name, inner in value.items():
            yield from _walk(inner, label if name in (*BOX_KEYS, *POINT_KEYS) else str(name))
    elif isinstance(value, list):
        if numbers := _numbers(value, 4):
            yield Place(label, box=(numbers[0], numbers[1], numbers[2], numbers[3]))
        elif label and (numbers := _numbers(value, 2)):
            yield Place(label, point=(numbers[0], numbers[1]))
        else:
            for inner in value:
                yield from _walk(inner, label)


def _place(value: Mapping[str, Any], label: str) -> Place | None:
    name = next((str(value[key]) for key in LABEL_KEYS if isinstance(value.get(key), str)), label)
    for keys, count in ((BOX_KEYS, 4), (POINT_KEYS, 2)):
        for key in keys:
            numbers = _numbers(value.get(key), count)
            if not numbers:
                continue
            others = {each: inner for each, inner in value.items() if each != key and inner != name}
            if count == 4:
                return Place(name, box=(numbers[0], numbers[1], numbers[2], numbers[3]), attributes=others)
            return Place(name, point=(numbers[0], numbers[1]), attributes=others)
    return None


def _numbers(value: Any, count: int) -> list[float]:
    """`value` as that many finite numbers, else an empty list. [[x1, y1], [x2, y2]] counts as four."""
    if not isinstance(value, list):
        return []
    flat = [inner for each in value for inner in (each if isinstance(each, list) and len(each) == 2 else [each])]
    if count == 4 and len(value) == 2 and len(flat) == 4:
        value = flat
    if len(value) != count:
        return []
    numbers = [float(each) for each in value if isinstance(each, int | float) and not isinstance(each, bool)]
    return numbers if len(numbers) == count and all(math.isfinite(each) for each in numbers) else []


def _qwen2(text: str) -> Iterator[Place]:
    """Pairs of corners; what stands before them on the line is the label, and holds for the pairs that follow."""
    label, end = "", 0
    for match in _PAIR.finditer(text):
        before = text[end : match.start()].split("\n")[-1].strip(" \t,;:.-*")
        label, end = before or label, match.end()
        x1, y1, x2, y2 = (float(number) for number in match.groups())
        yield Place(label, box=(x1, y1, x2, y2))


def _xml_points(text: str) -> Iterator[Place]:
    """`<points x1="10" y1="20" x2="30" y2="40" alt="a">a</points>` and `<point x="10" y="20">`."""
    for match in _XML_POINTS.finditer(text):
        named = dict(_ATTRIBUTE.findall(match.group(1)))
        label = match.group(2).strip() or named.get("alt", "")
        for name, value in named.items():
            other = named.get("y" + name[1:], "")
            if name.startswith("x") and _is_number(value) and _is_number(other):
                yield Place(label, point=(float(value), float(other)))


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?\d+(?:\.\d+)?", text.strip()) is not None
