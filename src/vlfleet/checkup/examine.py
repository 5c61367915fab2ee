"""Looks at the machine: gathers, then judges."""

from __future__ import annotations

from collections.abc import Sequence

from vlfleet.checkup.check import Check, Finding, Outcome, Verdict
from vlfleet.checkup.checks import CHECKS
from vlfleet.checkup.facts import GATHERERS
from vlfleet.checkup.gather import gather
from vlfleet.checkup.known import Known, NotKnown
from vlfleet.checkup.scene import Scene


def examine(scene: Scene) -> tuple[Outcome, ...]:
    """Every check's outcome, in the order of the groups. Raises nothing."""
    return judge(gather(scene, GATHERERS), CHECKS)


def judge(known: Known, checks: Sequence[Check]) -> tuple[Outcome, ...]:
    """What the checks say of these facts. One that breaks is a finding about itself."""
    return tuple(Outcome(check, _finding(check, known)) for check in checks)


def _finding(check: Check, known: Known) -> Finding:
    try:
        return check.judge(known)
    except NotKnown as none:
        skipped = none.missing.skipped
        return Finding(Verdict.SKIPPED if skipped else Verdict.UNKNOWN, none.missing.reason)
    except Exception as error:
        text = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        return Finding(Verdict.UNKNOWN, f"this check broke: {text}")


def worst(outcomes: Sequence[Outcome]) -> Verdict:
    """Of all checks; `well` where none is bad."""
    order = (Verdict.FAIL, Verdict.RISK, Verdict.SLOW)
    return next((each for each in order if any(o.finding.verdict is each for o in outcomes)), Verdict.WELL)
