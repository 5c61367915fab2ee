"""What a rule of the doctor is: a text that an engine writes, why it does, and what to do about it, in figures."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from vlfleet.doctor.kinds import FailureKind
from vlfleet.doctor.sign import Sign


class Role(enum.Enum):
    """What a match says about the log. The first cause wins; the others speak where there is none, in this order."""

    CAUSE = "cause"
    GENERAL = "general cause"
    """A cause that a later line of the same traceback may name more exactly."""
    SECONDARY = "consequence"
    """Always follows from something else, and explains nothing that came before it."""
    REQUEST = "refused request"
    """One request fails; the engine goes on."""
    SYMPTOM = "symptom"
    """Leaves no line in a log: known by what a person pastes."""
    NOTE = "note"
    """Noise, or worth knowing; never a failure."""


@dataclass(frozen=True)
class Found:
    """What the log says in names and figures: in the matched line, and elsewhere."""

    groups: Mapping[str, str]
    """The holes of the sign, by name."""
    facts: Mapping[str, float] = field(default_factory=dict)
    """What the engine said of itself before or after, under vLLM's names of its options."""
    version: str = ""
    """Of vLLM, or "" where the log does not say."""

    def number(self, name: str) -> float | None:
        """A figure of the line, else of the log, else None."""
        if name in self.groups:
            return as_number(self.groups[name])
        return self.facts.get(name)

    def count(self, name: str) -> int:
        """The same as a whole number; 0 where the log does not say."""
        return int(self.number(name) or 0)

    @property
    def numbers(self) -> dict[str, float]:
        """Every figure of the matched line."""
        read = {name: as_number(text) for name, text in self.groups.items()}
        return {name: number for name, number in read.items() if number is not None}


def as_number(text: str) -> float | None:
    """1,329 -> 1329; None for what is no number."""
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return None


Remedy = Callable[[Found], str]


@dataclass(frozen=True)
class Rule:
    """One failure and its explanation."""

    name: str
    """Printed, and kept from version to version."""
    kind: FailureKind
    signs: tuple[Sign, ...]
    cause: str
    """One line; `{tp}` stands for the hole of that name."""
    remedy: str | Remedy
    """One line, or what computes it; the docstring of a function says for the reference what it computes."""
    covers: tuple[str, ...] = ()
    """Q1 to Q55 and C1 to C17: the lists of failures that the rules were collected from."""
    threads: tuple[str, ...] = ()
    """owner/repository#number."""
    role: Role = Role.CAUSE
    context: tuple[str, ...] = ()
    """Some line of the log must hold one of these."""
    times: int = 1
    """How many lines must match."""
    versions: tuple[str, str] = ("", "")
    """The first and the last version of vLLM that can write it; "" where no end is known."""
    retry: bool = False
    """Whether the same start may succeed later."""
    quiet: bool = False
    """The sign may stand in a line that was logged as information or as a warning."""

    @property
    def fatal(self) -> bool:
        """Whether an engine dies of it."""
        return self.role in (Role.CAUSE, Role.GENERAL, Role.SECONDARY)

    def explain(self, found: Found) -> tuple[str, str]:
        """Cause and remedy, with the figures of this log."""
        groups = _Known(found.groups)
        remedy = self.remedy.format_map(groups) if isinstance(self.remedy, str) else self.remedy(found)
        return self.cause.format_map(groups), remedy

    @property
    def remedy_template(self) -> str:
        """The remedy as the reference shows it."""
        if isinstance(self.remedy, str):
            return self.remedy.replace("{{", "{").replace("}}", "}")
        return " ".join((self.remedy.__doc__ or "").split())

    def possible_in(self, version: str) -> bool:
        """Whether this version of vLLM ("0.26.0", or "" when unknown) can write it."""
        first, last = map(release, self.versions)
        this = release(version)
        return not this or ((not first or this >= first) and (not last or this[: len(last)] <= last))


class _Known(dict[str, str]):
    def __missing__(self, name: str) -> str:
        return "?"


def release(version: str) -> tuple[int, ...]:
    """(0, 26, 0) of "0.26.0+cu130"; () of ""."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, match[0].split("."))) if match else ()
