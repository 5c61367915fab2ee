"""How often a replica learns: from every answer while they are few, from some of them when they are many."""

from __future__ import annotations

import pytest

from vlfleet.gateway.route import Capacities, Router, features
from vlfleet.gateway.route.tracker import LESSONS_A_SECOND, MOST_LESSONS

REQUEST = features([b"what is this?" * 40], 64)


def observations(answers: int, apart_seconds: float, *, streams: bool) -> int:
    router, now = Router(), 1000.0
    router.started("r0", Capacities(0.0))
    for _ in range(answers):
        decision = router.decide(REQUEST, now, ["r0"])
        assert decision is not None
        job = router.sent(REQUEST, decision, now, streams=streams)
        if streams:
            router.first_token("r0", job, now + apart_seconds / 4)
        router.finished("r0", job, now + apart_seconds / 2, 64)
        now += apart_seconds
    return router.trackers["r0"].learner.observations


def test_every_answer_counts_at_the_pace_of_a_replica() -> None:
    assert observations(200, 0.02, streams=False) == 200
    assert observations(200, 0.02, streams=True) >= 399  # a first token and its answer; the last batch may still grow


@pytest.mark.parametrize("streams", [False, True])
def test_of_thousands_in_a_second_a_share_is_enough(streams: bool) -> None:
    seen = observations(4000, 0.0005, streams=streams)
    assert seen == pytest.approx(MOST_LESSONS + 2 * LESSONS_A_SECOND, abs=3)
