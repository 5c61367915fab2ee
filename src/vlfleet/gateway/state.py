"""What the handlers of one gateway share."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import aiohttp
from aiohttp import web

from vlfleet.families.family import QWEN2_5_VL
from vlfleet.fleet.replica import Phase, Replica
from vlfleet.gateway.admission import Limits
from vlfleet.gateway.metrics import Metrics
from vlfleet.gateway.retries import RetryBudget, Suspects
from vlfleet.gateway.route.features import Features
from vlfleet.gateway.route.mirror import capacities_of
from vlfleet.gateway.route.router import Decision, Router
from vlfleet.media import Namer, Store, Vision
from vlfleet.media.fetch import Fetcher
from vlfleet.media.identity import SECRET_BYTES

if TYPE_CHECKING:
    from vlfleet.gateway.upstream import Exchange


@dataclass(frozen=True)
class EngineMedia:
    """How the fleet's engines see media."""

    vision: Vision = field(default_factory=lambda: Vision.of(QWEN2_5_VL))
    mm_processor_cache_gb: float = 0.0
    """Of each replica. 0: its engine takes no names for media, or forgets them at once."""


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
    media: EngineMedia = field(default_factory=EngineMedia)
    router: Router = field(default_factory=Router)
    namer: Namer = field(default_factory=lambda: Namer(secrets.token_bytes(SECRET_BYTES)))
    """Its secret is as old as this gateway: what engines hold from before is looked at once more."""
    store: Store = field(default_factory=Store)
    """Of uploads."""
    fetcher: Fetcher | None = None
    """None: URLs are refused."""
    lives: dict[str, float] = field(default_factory=dict)
    """Of each replica that the router knows: when the process was started that it knows."""
    started_at: float = field(default_factory=time.time)

    def ready(self, tried: Collection[str]) -> list[Replica]:
        """The replicas for the next try; those that were just unreachable only when there is no other."""
        left = [each for each in self.replicas if each.phase is Phase.READY and each.name not in tried]
        doubtful = self.suspects.at(time.monotonic())
        return [each for each in left if each.name not in doubtful] or left

    def decide(self, request: Features, tried: Collection[str]) -> tuple[Replica, Decision] | None:
        """Where a request goes now, and why; None when no replica is left."""
        ready = {replica.name: replica for replica in self.ready(tried)}
        for replica in ready.values():
            if self.lives.get(replica.name) != replica.started_at:
                self.lives[replica.name] = replica.started_at
                capacities = capacities_of(replica.decisions, self.media.mm_processor_cache_gb)
                self.router.started(replica.name, capacities)
        decision = self.router.decide(request, time.monotonic(), list(ready))
        return (ready[decision.replica], decision) if decision else None

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
