"""One part of a GPU's memory, with the formula and the source behind it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

GIB = 1 << 30
MIB = 1 << 20


@dataclass(frozen=True)
class Term:
    """Bytes that something takes, and why."""

    name: str
    bytes: int
    formula: str = ""
    """In the words of vLLM's options and of config.json."""
    numbers: tuple[tuple[str, float], ...] = ()
    """What was put into the formula, by name."""
    source: str = ""
    """Where the formula is from: a file of vLLM or PyTorch, or a measurement."""
    fitted: str = ""
    """On what a coefficient in it was measured; empty when nothing in it was."""

    def __str__(self) -> str:
        return f"{self.name} {gib(self.bytes)} GiB"


def total(terms: Iterable[Term]) -> int:
    """Bytes of all of them."""
    return sum(term.bytes for term in terms)


def gib(size_bytes: float) -> str:
    """As vLLM prints it (`format_gib` in utils/mem_utils.py): "15.67", and "7.9", not "7.90"."""
    return f"{round(size_bytes / GIB, 2)}"
