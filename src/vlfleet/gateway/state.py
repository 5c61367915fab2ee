"""What the handlers of one gateway share."""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from aiohttp import web

from vlfleet.families.family import QWEN2_5_VL
from vlfleet.fleet.replica import Replica
from vlfleet.gateway.admission import Limits
from vlfleet.gateway.engine_pages import EnginePages
from vlfleet.gateway.metrics import Metrics
from vlfleet.gateway.pool import Pool
from vlfleet.gateway.retries import RetryBudget, Suspects
from vlfleet.gateway.route.cost import Coefficients
from vlfleet.gateway.route.features import Features
from vlfleet.gateway.route.gate import Gate
from vlfleet.gateway.route.mirror import capacities_of
from vlfleet.gateway.route.pauses import Pauses
from vlfleet.gateway.route.router import Decision, Router
from vlfleet.media import Namer, Store, Vision
from vlfleet.media.fetch import Fetcher
from vlfleet.media.identity import SECRET_BYTES

if TYPE_CHECKING:
    from vlfleet.gateway.exchange import Exchange
    from vlfleet.gateway.traces import Traces
    from vlfleet.media.fit import Fit, Fitter


@dataclass(frozen=True)
class EngineMedia:
    """How the fleet's engines see media."""

    vision: Vision = field(default_factory=lambda: Vision.of(QWEN2_5_VL))
    mm_processor_cache_gb: float = 0.0
    """Of each replica. 0: its engine needs the data of every medium of every request."""
    fit: Fit | None = None
    """Pictures go on at the size at which the model sees them. None: as they came."""
    seed: Coefficients = field(default_factory=Coefficients)
    """What is known of their speed before they have answered anything."""


@dataclass
class Gateway:
    """One gateway: its replicas (the supervisor's own list), its limits, and what it learnt of the last seconds."""

    replicas: Sequence[Replica]
    served_model_name: str
    on_unreachable: Callable[[Replica], None]
    draining: asyncio.Event
    limits: Limits
    metrics: Metrics
    pool: Pool
    """Of connections to the replicas."""
    budget: RetryBudget = field(default_factory=RetryBudget)
    suspects: Suspects = field(default_factory=Suspects)
    pauses: Pauses = field(default_factory=Pauses)
    pages: EnginePages = field(init=False)
    """What the engines say of themselves."""
    traces: Traces | None = None
    """None: requests become no spans."""
    also: Callable[[], bytes] | None = None
    """What else is told on /metrics."""
    gate: Gate = field(init=False)
    waiting: set[Exchange] = field(default_factory=set)
    """Requests that a replica has and of whose answer nothing has reached the client."""
    flights: dict[Exchange, None] = field(default_factory=dict)
    """Requests that wait for a replica or have one, the oldest first."""
    media: EngineMedia = field(default_factory=EngineMedia)
    router: Router = field(default_factory=Router)
    fitter: Fitter | None = None
    """None: pictures go on as they came."""
    namer: Namer = field(default_factory=lambda: Namer(secrets.token_bytes(SECRET_BYTES)))
    store: Store = field(default_factory=Store)
    """Of uploads."""
    fetcher: Fetcher | None = None
    """None: URLs are refused."""
    lives: dict[str, float] = field(default_factory=dict)
    """Of each replica that the router knows: when the process was started that it knows."""
    mourned: dict[str, float] = field(default_factory=dict)
    """Of each replica: the life of which a connection has failed."""
    started_at: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        self.gate = Gate(self.room, lambda: self.router.backlog_seconds(time.monotonic()), len(self.replicas))
        self.pages = EnginePages(self.replicas, self.pool)
        self.metrics.watch(self.router, self.gate)

    def ready(self, tried: Collection[str] = ()) -> list[Replica]:
        """The replicas for the next try, without those that asked for a pause; those that were just unreachable only
        when there is no other."""
        now = time.monotonic()
        paused, doubtful = self.pauses.at(now), self.suspects.at(now)
        left = [
            each for each in self.replicas if each.in_rotation and each.name not in tried and each.name not in paused
        ]
        for replica in left:
            if self.lives.get(replica.name) != replica.started_at:
                self.lives[replica.name] = replica.started_at
                capacities = capacities_of(replica.decisions, self.media.mm_processor_cache_gb)
                self.router.started(replica.name, capacities, self.seed_of(replica))
        return ([each for each in left if each.name not in doubtful] or left) if doubtful else left

    def seed_of(self, replica: Replica) -> Coefficients:
        """What is known of its speed before it has answered anything."""
        slots = replica.decisions.get("max_num_seqs")
        return replace(self.media.seed, slots=slots) if isinstance(slots, int) and slots > 0 else self.media.seed

    def room(self) -> bool:
        """Whether another request may be sent now."""
        return self.router.room([replica.name for replica in self.ready()], time.monotonic())

    def decide(self, request: Features, tried: Collection[str] = ()) -> tuple[Replica, Decision] | None:
        """Where a request goes now, and why; None when no replica is left."""
        ready = {replica.name: replica for replica in self.ready(tried)}
        decision = self.router.decide(request, time.monotonic(), list(ready))
        return (ready[decision.replica], decision) if decision else None

    def estimate(self, request: Features, *, streams: bool) -> tuple[float, float]:
        """Seconds, as predicted now: what it would take of the fleet; and from when a replica begins with it until its
        client hears something. Zeros when no replica is left."""
        found = self.router.estimate(request, [replica.name for replica in self.ready()], time.monotonic())
        if found is None:
            return 0.0, 0.0
        seconds, terms = found
        return seconds, terms.work if streams else terms.work + terms.decode

    def pause(self, replica: Replica, seconds: float) -> None:
        """It asked to be left alone for so long."""
        self.pauses.add(replica.name, seconds, time.monotonic())

    def pause_seconds(self) -> int:
        """Until the first replica that asked for a pause may be asked again: whole seconds, at least one."""
        pauses = self.pauses.at(time.monotonic())
        return max(1, math.ceil(min(pauses.values()))) if pauses else 1

    def report_unreachable(self, replica: Replica) -> None:
        """A connection to it failed, and it may be dead. What it held may be asked elsewhere, once in each of its
        lives, whatever the budget for retries says: it asks nothing more of the fleet than there was before."""
        if self.mourned.get(replica.name) != replica.started_at:
            self.mourned[replica.name] = replica.started_at
            self.budget.grant(replica.in_flight)
        self.suspects.add(replica.name, time.monotonic())
        self.on_unreachable(replica)


@dataclass(eq=False)
class charge:  # noqa: N801  (a context manager, as those of contextlib)
    """Counts a request on its replica for as long as it runs there."""

    replica: Replica
    work: float

    def __enter__(self) -> None:
        self.replica.in_flight += 1
        self.replica.outstanding_work += self.work

    def __exit__(self, *_: object) -> None:
        replica = self.replica
        replica.in_flight -= 1
        # Sums of floats keep a rest; an idle replica must be as idle as the next one.
        replica.outstanding_work = replica.outstanding_work - self.work if replica.in_flight else 0.0


GATEWAY = web.AppKey("gateway", Gateway)
