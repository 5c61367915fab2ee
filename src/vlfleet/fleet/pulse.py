"""Whether a replica gets on with its work, judged by its signs of life. Pure: every time is given.

A sign of life is a byte of an answer, an answered request of one token, or a token counter that has grown. An idle
replica gives none by itself, so its silence means nothing until somebody has asked it for a token; what counts is how
long it has been silent since then.
"""

from __future__ import annotations

import enum

from vlfleet.fleet.timing import Timing

FORGET = 0.995
"""Of the longest wait, what is left after each answered question: half after 140 of them, 12 minutes when idle. The
one-off compilation of a first request shall not make the watch slow for ever."""


class Verdict(enum.IntEnum):
    """From bad to worse."""

    MOVING = 0
    SILENT = 1
    """Too long for most engines: new requests are better off elsewhere, if there is an elsewhere."""
    STALLED = 2
    """Also twice as long as this engine was ever silent and went on: it is not expected to go on."""
    HUNG = 3
    """It has to be ended."""


class Pulse:
    """One replica's signs of life. Times are seconds of one monotonic clock."""

    def __init__(self, now: float) -> None:
        self.heard_at = now
        self.asked_at = 0.0
        """When it was first asked since `heard_at`; 0 when it was not."""
        self.longest_wait = 0.0
        """From a question to the next sign of life, as far as it is remembered."""

    def heard(self, at: float) -> None:
        """A sign of life came at `at`. One that is older than the last says nothing new."""
        if at <= self.heard_at:
            return
        self.heard_at = at
        if self.asked_at:
            self.longest_wait = max(self.longest_wait * FORGET, at - self.asked_at)
            self.asked_at = 0.0

    def asked(self, now: float) -> None:
        """It has been asked for a token; a second question changes nothing."""
        self.asked_at = self.asked_at or now

    def not_asked(self) -> None:
        """The question did not get there, so nothing was to be heard."""
        self.asked_at = 0.0

    def excuse(self, seconds: float, now: float) -> None:
        """The watcher itself did not run for `seconds` up to `now`: whatever came meanwhile is only seen now."""
        self.heard_at = min(self.heard_at + seconds, now)
        if self.asked_at:
            self.asked_at = min(self.asked_at + seconds, now)

    def silence(self, now: float) -> float:
        """Seconds since the last sign of life."""
        return now - self.heard_at

    def waited(self, now: float) -> float:
        """Seconds since the first question that nothing has followed; 0 when there is none."""
        return now - self.asked_at if self.asked_at else 0.0

    def verdict(self, now: float, timing: Timing, *, computing: bool = False) -> Verdict:
        """What its silence means, for this replica with its history.

        `computing`: it has no GPU and its processes use the CPU, so it is in the middle of a long step.
        """
        silence, waited = self.silence(now), self.waited(now)
        patience = min(2 * self.longest_wait, timing.most_patience_seconds)
        if not self.asked_at or waited < timing.answer_seconds:
            return Verdict.MOVING
        if silence < timing.quiet_seconds + timing.answer_seconds:  # asked early: the first token takes longest
            return Verdict.MOVING
        if computing:
            return Verdict.HUNG if waited >= timing.most_computing_seconds else Verdict.MOVING
        if silence >= timing.hung_seconds and waited >= patience:
            return Verdict.HUNG
        return Verdict.STALLED if waited >= patience else Verdict.SILENT
