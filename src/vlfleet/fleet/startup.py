"""What a start's log tells, written into the replica's record: phases with their times, and what the engine decided."""

from __future__ import annotations

from vlfleet.engine.launch import Observation
from vlfleet.fleet.replica import Replica

FIRST = "start"
"""The time before the first line that names a phase: the interpreter, its imports, the engine's own checks."""


def begin(replica: Replica, now: float) -> None:
    """A process has been started; nothing is known of it."""
    replica.phases, replica.decisions, replica.phase_at, replica.detail = {}, {}, now, ""


def note(replica: Replica, seen: Observation, now: float) -> bool:
    """Takes over what a line tells; whether it told anything new."""
    new = not replica.decisions.items() >= seen.decisions.items()
    replica.decisions |= seen.decisions
    if seen.phase and seen.phase != replica.detail and replica.phase_at:
        _close(replica, now)
        replica.phase_at, replica.detail, new = now, seen.phase, True
    return new


def end(replica: Replica, now: float) -> None:
    """It is ready: the last phase is over."""
    if replica.phase_at:
        _close(replica, now)
        replica.phase_at, replica.detail = 0.0, ""


def so_far(replica: Replica, now: float) -> dict[str, float]:
    """Seconds of each phase, in their order, with those of the one that goes on."""
    phases = dict(replica.phases)
    if replica.phase_at:
        name = replica.detail or FIRST
        phases[name] = phases.get(name, 0.0) + max(0.0, now - replica.phase_at)
    return phases


def _close(replica: Replica, now: float) -> None:
    """Adds the time of the phase that goes on; one that comes again adds to itself."""
    replica.phases = {name: round(seconds, 3) for name, seconds in so_far(replica, now).items()}
