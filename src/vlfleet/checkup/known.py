"""What was gathered about a machine: facts by their kind, and why one of them is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

Fact = TypeVar("Fact")


@dataclass(frozen=True)
class Missing:
    """Facts that there are none of."""

    reason: str
    skipped: bool = False
    """Nobody asked for them, as with --quick."""


class NotKnown(Exception):  # noqa: N818 - no error: a check that asks is told so
    """Raised where a check asks for facts that are missing."""

    def __init__(self, missing: Missing) -> None:
        super().__init__(missing.reason)
        self.missing = missing


class Known:
    """Facts by their class: `known[Gpus]`."""

    def __init__(self, *facts: object, missing: Mapping[type, Missing] | None = None) -> None:
        self._facts = {type(fact): fact for fact in facts}
        self._missing = dict(missing or {})

    def __getitem__(self, kind: type[Fact]) -> Fact:
        """Raises:
        NotKnown: there are none of this kind.
        """
        fact = self._facts.get(kind)
        if not isinstance(fact, kind):
            raise NotKnown(self._missing.get(kind, Missing(f"no {kind.__name__} were gathered")))
        return fact

    def get(self, kind: type[Fact]) -> Fact | None:
        """The facts of this kind, or None where they are missing."""
        fact = self._facts.get(kind)
        return fact if isinstance(fact, kind) else None
