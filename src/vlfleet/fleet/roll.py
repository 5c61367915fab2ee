"""A rolling restart: replicas are replaced one at a time while the others serve."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from vlfleet.engine.launch import Value
from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.fleet.life import ReplicaLife
from vlfleet.fleet.replica import Phase

Tell = Callable[[dict[str, Value]], None]
"""Gets what happens: {"event": "draining" | "stopping" | "starting" | "ready", "replica": "r0", ...}."""
Renew = Callable[[ReplicaLife], Awaitable[None]]
_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Order:
    """What to restart."""

    replica: str = ""
    """Only this one; all of them when it is empty."""
    drain_timeout_seconds: float = 600.0
    """For the requests that it has; after that they are cut."""
    force: bool = False
    """Also when no other replica is ready meanwhile."""


async def roll(lives: Sequence[ReplicaLife], renew: Renew, order: Order, tell: Tell) -> None:
    """Replaces replicas: what serves nothing comes first, then those in rotation. Who is cordoned stays cordoned.

    Raises:
        VlfleetError: it is the only one that is ready; the new one did not become ready. Those after it are left as
            they are.
    """
    chosen = [life for life in lives if order.replica in ("", life.replica.name)]
    chosen.sort(key=lambda life: life.replica.in_rotation)
    for at, life in enumerate(chosen):
        others = [each for each in lives if each is not life]
        try:
            await _replace(life, others, renew, order, tell)
        except VlfleetError as error:
            left = " ".join(each.replica.name for each in chosen[at + 1 :])
            remedy = error.remedy + f"; not restarted: {left}" * bool(left)
            raise VlfleetError(error.cause, remedy, ExitCode.UNHEALTHY if at else error.exit_code) from None


async def _replace(life: ReplicaLife, others: Sequence[ReplicaLife], renew: Renew, order: Order, tell: Tell) -> None:
    replica = life.replica
    cut = 0
    if replica.phase is Phase.READY:
        if replica.in_rotation and not order.force and not _ready(others):
            took = f"its last start took {replica.ready_at - replica.started_at:.0f} s"
            cause = f"{replica.name} is the only replica that is ready, and {took}"
            raise VlfleetError(cause, "--force restarts it all the same; requests are refused meanwhile")
        tell({"event": "draining", "replica": replica.name, "in_flight": replica.in_flight})
        cut = await _drain(life, others, order)
    tell({"event": "stopping", "replica": replica.name, "cut": cut})
    await renew(life)
    await _become_ready(life, tell)
    tell({"event": "ready", "replica": replica.name, "seconds": round(replica.ready_at - replica.started_at, 1)})


async def _drain(life: ReplicaLife, others: Sequence[ReplicaLife], order: Order) -> int:
    """Waits until it has no request, and returns how many it has when the time is over.

    One that dies meanwhile has none any more, and one that hangs is killed by its watch.
    """
    replica = life.replica
    assert life.watch  # it is ready
    life.watch.drain(True)
    deadline = time.monotonic() + order.drain_timeout_seconds
    while replica.in_flight and replica.phase is Phase.DRAINING:
        if time.monotonic() > deadline:
            return replica.in_flight
        if not replica.cordoned and not order.force and not _ready(others) and life.watch:
            life.watch.drain(False)
            cause = f"no other replica is ready any more, so {replica.name} serves on as it is"
            raise VlfleetError(cause, "see `vlfleet status`, then restart again", ExitCode.UNHEALTHY)
        await asyncio.sleep(_POLL_SECONDS)
    return 0


async def _become_ready(life: ReplicaLife, tell: Tell) -> None:
    """Returns when the new one is ready and has made a token: /health alone is not believed before the next goes."""
    replica, told = life.replica, ""
    while True:
        if replica.phase is Phase.FAILED or (replica.phase is Phase.BACKOFF and replica.retry_at):
            cause = f"{replica.name} did not become ready: {replica.error}"
            raise VlfleetError(cause, "mend that, then restart again", ExitCode.UNHEALTHY)
        if replica.phase is Phase.READY and life.watch and life.watch.proved.is_set():
            return
        if replica.phase is Phase.STARTING and replica.detail != told:
            told = replica.detail
            tell({"event": "starting", "replica": replica.name, "detail": told})
        await asyncio.sleep(_POLL_SECONDS)


def _ready(lives: Sequence[ReplicaLife]) -> bool:
    return any(life.replica.in_rotation for life in lives)
