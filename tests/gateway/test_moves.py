"""What waits on a stalled replica is given to another, within tries and budget."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.fakes.engine import Behaviour
from tests.gateway.rig import Rig, rig, until
from vlfleet.fleet.replica import Phase
from vlfleet.gateway.retries import BURST


def take_out(fleet: Rig, at: int) -> None:
    """What the supervisor writes of a replica that makes no progress."""
    fleet.replicas[at].phase, fleet.replicas[at].stalled = Phase.UNHEALTHY, True


async def asked(fleet: Rig, **fields: Any) -> tuple[int, str, str]:
    async with fleet.chat(**fields) as answer:
        return answer.status, answer.headers.get("X-Vlfleet-Replica", ""), await answer.text()


@pytest.mark.parametrize("stream", [False, True])
async def test_it_is_answered_by_another_and_cancelled_at_the_first(stream: bool) -> None:
    async with rig(2) as fleet:
        first, second = fleet.engines
        first.faults.wedged = True
        fleet.replicas[1].phase = Phase.STARTING
        asking = [asyncio.create_task(asked(fleet, stream=stream)) for _ in range(5)]
        await until(lambda: first.seen.running == 5)
        fleet.replicas[1].phase = Phase.READY
        take_out(fleet, 0)
        answers = await asyncio.gather(*asking)
        assert {(status, name) for status, name, _ in answers} == {(200, "r1")}
        await until(lambda: first.seen.cancelled == 5)
        assert second.seen.requests == 5
        assert fleet.idle()
        assert await fleet.metric('vlfleet:retries_total{replica="r0"}') == 5
        assert fleet.replicas[0].served == 0


async def test_it_waits_where_there_is_no_other() -> None:
    async with rig(2) as fleet:
        fleet.replicas[1].phase = Phase.STARTING
        fleet.engines[0].faults.wedged = True
        asking = asyncio.create_task(asked(fleet))
        await until(lambda: fleet.engines[0].seen.running)
        take_out(fleet, 0)
        await asyncio.sleep(0.6)
        assert not asking.done()
        fleet.engines[0].faults.wedged = False
        assert (await asking)[:2] == (200, "r0")


async def test_the_second_try_stays() -> None:
    async with rig(3) as fleet:
        for engine in fleet.engines:
            engine.faults.wedged = True
        asking = asyncio.create_task(asked(fleet))
        await until(lambda: any(engine.seen.running for engine in fleet.engines))
        first = next(at for at, engine in enumerate(fleet.engines) if engine.seen.running)
        take_out(fleet, first)
        await until(lambda: any(engine.seen.running for at, engine in enumerate(fleet.engines) if at != first))
        second = next(at for at, engine in enumerate(fleet.engines) if engine.seen.running and at != first)
        take_out(fleet, second)
        await asyncio.sleep(0.6)
        assert fleet.engines[second].seen.running == 1
        fleet.engines[second].faults.wedged = False
        assert (await asking)[:2] == (200, f"r{second}")


async def test_more_than_the_budget_waits_and_fails_nobody() -> None:
    async with rig(2) as fleet:
        first, second = fleet.engines
        first.faults.wedged = True
        fleet.replicas[1].phase = Phase.STARTING
        many = int(BURST) + 10
        asking = [asyncio.create_task(asked(fleet)) for _ in range(many)]
        await until(lambda: first.seen.running == many)
        fleet.replicas[1].phase = Phase.READY
        take_out(fleet, 0)
        await until(lambda: second.seen.finished == BURST)
        await asyncio.sleep(0.6)
        assert first.seen.running == 10
        first.faults.wedged = False
        assert {status for status, _, _ in await asyncio.gather(*asking)} == {200}


async def test_a_stream_that_has_begun_stays() -> None:
    async with rig(2, Behaviour(tokens=20, token_seconds=0.01)) as fleet:
        async with fleet.chat(stream=True) as answer:
            await answer.content.readany()
            at = int(answer.headers["X-Vlfleet-Replica"][1:])
            fleet.engines[at].faults.wedged = True
            take_out(fleet, at)
            await asyncio.sleep(0.6)
            fleet.engines[at].faults.wedged = False
            assert (await answer.text()).endswith("data: [DONE]\n\n")
        assert fleet.engines[1 - at].seen.requests == 0


async def test_bytes_of_answers_are_progress_and_refusals_are_not() -> None:
    async with rig(1) as fleet:
        (replica,) = fleet.replicas
        fleet.engines[0].faults.fault = "400"
        assert (await asked(fleet))[0] == 400
        assert replica.progress_at == 0.0
        fleet.engines[0].faults.fault = ""
        await asked(fleet)
        whole = replica.progress_at
        assert whole > 0.0
        await asked(fleet, stream=True)
        assert replica.progress_at > whole
