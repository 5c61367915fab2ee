"""What can be seen of requests on their way, and what that costs."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any, cast

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.gateway.rig import hello, rig, until
from tests.gateway.test_media_route import MEDIA, about, ask, picture
from vlfleet.gateway.exchange import Exchange
from vlfleet.gateway.flights import in_hand, why
from vlfleet.gateway.route.cost import Terms
from vlfleet.gateway.route.policy import Candidate, Policy
from vlfleet.gateway.route.router import Decision
from vlfleet.watch.glance import Flight

SECRET = "the-words-of-a-prompt"


def terms(queue: float = 0.0, preprocess: float = 0.0, vision: float = 0.0, prefill: float = 0.1) -> Terms:
    return Terms(queue, preprocess, vision, prefill, 1.0, queue + preprocess + vision + prefill + 1.0)


def decision(mine: Terms, *theirs: Terms, policy: Policy = Policy.PREDICTED) -> Decision:
    all_terms = (mine, *theirs)
    return Decision(policy, "r0", mine, tuple(Candidate(f"r{n}", each) for n, each in enumerate(all_terms)))


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (decision(terms()), "the only one"),
        (decision(terms(), terms()), "all alike"),
        (decision(terms(queue=0.2), terms(preprocess=0.5, vision=0.2)), "holds it"),
        (decision(terms(), terms(prefill=0.9)), "knows its beginning"),
        (decision(terms(), terms(queue=3), terms(queue=0.5)), "waits least"),
        (decision(terms(queue=0.5), terms()), "best for all"),
        (decision(terms(), terms(), policy=Policy.ROUND_ROBIN), "its turn"),
        (decision(terms(), terms(), policy=Policy.LEAST_CONNECTIONS), "fewest requests"),
        (decision(terms(), terms(), policy=Policy.WEIGHTED), "its share"),
    ],
)
def test_why(made: Decision, reason: str) -> None:
    assert why(made) == reason


def test_why_of_a_session() -> None:
    made = decision(terms(), terms(queue=9), policy=Policy.STICKY)
    assert (why(made, "a"), why(made)) == ("its session", "waits least")


@given(st.lists(st.builds(terms, *[st.floats(0, 100)] * 4), min_size=1, max_size=5))
def test_there_is_always_a_reason(each: list[Terms]) -> None:
    assert why(decision(each[0], *each[1:]))


async def test_a_stream_from_its_queue_to_its_end() -> None:
    async with rig(1) as made:
        engine = made.engines[0]
        engine.behaviour.prefill_seconds, engine.behaviour.token_seconds = 0.3, 0.05
        headers = {"X-Request-Id": "one"}
        body = {**hello(SECRET), "stream": True}
        asked = asyncio.create_task(ask(made, body, **headers))
        await until(lambda: made.gateway.flights)
        sent = flights(made)[0]
        assert (sent.id, sent.replica, sent.state, sent.tokens, sent.route) == ("one", "r0", "sent", 0, "the only one")
        await until(lambda: flights(made)[0].state == "streaming")
        first = flights(made)[0]
        assert first.tokens >= 1
        assert first.seconds >= 0.3
        assert first.predicted_seconds
        await until(lambda: flights(made)[0].tokens > first.tokens)
        assert SECRET not in str(flights(made))
        await asked
        assert in_hand(made.gateway).total == 0


async def test_media_and_what_is_held() -> None:
    async with rig(1, media=MEDIA) as made:
        await ask(made, about(picture(1), picture(2)))
        resident = in_hand(made.gateway).media_resident
        assert resident == {"r0": 2}
        made.engines[0].faults.fault = "hang"
        asked = asyncio.create_task(ask(made, about(picture(1), picture(2), picture(3), text=SECRET)))
        await until(lambda: flights(made) and flights(made)[0].replica)
        hand = in_hand(made.gateway)
        (flight,) = hand.oldest
        assert (flight.images, flight.held, flight.visual_tokens) == (3, 2, 3 * 1369)
        assert hand.visual_tokens == {"r0": 3 * 1369}
        assert not {SECRET, "data:image"} & set(str(hand).split())
        asked.cancel()
        await until(lambda: not made.gateway.flights)
        assert in_hand(made.gateway).visual_tokens == {}


async def test_one_that_waits_for_a_replica_is_queued() -> None:
    async with rig(1) as made:
        made.engines[0].faults.fault = "hang"
        made.replicas[0].decisions["max_num_seqs"] = 4
        asked = [asyncio.create_task(ask(made, hello(f"{n}"))) for n in range(40)]
        await until(lambda: len(made.gateway.flights) == 40)
        queued = [each for each in flights(made) if each.state == "queued"]
        assert len(queued) == len(made.gateway.gate.queue) > 0
        assert {(each.replica, each.predicted_seconds, each.route) for each in queued} == {("", None, "")}
        ages = [each.seconds for each in flights(made)]
        assert ages == sorted(ages, reverse=True)
        assert len(in_hand(made.gateway, most=3).oldest) == 3
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        await until(lambda: not made.gateway.flights)


async def test_a_second_try_and_refusals_leave_nothing() -> None:
    async with rig(2) as made:
        for engine in made.engines:
            engine.faults.fault, engine.faults.times = "reset", 1
        async with made.chat() as answer:
            assert answer.status in (200, 502)
        async with made.chat(model="other") as answer:
            assert answer.status == 404
        assert not made.gateway.flights


async def test_being_seen_costs_a_request_less_than_five_microseconds(capsys: pytest.CaptureFixture[str]) -> None:
    """All that a request pays for being seen, whether or not somebody looks: one entry made, one removed. The bound is
    what was asked for; the number is printed."""
    async with rig(1) as made:
        exchange = cast(Exchange, object())
        kept, rounds = made.gateway.flights, 100_000
        for other in range(500):
            kept[cast(Exchange, other)] = None
        began = time.process_time()
        for _ in range(rounds):
            kept[exchange] = None
            del kept[exchange]
        cost = (time.process_time() - began) / rounds
        kept.clear()
    with capsys.disabled():
        print(f"\nregistry of requests: {cost * 1e9:.0f} ns of CPU a request")
    assert cost < 5e-6


async def test_looking_at_ten_thousand(capsys: pytest.CaptureFixture[str]) -> None:
    async with rig(1, media=MEDIA) as made:
        made.engines[0].faults.fault = "hang"
        asked = asyncio.create_task(ask(made, about(picture(1))))
        await until(lambda: flights(made) and flights(made)[0].replica)
        (one,) = made.gateway.flights
        for _ in range(9_999):
            made.gateway.flights[replace(one)] = None
        began = time.process_time()
        hand = in_hand(made.gateway)
        text = orjson.dumps(hand.oldest)
        cost = time.process_time() - began
        for each in list(made.gateway.flights)[1:]:
            del made.gateway.flights[each]
        asked.cancel()
        await until(lambda: not made.gateway.flights)
    with capsys.disabled():
        print(f"\n10,000 requests in flight: {cost * 1000:.1f} ms of CPU a look, {len(text) / 1024:.0f} KiB")
    assert (hand.total, len(hand.oldest), hand.visual_tokens) == (10_000, 100, {"r0": 10_000 * 1369})
    assert cost < 0.5


def flights(made: Any) -> list[Flight]:
    return list(in_hand(made.gateway).oldest)
