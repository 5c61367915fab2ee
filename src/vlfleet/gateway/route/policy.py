"""Which replica a request goes to, of those that may have it. Pure."""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from vlfleet.gateway.route.cost import Terms

CARE = 1.0
"""Seconds that a request makes a replica work, counted once more for each other request there, up to `MOST_CARE`:
they, or who comes after them, wait that long."""
MOST_CARE = 4.0
LOAD_BOUND = 1.25
"""`sticky`: a session stays with its replica until that has this many times the mean of requests in flight (Mirrokni,
Thorup and Zadimoghaddam, Consistent Hashing with Bounded Loads, 2016; KubeAI's and HAProxy's default)."""
_EQUAL = 1e-9


class Policy(enum.StrEnum):
    """How a replica is chosen."""

    PREDICTED = "predicted"
    ROUND_ROBIN = "round_robin"
    LEAST_CONNECTIONS = "least_connections"
    WEIGHTED = "weighted"
    """The share of each is its weight."""
    STICKY = "sticky"
    """A session stays where it began; without one, as `predicted`."""


@dataclass(frozen=True)
class Candidate:
    """One replica, for one request."""

    name: str
    terms: Terms
    in_flight: int = 0
    served: float = 0.0
    """Requests sent there so far."""
    weight: float = 1.0

    @property
    def price(self) -> float:
        """Seconds: its own, and what it costs the others."""
        return self.terms.total + min(MOST_CARE, CARE * self.in_flight) * self.terms.work


def choose(policy: Policy, candidates: Sequence[Candidate], turn: int = 0, session: str = "") -> Candidate:
    """The one that gets the request; `candidates` must not be empty. Equals take turns, as the caller counts `turn` up.

    `weighted` depends on `served` only, so it is exact over any number of requests.
    """
    start = turn % len(candidates)
    rotated = [*candidates[start:], *candidates[:start]]
    match policy:
        case Policy.ROUND_ROBIN:
            return rotated[0]
        case Policy.LEAST_CONNECTIONS:
            return min(rotated, key=lambda each: each.in_flight)
        case Policy.WEIGHTED:
            return min(rotated, key=lambda each: (each.served + 1) / max(each.weight, _EQUAL))
        case Policy.STICKY if session:
            return _sticky(candidates, session)
        case _:
            return _cheapest(rotated)


def _cheapest(rotated: Sequence[Candidate]) -> Candidate:
    best, least = rotated[0], rotated[0].price
    for each in rotated[1:]:
        price = each.price
        if price < least - _EQUAL:
            best, least = each, price
    return best


def _sticky(candidates: Sequence[Candidate], session: str) -> Candidate:
    """Rendezvous hashing: a replica that comes or goes moves only its own sessions."""
    bound = LOAD_BOUND * (sum(each.in_flight for each in candidates) + 1) / len(candidates)
    ordered = sorted(candidates, key=lambda each: _affinity(session, each.name), reverse=True)
    return next((each for each in ordered if each.in_flight < max(1.0, bound)), ordered[0])


def _affinity(session: str, name: str) -> bytes:
    return hashlib.blake2b(f"{session}\0{name}".encode(), digest_size=8).digest()
