"""Which replica a request goes to, of those that may have it. Pure."""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from vlfleet.gateway.route.cost import Terms

MOST_OTHERS = 8.0
"""Seconds that a request makes a replica work are counted once more for each other request there, up to so many: they
wait that long. More is better for the mean and for a slow replica, and lets large requests wait (p95)."""
WASTE, MOST_WASTE = 3.0, 4.0
"""Work that another replica would not have to do is counted so many times for each request in flight at a replica on
average, up to `MOST_WASTE`: who comes later pays for it. Without, an image is looked at by whoever is free (hits 0.68
where hand-fed affinity has 0.73); with a `MOST_WASTE` of 8, one hot image on four replicas is answered 168 times a
second instead of 209 (all by benchmarks/route_simulation.py)."""
LOAD_BOUND = 1.25
"""`sticky`: a session stays with its replica until that has this many times the mean of requests in flight (Mirrokni,
Thorup and Zadimoghaddam, Consistent Hashing with Bounded Loads, 2016; KubeAI's and HAProxy's default)."""
SAME = 0.03
"""Prices that differ by less are equal: what is learned of equal replicas differs as much."""
_LEAST_WEIGHT = 1e-9


class Policy(enum.StrEnum):
    """How a replica is chosen."""

    PREDICTED = "predicted"
    ROUND_ROBIN = "round_robin"
    LEAST_CONNECTIONS = "least_connections"
    WEIGHTED = "weighted"
    """The share of each is its weight."""
    STICKY = "sticky"
    """A session stays where it began; without one, as `predicted`."""


class Candidate(NamedTuple):
    """One replica, for one request."""

    name: str
    terms: Terms
    in_flight: int = 0
    served: float = 0.0
    """Requests sent there so far."""
    weight: float = 1.0
    left_tokens: int = 0
    """Of every kind of work, that it would have to do."""
    shared_seconds: float = 0.0
    """Of decoding, those that are there because others decode as well; they lose as much by this request."""

    def price(self, mean_in_flight: float, least_tokens: int) -> float:
        """Seconds: its own, what it costs those who are there, and those who come."""
        wasted = self.terms.work * (1 - least_tokens / self.left_tokens) if self.left_tokens else 0.0
        return (
            self.terms.total
            + self.shared_seconds
            + min(MOST_OTHERS, self.in_flight) * self.terms.work
            + min(MOST_WASTE, WASTE * mean_in_flight) * wasted
        )


def choose(policy: Policy, candidates: Sequence[Candidate], turn: int = 0, session: str = "") -> Candidate:
    """The one that gets the request; `candidates` must not be empty. Equals take turns, as the caller counts `turn` up.

    `weighted` depends on `served` only, so it is exact over any number of requests.
    """
    if len(candidates) == 1:
        return candidates[0]
    start = turn % len(candidates)
    rotated = [*candidates[start:], *candidates[:start]]
    match policy:
        case Policy.ROUND_ROBIN:
            return rotated[0]
        case Policy.LEAST_CONNECTIONS:
            return min(rotated, key=lambda each: each.in_flight)
        case Policy.WEIGHTED:
            return min(rotated, key=lambda each: (each.served + 1) / max(each.weight, _LEAST_WEIGHT))
        case Policy.STICKY if session:
            return _sticky(candidates, session)
        case _:
            return _cheapest(rotated)


def _cheapest(rotated: Sequence[Candidate]) -> Candidate:
    mean = sum(each.in_flight for each in rotated) / len(rotated)
    fewest = min(each.left_tokens for each in rotated)
    prices = [each.price(mean, fewest) for each in rotated]
    most = min(prices) * (1 + SAME)
    return next(each for each, price in zip(rotated, prices, strict=True) if price <= most)


def _sticky(candidates: Sequence[Candidate], session: str) -> Candidate:
    """Rendezvous hashing: a replica that comes or goes moves only its own sessions."""
    bound = LOAD_BOUND * (sum(each.in_flight for each in candidates) + 1) / len(candidates)
    ordered = sorted(candidates, key=lambda each: _affinity(session, each.name), reverse=True)
    return next((each for each in ordered if each.in_flight < max(1.0, bound)), ordered[0])


def _affinity(session: str, name: str) -> bytes:
    return hashlib.blake2b(f"{session}\0{name}".encode(), digest_size=8).digest()
