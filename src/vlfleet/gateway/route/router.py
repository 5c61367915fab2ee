"""The route: where each request goes, why, and what its answer teaches. Pure; the shell tells the time."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vlfleet.gateway.route.answers import Answers
from vlfleet.gateway.route.correction import Seen, counters
from vlfleet.gateway.route.cost import Coefficients, Terms
from vlfleet.gateway.route.features import Features
from vlfleet.gateway.route.learn import Fleet
from vlfleet.gateway.route.mirror import Capacities
from vlfleet.gateway.route.policy import Candidate, Policy, choose
from vlfleet.gateway.route.tracker import Job, Tracker


@dataclass(frozen=True)
class Decision:
    """A replica for one request, and what it would have cost on each."""

    policy: Policy
    replica: str
    terms: Terms
    candidates: tuple[Candidate, ...]
    omit: frozenset[str] = frozenset()
    """Keys of media that it holds: the request may name them without their data."""


def explain(decision: Decision) -> dict[str, Any]:
    """The decision as JSON has it: `replica`, each term in seconds, and the other replicas with theirs."""
    return {
        "replica": decision.replica,
        "policy": decision.policy.value,
        **decision.terms.as_dict(),
        "omitted_media": len(decision.omit),
        "candidates": {
            each.name: {**each.terms.as_dict(), "in_flight": each.in_flight} for each in decision.candidates
        },
    }


_LEAST_WEIGHT = 1e-3
_NOTHING: frozenset[str] = frozenset()


@dataclass
class Looks:
    """Media of the requests sent to one replica, by what its vision tower has to do."""

    needed: int = 0
    """No replica holds what it would make of them."""
    repeated: int = 0
    """Another replica holds that already."""
    avoided: int = 0
    """This one does."""


class Router:
    """The replicas, by name, as far as requests were sent to them through here."""

    def __init__(self, policy: Policy = Policy.PREDICTED) -> None:
        self.policy = policy
        self._trackers: dict[str, Tracker] = {}
        self._fleet = Fleet()
        self._answers = Answers()
        self._weights: dict[str, float] = {}
        self._served: dict[str, int] = {}
        self._turn = 0
        self.looks: dict[str, Looks] = {}
        """Of each replica, since the gateway began."""

    def started(self, name: str, capacities: Capacities, seed: Coefficients | None = None, weight: float = 1.0) -> None:
        """A replica, or a new process of one that was there before: it holds nothing, and is as fast as it was."""
        tracker = self._trackers.get(name)
        if tracker is None:
            self._trackers[name] = Tracker(name, capacities, seed or Coefficients(), self._fleet, self._answers)
            self.looks[name] = Looks()
        else:
            tracker.restarted(capacities)
        # One that comes later is not owed the requests of the time before.
        shares = [served / self._weights[other] for other, served in self._served.items() if other != name]
        self._weights[name] = max(weight, _LEAST_WEIGHT)
        self._served.setdefault(name, int(min(shares, default=0.0) * weight))

    def decide(
        self, request: Features, now: float, ready: Sequence[str], exclude: Collection[str] = ()
    ) -> Decision | None:
        """Where `request` should go now; None when no ready replica is left. Changes nothing but the turn.

        `exclude`: replicas that had it already, or could not be reached.
        """
        known = [name for name in ready if name in self._trackers and name not in exclude]
        candidates = tuple([self._candidate(name, request, now) for name in known])
        if not candidates:
            return None
        chosen = choose(self.policy, candidates, self._turn, request.session)
        self._turn += 1
        mirror = self._trackers[chosen.name].mirror
        media = request.media
        omit = frozenset([each.medium.key for each in media if mirror.may_omit(each.medium.key)]) if media else _NOTHING
        return Decision(self.policy, chosen.name, chosen.terms, candidates, omit)

    def room(self, ready: Iterable[str], now: float) -> bool:
        """Whether one of `ready` should get another request now, and not later."""
        return any(self._trackers[name].room(now) for name in ready if name in self._trackers)

    def estimate(self, request: Features, ready: Iterable[str], now: float) -> tuple[float, Terms] | None:
        """What `request` takes from others on the replica where it takes least (of decoding, its share), and its terms
        there; None when there is no replica."""
        found = []
        for tracker in (self._trackers[name] for name in ready if name in self._trackers):
            _, terms = tracker.predict(request, now)
            found.append((terms.work + terms.decode / tracker.learner.coefficients.slots, terms))
        return min(found, default=None)

    def backlog_seconds(self, now: float) -> float:
        """Predicted work on prompts that the replicas have, all together."""
        loads = (tracker.load(now) for tracker in self._trackers.values())
        return sum(load.preprocess_seconds + load.engine_seconds for load in loads)

    def sent(self, request: Features, decision: Decision, now: float, *, streams: bool = True) -> Job:
        """The request goes out, as decided. Whatever happens, `finished` or `failed` of this job must follow."""
        name = decision.replica
        self._served[name] += 1
        job = self._trackers[name].sent(request, decision.terms, now, streams=streams)
        if request.media:
            self._count_looks(name, request, job)
        return job

    def _count_looks(self, name: str, request: Features, job: Job) -> None:
        looks, looked_at = self.looks[name], {medium.key for medium in job.visit.looked_at}
        for placed in request.different_media:
            key = placed.medium.key
            if key not in looked_at:
                looks.avoided += 1
            elif any(key in each.mirror.encoder for other, each in self._trackers.items() if other != name):
                looks.repeated += 1
            else:
                looks.needed += 1

    def first_token(self, name: str, job: Job, now: float) -> None:
        """The first byte of an answer came."""
        if name in self._trackers:
            self._trackers[name].first_token(job, now)

    def finished(self, name: str, job: Job, now: float, answer_tokens: int | None = None) -> None:
        """The answer is complete."""
        if name in self._trackers:
            self._trackers[name].finished(job, now, answer_tokens)

    def failed(self, name: str, job: Job, now: float, *, missed: bool = False) -> None:
        """There was no answer, or not all of it. `missed`: the engine answered that it lacks a medium."""
        if name in self._trackers:
            self._trackers[name].failed(job, now, missed=missed)

    def scraped(self, name: str, metrics: str) -> Seen:
        """Compares the mirror with the text of the replica's /metrics."""
        return self._trackers[name].correction.look(counters(metrics))

    @property
    def trackers(self) -> Mapping[str, Tracker]:
        """Of every replica that was started, by name."""
        return self._trackers

    def _candidate(self, name: str, request: Features, now: float) -> Candidate:
        tracker = self._trackers[name]
        left, terms = tracker.predict(request, now)
        work = left.preprocess_tokens + left.vision_tokens + left.prefill_tokens
        in_flight = tracker.in_flight
        tokens = self._answers.expected(request.answer_tokens)
        shared = tokens * in_flight * tracker.learner.coefficients.sequence_seconds
        return Candidate(name, terms, in_flight, self._served[name], self._weights[name], work, shared)
