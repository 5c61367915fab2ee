"""A glance, read with suspicion: what is missing or of another kind is unknown, and text is made harmless."""

from __future__ import annotations

import math
from typing import Any

from vlfleet.watch.top.line import clean


class Facts:
    """An object of the glance."""

    __slots__ = ("_facts", "_parts")

    def __init__(self, facts: object = None) -> None:
        self._facts: dict[str, Any] = facts if isinstance(facts, dict) else {}
        self._parts: dict[str, list[Facts]] = {}

    def __bool__(self) -> bool:
        return bool(self._facts)

    def text(self, key: str) -> str:
        """On one line, nothing in it that a terminal obeys; empty where nothing is known."""
        value = self._facts.get(key)
        return clean(value) if isinstance(value, str) else "" if value is None else clean(str(value))

    def raw(self, key: str) -> str:
        """As it came, to be sent back."""
        value = self._facts.get(key)
        return value if isinstance(value, str) else ""

    def number(self, key: str) -> float | None:
        value = self._facts.get(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            return None
        return value

    def count(self, key: str) -> int:
        """0 where nothing is known."""
        return int(self.number(key) or 0)

    def true(self, key: str) -> bool:
        return self._facts.get(key) is True

    def part(self, key: str) -> Facts:
        return Facts(self._facts.get(key))

    def parts(self, key: str) -> list[Facts]:
        if key not in self._parts:
            value = self._facts.get(key)
            self._parts[key] = (
                [Facts(each) for each in value if isinstance(each, dict)] if isinstance(value, list) else []
            )
        return self._parts[key]

    def texts(self, key: str) -> list[str]:
        value = self._facts.get(key)
        return [clean(str(each)) for each in value if each is not None] if isinstance(value, list) else []

    def pairs(self, key: str) -> list[tuple[str, str]]:
        """An object's keys and values."""
        value = self._facts.get(key)
        return [(clean(str(name)), clean(str(each))) for name, each in value.items()] if isinstance(value, dict) else []
