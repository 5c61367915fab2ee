"""What follows a death of one replica: another port, a smaller plan, a pause, or the end. Starts no process."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass, replace

from vlfleet.engine.launch import Engine, EngineSpec, Failure, FailureKind, Value
from vlfleet.fleet.timing import Death, RestartPolicy

MOST_HEALS = 2
"""Smaller plans after starts that ran out of memory; each costs a load of the model."""
MOST_PORTS = 5
"""Other ports in a row. A port is free when it is chosen, so a second clash is rare already."""

PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)
"""No room on the disk, no descriptor, no memory, no process: what a machine lacks now it may have later."""
MACHINE = "machine"
"""The `Failure.rule` of a start that this machine refused. No engine ran, so it counts to no crash loop: it is tried
again, in the end once a minute, until there is room."""


@dataclass(frozen=True)
class Step:
    """What to do next."""

    delay_seconds: float | None
    """Until the next start, without jitter; None: it is given up."""
    failure: Failure
    """As a person should read it."""
    said: str = ""
    """What is done about it, when that is more than to wait and start again."""


class Recovery:
    """The deaths of one replica, and what it is started with."""

    def __init__(self, engine: Engine, spec: EngineSpec, policy: RestartPolicy) -> None:
        """`spec` may be smaller than the fleet's, when a supervisor before this one has found that it must be."""
        self.spec = spec
        self._engine, self._policy = engine, policy
        self._deaths: list[Death] = []
        self._heals, self._clashes, self._refusals = 0, 0, 0

    def after(
        self, failure: Failure, now: float, *, ready_at: float = 0.0, decisions: Mapping[str, Value] | None = None
    ) -> Step:
        """The step after a run that ended at `now`; `ready_at` is 0 when it never was ready. One monotonic clock: who
        sets the machine's clock must not make a crash loop of deaths that were hours apart."""
        if not ready_at and failure.kind is FailureKind.PORT and self._clashes < MOST_PORTS:
            self._clashes += 1
            return Step(0.0, failure, "its port was taken; starting again on another")
        self._clashes = 0
        if not ready_at and failure.kind is FailureKind.MEMORY and (line := self._heal(failure, decisions or {})):
            return Step(0.0, failure, line)
        if failure.rule == MACHINE:
            self._refusals += 1
            return Step(self._policy.backoff_seconds(self._refusals), failure)
        self._refusals = 0
        self._deaths.append(Death(now, now - ready_at if ready_at else 0.0))
        del self._deaths[:-32]
        delay = self._policy.delay_seconds(self._deaths) if failure.retry else None
        if delay is None and failure.retry:
            minutes = self._policy.window_seconds / 60
            loop = f"it died {self._policy.deaths} times in {minutes:.0f} minutes; the last time: "
            failure = replace(failure, cause=loop + failure.cause)
        return Step(delay, failure)

    def _heal(self, failure: Failure, decisions: Mapping[str, Value]) -> str:
        """Makes the plan smaller and returns what was given up; "" when it cannot be done, or not any more."""
        if self._heals == MOST_HEALS:
            return ""
        try:
            healed = self._engine.heal(self.spec, failure, decisions)
        except Exception:  # a fault of an engine's class must not end the replica: it is started as it was
            return ""
        if healed is None:
            return ""
        self._heals += 1
        self.spec, line = healed
        return line
