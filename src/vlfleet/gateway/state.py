"""What the handlers of one gateway share."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import aiohttp
from aiohttp import web

from vlfleet.fleet.replica import Replica
from vlfleet.gateway.admission import Limits
from vlfleet.gateway.metrics import Metrics
from vlfleet.gateway.retries import RetryBudget, Suspects
from vlfleet.gateway.routing import choose

if TYPE_CHECKING:
    from vlfleet.gateway.upstream import Exchange


@dataclass
class Gateway:
    """One gateway: its replicas (the supervisor's own list), its limits, and what it learnt of the last seconds."""

    replicas: Sequence[Replica]
    served_model_name: str
    on_unreachable: Callable[[Replica], None]
    draining: asyncio.Event
    limits: Limits
    metrics: Metrics
    session: aiohttp.ClientSession
    budget: RetryBudget = field(default_factory=RetryBudget)
    suspects: Suspects = field(default_factory=Suspects)
    waiting: set[Exchange] = field(default_factory=set)
    """Requests that a replica has and of whose answer nothing has reached the client."""
    turns: Iterator[int] = field(default_factory=itertools.count)
    started_at: float = field(default_factory=time.time)

    def choose(self, tried: Collection[str]) -> Replica | None:
        """The replica for the next try; one that was just unreachable only when there is no other."""
        turn = next(self.turns)
        doubtful = self.suspects.at(time.monotonic())
        return choose(self.replicas, {*tried, *doubtful}, turn) or choose(self.replicas, tried, turn)

    def report_unreachable(self, replica: Replica) -> None:
        self.suspects.add(replica.name, time.monotonic())
        self.on_unreachable(replica)


@contextmanager
def charge(replica: Replica, work: float) -> Iterator[None]:
    """Counts a request on its replica for as long as it runs there."""
    replica.in_flight += 1
    replica.outstanding_work += work
    try:
        yield
    finally:
        replica.in_flight -= 1
        # Sums of floats keep a rest; an idle replica must be as idle as the next one.
        replica.outstanding_work = replica.outstanding_work - work if replica.in_flight else 0.0


GATEWAY = web.AppKey("gateway", Gateway)
