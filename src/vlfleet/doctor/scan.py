"""Reads a log once, line by line, and says which rule explains it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from vlfleet.doctor.facts import Facts
from vlfleet.doctor.kinds import FailureKind
from vlfleet.doctor.lines import Line, parse
from vlfleet.doctor.rule import Found, Role, Rule
from vlfleet.doctor.rules import RULES
from vlfleet.doctor.sign import Sign
from vlfleet.doctor.tracebacks import Traceback, Tracebacks

UNKNOWN = "unknown"
"""The name of no rule."""
_MOST_SHOWN = 400
"""Characters of a line that are shown."""
_CHAIN_LINES = 200
"""How far below a general cause the line may stand that names it more exactly."""
_MOST_PASTED_LINES = 40
"""What is longer is a log, and no description of a symptom."""
_SYMPTOMS = [(each.literal, each, rule) for rule in RULES for each in rule.signs if rule.role is Role.SYMPTOM]
_SIGNS = [(each.literal, each, rule) for rule in RULES for each in rule.signs if rule.role is not Role.SYMPTOM]
_QUIET = [entry for entry in _SIGNS if entry[2].quiet]
_SECONDARY = [entry for entry in _SIGNS if entry[2].role is Role.SECONDARY]
_CONTEXTS = [(literal, rule.name) for rule in RULES for literal in rule.context]
_CALM = ("INFO", "DEBUG", "WARNING")
_TOLD_TO_END = ("API server: shutdown triggered", "EngineCore: trigger received signal")
"""vLLM 0.26 and 0.32 on SIGTERM. What breaks from here on is how it ends: 0.32 even reports its engine as dead."""


@dataclass(frozen=True)
class Diagnosis:
    """Why an engine failed, or what a log shows besides."""

    rule: str
    """The name of the rule, or "unknown"."""
    kind: FailureKind
    cause: str
    remedy: str
    retry: bool
    """Whether the same start may succeed later."""
    fatal: bool
    """Whether an engine dies of it; false of a refused request."""
    numbers: Mapping[str, float] = field(default_factory=dict)
    """The figures of the line, by the rule's names."""
    line: str = ""
    """The line that was matched, cleaned and cut."""
    line_number: int = 0
    """Counted from 1 in what was read."""
    process: str = ""
    """Who wrote it, or "" where the log does not say."""
    versions: tuple[str, str] = ("", "")
    """The first and the last version of vLLM that can write it."""
    threads: tuple[str, ...] = ()
    """owner/repository#number."""
    also: tuple[str, ...] = ()
    """Names of other rules that fired."""

    @property
    def known(self) -> bool:
        """Whether a rule explains it."""
        return self.rule != UNKNOWN


@dataclass(frozen=True)
class Report:
    """What was read of a log."""

    line_count: int
    version: str
    """vLLM's, or "" where the log does not say."""
    diagnosis: Diagnosis | None
    """None: the log shows no failure."""
    notes: tuple[Diagnosis, ...] = ()
    """Worth knowing, and no failure."""


@dataclass
class _Match:
    rule: Rule
    line: Line
    groups: dict[str, str]
    of_request: bool
    """What else would end an engine was only said of one request."""
    count: int = 1


_USAGE = re.compile(r"^[\w. -]+: error: ")
"""argparse: `vllm serve: error: argument --dtype: ...`."""
_START = "non-default args: "
"""vLLM 0.9 to 0.32 at each start; a container's log may hold several."""


