"""The JSON in a model's answer: fenced, inside prose, with trailing commas, in Python's spelling, or cut off. Pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from vlfleet.tasks.json_reader import Json, NoValueError, Reader

_OPENING = re.compile(r"[{\[]")
_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_FENCE = re.compile(r"```[ \t]*[A-Za-z0-9]*[ \t]*\n?(.*?)(?:```|\Z)", re.DOTALL)


class NoJsonError(ValueError):
    """There is no JSON in the answer."""


@dataclass(frozen=True)
class Read:
    """What was found. `complete` is false where the answer ended too soon: then what was begun last is left out."""

    value: Json
    complete: bool = True
    strict: bool = True
    """Whether it was JSON as RFC 8259 has it, with nothing mended."""


def read_json(text: str) -> Read:
    """The JSON that an answer means: the largest object or list in it; several objects one after another are a list.

    Raises:
        NoJsonError: there is none.
    """
    text = _THOUGHT.sub("", text).strip()
    strict = _strict(text)
    if strict is not None:
        return strict
    candidates = [match.group(1) for match in _FENCE.finditer(text)] + [text]
    for candidate in candidates:
        found = _found(candidate)
        if found:
            return _meant(found)
    raise NoJsonError("there is no JSON in the answer")


def _strict(text: str) -> Read | None:
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    return Read(value) if isinstance(value, dict | list) else None


def _no_constant(name: str) -> Json:
    raise ValueError(f"{name} is no JSON")


@dataclass(frozen=True)
class _Found:
    start: int
    end: int
    value: Json
    complete: bool
    strict: bool


def _found(text: str) -> list[_Found]:
    """Every outermost object or list of `text`, in order."""
    found: list[_Found] = []
    at = 0
    while (match := _OPENING.search(text, at)) is not None:
        start = match.start()
        reader = Reader(text, start)
        try:
            value = reader.value(0)
        except (NoValueError, RecursionError):
            at = start + 1
            continue
        strict = False
        if reader.complete:
            whole = _strict(text[start : reader.at])
            strict = whole is not None
        found.append(_Found(start, reader.at, value, reader.complete, strict))
        at = reader.at
    return found


def _meant(found: list[_Found]) -> Read:
    objects = [each for each in found if isinstance(each.value, dict) and each.value]
    longest = max(found, key=lambda each: (bool(each.value), each.end - each.start))
    if len(objects) > 1 and longest in objects:
        together = [each.value for each in objects]
        return Read(together, all(each.complete for each in objects), strict=False)
    return Read(longest.value, longest.complete, longest.strict)
