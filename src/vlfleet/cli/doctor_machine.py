"""`vlfleet doctor`: what on this machine would make an engine fail, or slow it."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
import threading
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlfleet.cli.options import note
from vlfleet.errors import ExitCode, VlfleetError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vlfleet.checkup.check import Outcome

Model = Annotated[
    str,
    typer.Option("--model", help="Look at this checkpoint too: a folder, or a name on the hub.", show_default=False),
]
Nodes = Annotated[
    str,
    typer.Option("--nodes", help="Look at these nodes too: host,host:port,...", metavar="HOSTS", show_default=False),
]
Quick = Annotated[bool, typer.Option("--quick", help="Leave out what takes longer than a second, or uses a GPU.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show what is well, too, with its figures.")]
SCHEMA = 1
"""Of --json: keys are added, none is renamed or dropped without another number."""


def machine(model: str, nodes: str, quick: bool, verbose: bool, as_json: bool) -> None:
    """Prints what was found. Exit code 4 when something would fail."""
    from vlfleet.checkup.check import Verdict
    from vlfleet.checkup.examine import examine, worst
    from vlfleet.checkup.facts.nodes import parse
    from vlfleet.checkup.scene import Scene

    names = tuple(filter(None, (name.strip() for name in nodes.split(","))))
    for name in names:
        try:
            parse(name)
        except ValueError as error:
            raise VlfleetError(f"--nodes: {error}", "give host,host:port,...", ExitCode.USAGE) from None
    if not quick and sys.stderr.isatty():
        note("looking at this machine: half a minute, up to three where GPUs hang (--quick leaves the slow part out)")
    before, begun = set(threading.enumerate()), time.monotonic()
    outcomes = examine(Scene(model=model, nodes=names, quick=quick))
    seconds = time.monotonic() - begun
    if as_json:
        _print_json(outcomes, quick, seconds)
    else:
        print("\n".join(told(outcomes, verbose=verbose, width=_width())))
    sick = worst(outcomes) is Verdict.FAIL
    _leave(ExitCode.UNHEALTHY if sick else ExitCode.DONE, before)


def _leave(code: ExitCode, before: set[threading.Thread]) -> None:
    """Threads that hang in a driver or a network disk would keep this process for ever: it ends without them."""
    if any(thread not in before for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    raise typer.Exit(code)


def _width() -> int:
    return min(120, shutil.get_terminal_size((100, 24)).columns)


def told(outcomes: Sequence[Outcome], *, verbose: bool, width: int) -> Iterator[str]:
    """For a person: by group; what is not well in full, what is well in one line, or all with `verbose`."""
    from vlfleet.checkup.check import Group, Verdict

    shown = tuple(Verdict) if verbose else (Verdict.FAIL, Verdict.RISK, Verdict.SLOW)
    name_width = max(len(outcome.check.name) for outcome in outcomes)
    said: set[str] = set()
    for group in Group:
        here = [outcome for outcome in outcomes if outcome.check.group is group]
        lines = [
            line for outcome in here if outcome.finding.verdict in shown for line in _lines(outcome, name_width, width)
        ]
        good = [outcome.check.name for outcome in here if outcome.finding.verdict is Verdict.WELL]
        if not verbose:
            lines += _not_known(here, name_width, width)
        if good and not verbose:
            lines += _wrapped("well", "", ", ".join(good), name_width, width)
        if not lines and here and all(outcome.finding.verdict is Verdict.NONE for outcome in here):
            reason = here[0].finding.saw
            lines = [] if reason in said else _wrapped("none", "", reason, name_width, width)
            said.add(reason)
        if lines:
            yield from (group.value, *lines, "")
    yield _summary(outcomes)


def _lines(outcome: Outcome, name_width: int, width: int) -> Iterator[str]:
    finding, check = outcome.finding, outcome.check
    yield from _wrapped(finding.verdict, check.name, finding.saw, name_width, width)
    if finding.verdict.bad:
        yield from _wrapped("", "  why", check.why, name_width, width)
        yield from _wrapped("", "  remedy", outcome.remedy, name_width, width)


def _not_known(outcomes: Sequence[Outcome], name_width: int, width: int) -> Iterator[str]:
    """One line for each reason, as one that hangs leaves several checks without facts."""
    names: dict[str, list[str]] = {}
    for outcome in outcomes:
        if outcome.finding.verdict == "unknown":
            names.setdefault(outcome.finding.saw, []).append(outcome.check.name)
    for reason, checks in names.items():
        yield from _wrapped("unknown", "", f"{', '.join(checks)}: {reason}", name_width, width)


def _wrapped(verdict: str, name: str, text: str, name_width: int, width: int) -> list[str]:
    """Verdict, name and text in columns; a text that begins in the first column where there is no name."""
    head = f"  {verdict:<7}  " + (f"{name:<{name_width}}  " if name else "")
    room = max(30, width - len(head))
    parts = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]
    return [f"{head}{parts[0]}".rstrip(), *(" " * len(head) + part for part in parts[1:])]


def _summary(outcomes: Sequence[Outcome]) -> str:
    counts = _counts(outcomes)
    words = {"none": "not applicable", "unknown": "could not be looked at", "skipped": "not asked for"}
    parts = [f"{counts[name]} {words.get(name, name)}" for name in counts if counts[name] or name == "fail"]
    return f"{len(outcomes)} checks: {', '.join(parts)}"


def _counts(outcomes: Sequence[Outcome]) -> dict[str, int]:
    from vlfleet.checkup.check import Verdict

    return {each.value: sum(outcome.finding.verdict is each for outcome in outcomes) for each in Verdict}


def _print_json(outcomes: Sequence[Outcome], quick: bool, seconds: float) -> None:
    import json

    from vlfleet import __version__
    from vlfleet.checkup.examine import worst

    facts = {
        "schema": SCHEMA,
        "vlfleet": __version__,
        "verdict": worst(outcomes).value,
        "quick": quick,
        "seconds": round(seconds, 1),
        "counts": _counts(outcomes),
        "checks": [_facts(outcome) for outcome in outcomes],
    }
    print(json.dumps(facts, indent=2, ensure_ascii=False))


def _facts(outcome: Outcome) -> dict[str, Any]:
    check, finding = outcome.check, outcome.finding
    return {
        "check": check.name,
        "group": check.group.name.lower(),
        "verdict": finding.verdict.value,
        "saw": finding.saw,
        "why": check.why,
        "remedy": outcome.remedy or None,
        "source": check.source or None,
        "numbers": dict(finding.numbers),
    }
