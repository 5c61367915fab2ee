"""Which replica answers a request. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from vlfleet.fleet.replica import Phase, Replica


def choose(replicas: Sequence[Replica], exclude: Collection[str] = (), turn: int = 0) -> Replica | None:
    """The ready replica with the least outstanding work, or None when none is left.

    `exclude` holds the names of replicas that must not be taken. Ties go to the one with the fewest requests in
    flight; those still equal are taken in rotation, as the caller counts `turn` up.
    """
    ready = [replica for replica in replicas if replica.phase is Phase.READY and replica.name not in exclude]
    if not ready:
        return None
    start = turn % len(ready)
    rotated = ready[start:] + ready[:start]
    return min(rotated, key=lambda replica: (replica.outstanding_work, replica.in_flight))
