"""Requests that are on their way through the gateway, for whoever looks. Nothing is made of them before somebody does,
and nothing of what they say is told."""

from __future__ import annotations

import time
from collections import Counter
from itertools import islice

from vlfleet.gateway.exchange import REQUEST_ID, Exchange
from vlfleet.gateway.route.policy import SAME, Candidate, Policy
from vlfleet.gateway.route.router import Decision
from vlfleet.gateway.state import Gateway
from vlfleet.watch.glance import MOST_REQUESTS, Flight, InHand


def in_hand(gateway: Gateway, most: int = MOST_REQUESTS) -> InHand:
    """What `gateway` has to do now, with its oldest requests one by one."""
    now, tokens = time.perf_counter(), Counter[str]()
    for exchange in gateway.flights:
        if exchange.visit and exchange.ask.media:
            tokens[exchange.visit.decision.replica] += exchange.ask.features.visual_tokens
    return InHand(
        len(gateway.flights),
        [_flight(each, now) for each in islice(gateway.flights, most)],
        tokens,
        {name: len(tracker.mirror.processor) for name, tracker in gateway.router.trackers.items()},
    )


def _flight(exchange: Exchange, now: float) -> Flight:
    ask, visit = exchange.ask, exchange.visit
    tokens = visit.tokens if visit and ask.stream else 0
    return Flight(
        id=exchange.request[REQUEST_ID],
        replica=visit.decision.replica if visit else "",
        state="queued" if visit is None else "streaming" if tokens else "sent",
        seconds=now - exchange.started,
        images=ask.pictures,
        visual_tokens=ask.features.visual_tokens,
        held=sum(each.uuid in visit.decision.omit for each in ask.media) if visit else 0,
        predicted_seconds=visit.decision.terms.total if visit else None,
        tokens=tokens,
        route=_route(exchange, visit.decision) if visit else "",
    )


def _route(exchange: Exchange, decision: Decision) -> str:
    if len(exchange.tried) > 1:
        return "second try"
    return why(decision, exchange.ask.features.session)


_BY_POLICY = {
    Policy.ROUND_ROBIN: "its turn",
    Policy.LEAST_CONNECTIONS: "fewest requests",
    Policy.WEIGHTED: "its share",
}


def why(decision: Decision, session: str = "") -> str:
    """Why this replica, in a few words: the term in which it beats the next best one."""
    others = [each for each in decision.candidates if each.name != decision.replica]
    if not others:
        return "the only one"
    if decision.policy in _BY_POLICY:
        return _BY_POLICY[decision.policy]
    if decision.policy is Policy.STICKY and session:
        return "its session"
    return _saved(decision, min(others, key=lambda each: each.terms.total))


def _saved(decision: Decision, other: Candidate) -> str:
    mine, theirs = decision.terms, other.terms
    savings = {
        "holds it": theirs.preprocess + theirs.vision - mine.preprocess - mine.vision,
        "knows its beginning": theirs.prefill - mine.prefill,
        "waits least": theirs.queue - mine.queue,
        "decodes least": theirs.decode - mine.decode,
    }
    reason, seconds = max(savings.items(), key=lambda item: item[1])
    if seconds > SAME * mine.total:
        return reason
    return "all alike" if abs(theirs.total - mine.total) <= SAME * max(mine.total, theirs.total) else "best for all"
