"""The questions that are put to a replica."""

from __future__ import annotations

import asyncio
import resource

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import engine as fake
from tests.fakes import replies
from vlfleet.fleet.health import Answer, Health, canary, count, open_session, probe, total
from vlfleet.fleet.life import new_replica
from vlfleet.fleet.replica import Replica

TOKENS = ("vllm:generation_tokens_total", "vllm:prompt_tokens_total")


def at(engine: fake.Engine, key: str = "k") -> Replica:
    replica = new_replica("r0", "fake")
    replica.port, replica.api_key = engine.port, key
    return replica


async def test_a_canary_is_one_token_that_counts_as_no_request() -> None:
    async with fake.serve(fake.Behaviour(key="k")) as engine, open_session() as session:
        assert await canary(session, at(engine), "fake-vl") is Answer.ANSWERED
        assert (engine.seen.requests, engine.seen.canaries, engine.seen.generated_tokens) == (0, 1, 1)


@pytest.mark.parametrize(
    ("status", "answer"),
    [("400", Answer.REFUSED), ("404", Answer.REFUSED), ("429", Answer.NOTHING), ("500", Answer.NOTHING)],
)
async def test_what_is_no_token(status: str, answer: Answer) -> None:
    async with fake.serve() as engine, open_session() as session:
        engine.faults.canary = status
        assert await canary(session, at(engine), "fake-vl") is answer


async def test_a_stranger_or_nobody_at_the_port() -> None:
    async with open_session() as session:
        async with fake.serve(fake.Behaviour(key="k")) as engine:
            replica = at(engine, key="another")
            assert await canary(session, replica, "fake-vl") is Answer.NOTHING
        assert await canary(session, replica, "fake-vl") is Answer.NOTHING
        assert await count(session, replica, TOKENS, 1.0) is None
        assert await probe(session, replica, 1.0) is Health.BAD


async def test_who_cannot_be_asked_is_not_blamed() -> None:
    """No descriptor is left here: that says nothing of the replica."""
    async with fake.serve() as engine, open_session() as session:
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
        try:
            assert await probe(session, at(engine), 1.0) is Health.NOT_ASKED
            assert await canary(session, at(engine), "fake-vl") is Answer.NOT_ASKED
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        assert await probe(session, at(engine), 1.0) is Health.GOOD


async def test_a_canary_waits_as_long_as_it_takes_and_ends_when_it_is_cancelled() -> None:
    async with fake.serve() as engine, open_session() as session:
        engine.faults.wedged = True
        waiting = asyncio.create_task(canary(session, at(engine), "fake-vl"))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        assert await probe(session, at(engine), 1.0) is Health.GOOD  # this is why /health is not believed
        engine.faults.wedged = False
        assert await asyncio.wait_for(waiting, 5) is Answer.ANSWERED


async def test_counters_of_a_page() -> None:
    async with fake.serve() as engine, open_session() as session:
        engine.seen.generated_tokens, engine.seen.finished = 30, 1
        assert await count(session, at(engine), TOKENS, 1.0) == 30 + replies.PROMPT_TOKENS
        assert await count(session, at(engine), ("vllm:nothing_total",), 1.0) is None


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=4))
def test_counters_are_summed_over_labels(values: list[int]) -> None:
    lines = [
        f'vllm:generation_tokens_total{{engine="{at}",model_name="a b"}} {float(v)}' for at, v in enumerate(values)
    ]
    page = "# HELP vllm:generation_tokens_total Tokens.\nvllm:generation_tokens_total_created 5.0\n"
    assert total(page + "\n".join(lines) + "\nvllm:other 7\n", TOKENS) == sum(values)
    assert total("vllm:prompt_tokens_total 3\nother 1", TOKENS) == 3
    assert total(page, TOKENS) is None


def test_a_page_that_is_no_page() -> None:
    with pytest.raises(ValueError, match="could not convert"):
        total("vllm:prompt_tokens_total many", TOKENS)