class Scan:
    """A log as it is read. Holds no line but the few that matched, so that it may be of any length."""

    def __init__(self, version: str | None = None) -> None:
        self._facts = Facts(version)
        self._tracebacks = Tracebacks()
        self._matches: dict[str, _Match] = {}
        self._contexts: set[str] = set()
        self._error: Line | None = None
        """The first line of the level ERROR, which may be of something that was handled."""
        self._raised: Line | None = None
        """The first exception that nobody handled."""
        self._summary: Line | None = None
        self._line_count = 0
        self._logged = False
        self._told_to_end = False

    def feed(self, raw: str) -> None:
        """One more line."""
        self._line_count += 1
        line = parse(self._line_count, raw)
        self._facts.read(line)
        traceback, raised = self._tracebacks.read(line)
        self._logged |= bool(line.level or line.process or traceback.open)
        for literal, name in _CONTEXTS:
            if literal in line.text:
                self._contexts.add(name)
        if traceback.open and line.text[:1] in (" ", ""):
            return
        if self._ends(line):
            return
        of_request = traceback.of_request and traceback.explains(line)
        if line.source:
            of_request = line.source.startswith("serving")
        refused = False
        for literal, each, rule in self._signs(line):
            if literal in line.text and self._try(each, rule, line, traceback, of_request):
                refused |= rule.role is Role.REQUEST
        if not of_request and not refused and not (traceback.ignored and traceback.explains(line)):
            self._note_error(line, raised)

    def _ends(self, line: Line) -> bool:
        """Whether the engine was told to end, and has not been started again since."""
        if _START in line.text:
            self._told_to_end = False
        elif "[shutdown]" in line.text:
            self._told_to_end |= any(mark in line.text for mark in _TOLD_TO_END)
        return self._told_to_end

    def _signs(self, line: Line) -> Sequence[tuple[str, Sign, Rule]]:
        """The signs that may stand in this line."""
        if line.level in _CALM:
            return _QUIET
        pasted = not self._logged and self._line_count <= _MOST_PASTED_LINES
        return _SIGNS + _SYMPTOMS if pasted else _SIGNS

    def _try(self, sign: Sign, rule: Rule, line: Line, traceback: Traceback, of_request: bool) -> bool:
        """Whether the sign is in the line, which is then kept unless the rule has fired before."""
        match = sign.match(line.text)
        if match is None or (sign.frames and not traceback.holds(sign.frames_pattern)):
            return False
        known = self._matches.get(rule.name)
        if known and (of_request or not known.of_request):
            known.count += 1
            return True
        groups = {name: text for name, text in match.groupdict().items() if text is not None}
        of_request = of_request and rule.role in (Role.CAUSE, Role.GENERAL)
        self._matches[rule.name] = _Match(rule, line, groups, of_request, known.count + 1 if known else 1)
        return True

    def _note_error(self, line: Line, raised: bool) -> None:
        """Keeps the first exception and the first error that are nobody's consequence."""
        if self._summary is not None and line.number == self._summary.number + 1:
            self._raised, self._summary = line, None  # pydantic says what is wrong only on the next line
        usage = not line.level and _USAGE.match(line.text) is not None
        loud = line.level in ("ERROR", "CRITICAL") and bool(line.text.strip())
        if not (raised or usage or loud) or any(each.match(line.text) for _, each, _ in _SECONDARY):
            return
        if raised or usage:
            if self._raised is None and " validation error" in line.text:
                self._summary = line
            self._raised = self._raised or line
        elif self._error is None:
            self._error = line

    def report(self) -> Report:
        """What the lines so far show."""
        fired = sorted(filter(self._fires, self._matches.values()), key=lambda match: match.line.number)
        primary = _primary(fired)
        role = _role(primary) if primary else None
        diagnosis = None
        if primary and role in (Role.CAUSE, Role.GENERAL):
            diagnosis = self._diagnosis(primary, fired)
        elif self._raised:
            diagnosis = _unknown(self._raised, fired)
        elif primary and role is not Role.NOTE:
            diagnosis = self._diagnosis(primary, fired)
        notes = tuple(self._diagnosis(match, []) for match in fired if match.rule.role is Role.NOTE)
        return Report(self._line_count, self._facts.version, diagnosis, notes)

    def first_error(self) -> Line | None:
        """The first exception that ends a process, else the first line of the level ERROR, else None."""
        return self._raised or self._error

    def _fires(self, match: _Match) -> bool:
        rule = match.rule
        if rule.role is Role.SYMPTOM and (self._logged or self._line_count > _MOST_PASTED_LINES):
            return False
        in_context = not rule.context or rule.name in self._contexts
        return in_context and match.count >= rule.times and rule.possible_in(self._facts.version)

    def _diagnosis(self, match: _Match, fired: Sequence[_Match]) -> Diagnosis:
        rule, line, found = match.rule, match.line, Found(match.groups, self._facts.numbers, self._facts.version)
        cause, remedy = rule.explain(found)
        return Diagnosis(
            rule=rule.name,
            kind=rule.kind,
            cause=cause,
            remedy=remedy,
            retry=rule.retry or match.of_request,
            fatal=rule.fatal and not match.of_request,
            numbers=found.numbers,
            line=shown(line),
            line_number=line.number,
            process=line.process,
            versions=rule.versions,
            threads=rule.threads,
            also=tuple(other.rule.name for other in fired if other.line is not line),
        )


def _role(match: _Match) -> Role:
    return Role.REQUEST if match.of_request else match.rule.role


def _primary(fired: Sequence[_Match]) -> _Match | None:
    """The first cause; else the first of what remains, consequences before requests before symptoms before notes."""
    causes = [match for match in fired if _role(match) in (Role.CAUSE, Role.GENERAL)]
    if causes:
        return next((match for match in causes[1:] if _names_more_exactly(match, causes[0])), causes[0])
    for role in (Role.SECONDARY, Role.REQUEST, Role.SYMPTOM, Role.NOTE):
        for match in fired:
            if _role(match) is role:
                return match
    return None


def _names_more_exactly(match: _Match, first: _Match) -> bool:
    """`first` is of a general rule, and the same process goes on to say the same with more detail."""
    near = match.line.number - first.line.number <= _CHAIN_LINES and match.line.process == first.line.process
    return first.rule.role is Role.GENERAL and match.rule.role is Role.CAUSE and near


def _unknown(line: Line, fired: Sequence[_Match]) -> Diagnosis:
    return Diagnosis(
        rule=UNKNOWN,
        kind=FailureKind.UNKNOWN,
        cause=f"a failure that no rule knows: {shown(line)}",
        remedy=f"read the log from line {line.number} upwards",
        retry=True,
        fatal=True,
        line=shown(line),
        line_number=line.number,
        process=line.process,
        also=tuple(match.rule.name for match in fired),
    )


def shown(line: Line) -> str:
    """The line's message on one line, and not too long."""
    text = line.text.strip()
    return text if len(text) <= _MOST_SHOWN else text[: _MOST_SHOWN - 3] + "..."


def examine(lines: Iterable[str], *, version: str | None = None) -> Report:
    """What a log shows. `version` is vLLM's, where the log does not say it itself."""
    scan = Scan(version)
    for line in lines:
        scan.feed(line)
    return scan.report()


def diagnose(lines: Sequence[str], *, version: str | None = None) -> Diagnosis | None:
    """Why the engine that wrote these lines failed, or None when they show no failure."""
    return examine(lines, version=version).diagnosis


def first_error(lines: Sequence[str]) -> str | None:
    """The first error line of the first failing process, without its prefix; None when there is no error."""
    scan = Scan()
    for line in lines:
        scan.feed(line)
    found = scan.first_error()
    return shown(found) if found else None
