"""Requests before a fleet that has no room: who waits, who is refused, what they hear, and how soon."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from tests.fakes.engine import Behaviour
from tests.gateway.rig import Rig, rig
from vlfleet.fleet.replica import Phase
from vlfleet.gateway.route.fair_queue import Bounds
from vlfleet.gateway.route.tracker import ROOM_REQUESTS

SLOW = Behaviour(tokens=2, token_seconds=0.05, prefill_seconds=0.02)
"""One request after the other, each 20 ms: fifty in a second."""


def few_slots(made: Rig, slots: int) -> None:
    """Each replica says that it decodes so many at once."""
    for replica in made.replicas:
        replica.decisions["max_num_seqs"] = slots


async def ask(made: Rig, key: str = "", **headers: str) -> tuple[int, dict[str, Any], float]:
    """Status, body and seconds; `Retry-After` is put into the body."""
    if key:
        headers["Authorization"] = f"Bearer {key}"
    began = time.perf_counter()
    body = {"model": "fake-vl", "messages": [{"role": "user", "content": "hello"}]}
    async with made.http.post(f"{made.url}/v1/chat/completions", json=body, headers=headers) as answer:
        said = await answer.json()
        return answer.status, {**said, "after": answer.headers.get("Retry-After")}, time.perf_counter() - began


async def until_waiting(made: Rig, count: int) -> None:
    async with asyncio.timeout(5):
        while await made.metric("vlfleet:queue_requests") < count:
            pass


async def test_an_engine_gets_what_it_can_hold_and_the_rest_waits_here() -> None:
    async with rig(1, SLOW) as made:
        few_slots(made, 4)
        found = await asyncio.gather(*(ask(made) for _ in range(30)))
        assert {status for status, _, _ in found} == {200}
        assert made.engines[0].seen.max_running == 5
        assert made.idle()


async def test_a_light_client_does_not_stand_behind_a_heavy_one() -> None:
    async with rig(1, SLOW) as made:
        few_slots(made, 2)
        heavy = [asyncio.create_task(ask(made, "heavy")) for _ in range(40)]
        await until_waiting(made, 30)
        began = time.perf_counter()
        found = await asyncio.gather(*(ask(made, "light") for _ in range(3)))
        light = time.perf_counter() - began
        assert [status for status, _, _ in found] == [200, 200, 200]
        await asyncio.gather(*heavy)
        assert light < (time.perf_counter() - began) / 2


async def test_a_full_queue_refuses_at_once_and_says_when_to_come_back() -> None:
    async with rig(1, Behaviour(tokens=1, prefill_seconds=0.3)) as made:
        few_slots(made, 1)
        made.gateway.gate.queue.bounds = Bounds(requests=4)
        asked = [asyncio.create_task(ask(made, "one")) for _ in range(6)]
        await until_waiting(made, 4)
        found = await asyncio.gather(*(ask(made, "one") for _ in range(20)))
        refused = [(said, seconds) for status, said, seconds in found if status == 503]
        assert len(refused) == 20
        assert sorted(seconds for _, seconds in refused)[len(refused) // 2] < 0.1  # one turn takes 0.3
        said = refused[0][0]
        assert (said["error"]["code"], int(said["after"]) >= 1) == ("overloaded", True)
        assert (await ask(made, "two"))[0] == 200, "the heavy key makes room for another"
        statuses = [status for status, _, _ in await asyncio.gather(*asked)]
        assert statuses.count(429) == 1
        assert set(statuses) == {200, 429}


async def test_nobody_is_asked_to_wait_for_longer_than_he_does() -> None:
    async with rig(1, SLOW) as made:
        few_slots(made, 1)
        made.gateway.gate._pace.value = 0.01
        asked = [asyncio.create_task(ask(made)) for _ in range(10)]
        await until_waiting(made, 8)
        status, said, seconds = await ask(made, **{"X-Stainless-Read-Timeout": "0.05"})
        assert (status, said["error"]["code"]) == (503, "deadline")
        assert seconds < 0.2
        await asyncio.gather(*asked)
        assert (await ask(made, **{"X-Request-Timeout": "5"}))[0] == 200


@pytest.mark.parametrize("status", ["503", "429"])
async def test_a_replica_that_asks_for_a_pause_gets_one(status: str) -> None:
    async with rig(2) as made:
        made.engines[0].faults.fault = status
        for _ in range(20):
            assert (await ask(made))[0] == 200
        assert made.engines[0].seen.requests == 1, "it said Retry-After: 1"
        made.engines[0].faults.fault = ""
        await asyncio.sleep(1.1)
        for _ in range(20):
            assert (await ask(made))[0] == 200
        assert made.engines[0].seen.requests > 1


async def test_when_all_ask_for_a_pause_requests_wait_for_the_first_to_end() -> None:
    async with rig(1) as made:
        made.engines[0].faults.fault = "503"
        assert (await ask(made))[0] == 503
        made.engines[0].faults.fault = ""
        status, _, seconds = await ask(made)
        assert (status, 0.3 < seconds < 1.6) == (200, True)


async def test_those_who_wait_hear_it_when_the_last_replica_dies() -> None:
    async with rig(1, SLOW) as made:
        few_slots(made, 1)
        asked = [asyncio.create_task(ask(made)) for _ in range(12)]
        await until_waiting(made, 9)
        made.replicas[0].phase = Phase.FAILED
        found = await asyncio.gather(*asked)
        codes = [said["error"]["code"] for status, said, _ in found if status == 503]
        assert len(codes) >= 5
        assert set(codes) == {"fleet_failed"}


async def test_slow_engines_get_enough_to_decode_together() -> None:
    async with rig(1, Behaviour(tokens=1, prefill_seconds=0.0, token_seconds=0.3)) as made:
        await asyncio.gather(*(ask(made) for _ in range(ROOM_REQUESTS)))
        assert made.engines[0].seen.max_running == ROOM_REQUESTS


async def test_the_queue_shows_in_the_metrics() -> None:
    async with rig(1, SLOW) as made:
        few_slots(made, 1)
        asked = [asyncio.create_task(ask(made)) for _ in range(8)]
        await until_waiting(made, 5)
        assert await made.metric("vlfleet:queue_work_seconds") > 0
        await asyncio.gather(*asked)
        assert await made.metric("vlfleet:queue_requests") == 0
        assert await made.metric("vlfleet:queue_wait_seconds_count") == 8
