"""What an alert is, and when it comes and goes. Pure: the time is that of the samples."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from vlfleet.watch.window import Window


class Severity(enum.IntEnum):
    """How soon somebody should look."""

    INFO = 0
    WARNING = 1
    CRITICAL = 2


@dataclass(frozen=True)
class Rule:
    """One thing that may be wrong. It begins when the value is at `raise_at` or above for `for_seconds`, and ends when
    it was below `clear_below` for `clear_seconds`."""

    code: str
    severity: Severity
    measure: Callable[[Window], Mapping[str, float]]
    """The value of each subject (r0, gpu3, host, fleet); a subject that cannot be judged now is left out."""
    raise_at: float
    clear_below: float
    says: str
    """With {subject} and {value}, and the names of `words`."""
    advice: str
    """With {subject}, and the names of `words`."""
    for_seconds: float = 0.0
    clear_seconds: float = 30.0
    words: Callable[[float], Mapping[str, str]] | None = None
    """What a value means, where it is a code."""

    def told(self, subject: str, value: float) -> tuple[str, str]:
        """Text and advice."""
        more = self.words(value) if self.words else {}
        return self.says.format(subject=subject, value=value, **more), self.advice.format(subject=subject, **more)


@dataclass(frozen=True)
class Alert:
    """Something is wrong now."""

    code: str
    subject: str
    severity: Severity
    text: str
    advice: str
    value: float
    threshold: float
    since: float
    """Seconds since the epoch."""
    acknowledged_by: str = ""

    @property
    def key(self) -> tuple[str, str]:
        return self.code, self.subject


@dataclass(frozen=True)
class Silence:
    """Nobody is told of alerts whose code and subject match these patterns (`gpu_*`, `*`)."""

    code: str
    subject: str = "*"
    until: float = float("inf")
    """Seconds since the epoch."""

    def covers(self, alert: Alert, at: float) -> bool:
        return at < self.until and fnmatchcase(alert.code, self.code) and fnmatchcase(alert.subject, self.subject)


@dataclass(frozen=True)
class _State:
    """One rule on one subject. Seconds of the monotonic clock."""

    high_since: float | None = None
    low_since: float | None = None
    alert: Alert | None = None


@dataclass(frozen=True)
class Book:
    """Every alert that is there, and what is on the way to become one."""

    states: Mapping[tuple[str, str], _State] = field(default_factory=dict)
    silences: tuple[Silence, ...] = ()
    known: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """Who knew of an alert before this run, by its code and subject: nobody is told anew of one that begins again."""
    known_until: float = 0.0
    """Seconds since the epoch, after which that is forgotten."""

    @property
    def alerts(self) -> tuple[Alert, ...]:
        """The worst first, then the oldest."""
        found = [state.alert for state in self.states.values() if state.alert]
        return tuple(sorted(found, key=lambda alert: (-alert.severity, alert.since, alert.key)))

    def heard(self, at: float) -> tuple[Alert, ...]:
        """Those that are not silenced."""
        return tuple(alert for alert in self.alerts if not self.silent(alert, at))

    def silent(self, alert: Alert, at: float) -> bool:
        return any(silence.covers(alert, at) for silence in self.silences)

    def silence(self, silence: Silence) -> Book:
        """With this silence instead of an older one for the same patterns; one that is over ends the older one."""
        others = (each for each in self.silences if (each.code, each.subject) != (silence.code, silence.subject))
        return replace(self, silences=(*others, silence))

    def acknowledge(self, code: str, subject: str, by: str) -> Book:
        """Somebody knows of this alert, until it ends. One that is not there changes nothing."""
        state = self.states.get((code, subject))
        if state is None or state.alert is None:
            return self
        known = replace(state, alert=replace(state.alert, acknowledged_by=by))
        return replace(self, states={**self.states, (code, subject): known})


@dataclass(frozen=True)
class Change:
    """An alert that began or ended."""

    alert: Alert
    began: bool
    at: float
    """Seconds since the epoch."""
    silent: bool = False


def step(book: Book, rules: Iterable[Rule], window: Window) -> tuple[Book, tuple[Change, ...]]:
    """The book after a look at `window`, and what changed. A rule that breaks on this window changes nothing."""
    now, at = window.now.monotonic, window.now.at
    states: dict[tuple[str, str], _State] = {}
    changes = []
    for rule in rules:
        try:
            values = rule.measure(window)
        except (ArithmeticError, LookupError, TypeError, ValueError):
            values = {}
        told = {subject for code, subject in book.states if code == rule.code}
        for subject in sorted(told | set(values)):
            old = book.states.get((rule.code, subject), _State())
            new = _next(rule, subject, old, values.get(subject), now, at)
            if new.alert and not old.alert and (by := book.known.get(new.alert.key)) and at < book.known_until:
                new = replace(new, alert=replace(new.alert, acknowledged_by=by))
            if new != _State():
                states[rule.code, subject] = new
            if (new.alert is None) != (old.alert is None):
                alert = new.alert or old.alert
                assert alert
                quiet = book.silent(alert, at) or (new.alert is not None and bool(alert.acknowledged_by))
                changes.append(Change(alert, new.alert is not None, at, quiet))
    silences = tuple(silence for silence in book.silences if silence.until > at)
    known = {key: by for key, by in book.known.items() if key not in states or not states[key].alert}
    return Book(states, silences, known if at < book.known_until else {}, book.known_until), tuple(changes)


def _next(rule: Rule, subject: str, old: _State, value: float | None, now: float, at: float) -> _State:
    """One rule on one subject. Where nothing is known an alert ends after its time, and none begins."""
    if old.alert is None:
        if value is None or value < rule.raise_at:
            return _State()
        since = now if old.high_since is None else old.high_since
        if now - since < rule.for_seconds:
            return _State(high_since=since)
        text, advice = rule.told(subject, value)
        alert = Alert(rule.code, subject, rule.severity, text, advice, value, rule.raise_at, at)
        return _State(high_since=since, alert=alert)
    if value is not None and value >= rule.clear_below:
        text, advice = rule.told(subject, value)
        return replace(old, low_since=None, alert=replace(old.alert, value=value, text=text, advice=advice))
    low_since = now if old.low_since is None else old.low_since
    return _State() if now - low_since >= rule.clear_seconds else replace(old, low_since=low_since)
