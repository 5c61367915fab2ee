"""Replicas that are taken out of rotation by hand and put back, in kubectl's words: cordon, uncordon, drain.

A cordoned replica gets no new request. Its engine stays up, finishes what it has, and is watched and started again like
any other; only a person puts it back.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass

from vlfleet.engine.launch import Value
from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.fleet.replica import Replica

Event = dict[str, Value]
_POLL_SECONDS = 0.02
_TELL_SECONDS = 1.0


@dataclass(frozen=True)
class Cordon:
    """What to take out of rotation, or to put back."""

    replica: str = ""
    """r0, or gpu3 for every replica that is placed on that GPU."""
    force: bool = False
    """Also when no other replica is ready."""


@dataclass(frozen=True)
class Drain:
    """What to take out of rotation, and to wait for."""

    replica: str = ""
    """As for `Cordon`."""
    timeout_seconds: float = 600.0
    """For the requests that it has. What is left then goes on, and the drain has failed."""
    force: bool = False


def chosen(replicas: Sequence[Replica], name: str) -> list[Replica]:
    """The replicas that `name` stands for: at least one.

    Raises:
        VlfleetError: it stands for none.
    """
    if found := [replica for replica in replicas if name in (replica.name, *_gpus(replica))]:
        return found
    gpus = sorted({gpu for replica in replicas for gpu in replica.placement.gpus})
    names = [*(replica.name for replica in replicas), *(f"gpu{gpu}" for gpu in gpus)]
    is_gpu = name.startswith("gpu") and name[3:].isdecimal()
    cause = f"no replica is placed on {name}" if is_gpu else f"there is no replica {name!r}"
    raise VlfleetError(cause, f"choose one of: {' '.join(names)}", ExitCode.USAGE)


def _gpus(replica: Replica) -> list[str]:
    return [f"gpu{gpu}" for gpu in replica.placement.gpus]


def check_others(replicas: Sequence[Replica], going: Collection[Replica]) -> None:
    """
    Raises:
        VlfleetError: without those that are `going` nobody would be in rotation any more.
    """
    names = {replica.name for replica in going}
    serving = [replica.name for replica in replicas if replica.in_rotation]
    if serving and names.issuperset(serving):
        them, are = ("it", "is the only replica") if len(serving) == 1 else ("them", "are the only replicas")
        remedy = f"--force cordons {them} all the same; requests are refused meanwhile"
        raise VlfleetError(f"{' '.join(serving)} {are} in rotation", remedy)


async def drained(
    going: Sequence[Replica], timeout_seconds: float, serving: Callable[[], bool]
) -> AsyncIterator[Event]:
    """Waits until these replicas, which are cordoned, have no request. Tells of each how many it has, once a second,
    and when it has none any more: {"event": "draining" | "drained", "replica": "r0", ...}.

    Raises:
        VlfleetError: the time is over; one was put back meanwhile; the fleet is not `serving` any more.
    """
    left, told_at, began = list(going), -math.inf, time.monotonic()
    while True:
        now = time.monotonic()
        tells = now - told_at >= _TELL_SECONDS
        told_at = now if tells else told_at
        for replica in tuple(left):
            if not replica.in_flight:
                left.remove(replica)
                yield {"event": "drained", "replica": replica.name}
            elif tells:
                yield {"event": "draining", "replica": replica.name, "in_flight": replica.in_flight}
        if not left:
            return
        _check(left, now - began, timeout_seconds, serving=serving())
        await asyncio.sleep(_POLL_SECONDS)


def _check(left: Sequence[Replica], waited_seconds: float, timeout_seconds: float, *, serving: bool) -> None:
    """
    Raises:
        VlfleetError: there is nothing to wait for any more.
    """
    if not serving:
        raise VlfleetError("the fleet is shutting down", "start it again with `vlfleet up`")
    if back := next((replica.name for replica in left if not replica.cordoned), ""):
        raise VlfleetError(f"{back} was put back into rotation meanwhile", f"`vlfleet drain {back}` begins anew")
    if waited_seconds > timeout_seconds:
        name, count = left[0].name, sum(replica.in_flight for replica in left)
        names = " ".join(replica.name for replica in left)
        cause = f"after {timeout_seconds:g} s {names} still had {count} request{'s' * (count != 1)} in flight"
        remedy = f"`vlfleet drain {name}` waits on, `vlfleet restart --replica {name} --drain-timeout 0` cuts them"
        raise VlfleetError(cause, remedy, ExitCode.UNHEALTHY)
