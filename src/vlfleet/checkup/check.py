"""What a check of the machine is: what it needs to know, how it judges that, why it matters and what to do."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vlfleet.checkup.known import Known

Numbers = Mapping[str, Any]
"""Figures of a finding for programs; what JSON can say."""


class Verdict(enum.StrEnum):
    """One word for what was seen, worst first."""

    FAIL = "fail"
    """Something would not start, or answer wrongly."""
    RISK = "risk"
    """It works, but fails in cases that the finding names, or is less safe."""
    SLOW = "slow"
    """It works, slower than this machine could."""
    WELL = "well"
    UNKNOWN = "unknown"
    """It could not be looked at: the finding says why."""
    SKIPPED = "skipped"
    """Not asked for: --quick, or no --model or --nodes."""
    NONE = "none"
    """Not applicable: this machine has nothing of the kind."""

    @property
    def bad(self) -> bool:
        """Whether a person should read it."""
        return self in (Verdict.FAIL, Verdict.RISK, Verdict.SLOW)


class Group(enum.StrEnum):
    """The subjects, in the order in which they are printed."""

    GPU = "GPUs"
    LINKS = "GPU to GPU"
    ENGINE = "vLLM and its libraries"
    HOST = "Host"
    LIMITS = "Limits of this process and container"
    DISK = "Disks"
    NETWORK = "Network"
    ENVIRONMENT = "Environment variables"
    MODEL = "Model"
    NODES = "Other nodes"


@dataclass(frozen=True)
class Finding:
    """What one check saw."""

    verdict: Verdict
    saw: str
    """One line."""
    remedy: str = ""
    """What to do about this; the check's own where it is empty."""
    numbers: Numbers = field(default_factory=dict)


def well(saw: str, /, **numbers: Any) -> Finding:
    return Finding(Verdict.WELL, saw, numbers=numbers)


def slow(saw: str, remedy: str = "", /, **numbers: Any) -> Finding:
    return Finding(Verdict.SLOW, saw, remedy, numbers)


def risk(saw: str, remedy: str = "", /, **numbers: Any) -> Finding:
    return Finding(Verdict.RISK, saw, remedy, numbers)


def fail(saw: str, remedy: str = "", /, **numbers: Any) -> Finding:
    return Finding(Verdict.FAIL, saw, remedy, numbers)


def none(saw: str) -> Finding:
    return Finding(Verdict.NONE, saw)


def unknown(saw: str) -> Finding:
    return Finding(Verdict.UNKNOWN, saw)


@dataclass(frozen=True)
class Check:
    """One thing to look at. `judge` is a pure function of facts; facts that are missing make it `unknown`."""

    name: str
    """Printed, and kept from version to version."""
    group: Group
    judge: Callable[[Known], Finding]
    why: str
    """What happens to a fleet where it is not well."""
    remedy: str
    source: str = ""
    """Where that is known from: owner/repository#number, a file of vLLM, a page of NVIDIA's."""


@dataclass(frozen=True)
class Outcome:
    """A check and what it found."""

    check: Check
    finding: Finding

    @property
    def remedy(self) -> str:
        """Empty where there is nothing to do."""
        return (self.finding.remedy or self.check.remedy) if self.finding.verdict.bad else ""
