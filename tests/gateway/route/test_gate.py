"""The queue before the replicas: bounds, shares, priorities, deadlines, and refusals that come at once."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlfleet.gateway.route.fair_queue import Bounds, FairQueue, Waiter
from vlfleet.gateway.route.gate import Gate, Pace, Refused


def fill(queue: FairQueue, key: str, count: int, seconds: float, first: int = 0, visual: int = 0) -> None:
    for number in range(first, first + count):
        assert queue.offer(Waiter(number, key, seconds, visual), 0.0, 0.0, 1.0) is None


def test_keys_get_equal_seconds_not_equal_requests() -> None:
    queue = FairQueue()
    fill(queue, "videos", 60, 2.0)
    fill(queue, "texts", 150, 0.1, first=1000)
    seconds: Counter[str] = Counter()
    while len(queue._lanes) == 2 and len(queue) > 100:
        waiter = queue.take()
        assert waiter
        seconds[waiter.key] += waiter.seconds  # type: ignore[assignment]
    assert abs(seconds["videos"] - seconds["texts"]) <= 2.1


@given(st.integers(0, 1 << 32))
def test_everybody_goes_once_and_the_sums_are_right(seed: int) -> None:
    draw, queue = random.Random(seed), FairQueue()
    inside: set[int] = set()
    gone: list[int] = []
    for number in range(80):
        waiter = Waiter(number, draw.choice("abc"), draw.random(), draw.randint(0, 9), draw.choice([0, 0, 5]))
        if queue.offer(waiter, 0.0, 0.0, 1.0) is None:
            inside.add(number)
        if inside and draw.random() < 0.2:
            left = draw.choice(sorted(inside))
            queue.leave(left)
            inside.discard(left)
        if draw.random() < 0.4 and (taken := queue.take()):
            inside.discard(taken.number)
            gone.append(taken.number)
        assert len(queue) == len(inside)
        assert queue.visual_tokens == sum(each.visual_tokens for each in queue._waiting.values())
    while taken := queue.take():
        inside.discard(taken.number)
        gone.append(taken.number)
    assert not inside
    assert len(gone) == len(set(gone))
    assert (queue.seconds, queue.visual_tokens, len(queue)) == (0, 0, 0)


def test_within_a_key_priority_then_arrival() -> None:
    queue = FairQueue()
    for number, priority in enumerate([5, 0, 5, -1, 0]):
        queue.offer(Waiter(number, "a", 0.1, priority=priority), 0.0, 0.0, 1.0)
    assert [taken.number for _ in range(5) if (taken := queue.take())] == [3, 1, 4, 0, 2]


def test_bounds_by_count_and_by_visual_tokens_say_503_and_when() -> None:
    queue = FairQueue(Bounds(requests=10, visual_tokens=1000))
    fill(queue, "a", 10, 2.0)
    refusal = queue.offer(Waiter(99, "a", 2.0), 0.0, 30.0, 2.0)
    assert refusal
    assert (refusal.status, refusal.code, refusal.retry_after_seconds) == (503, "overloaded", 25)
    queue = FairQueue(Bounds(requests=10, visual_tokens=1000))
    fill(queue, "a", 3, 2.0, visual=300)
    assert queue.offer(Waiter(99, "a", 2.0, 300), 0.0, 0.0, 1.0)
    assert queue.offer(Waiter(99, "a", 2.0, 100), 0.0, 0.0, 1.0) is None


def test_a_key_that_takes_more_than_its_share_hears_429_and_others_get_in() -> None:
    queue = FairQueue(Bounds(requests=10))
    fill(queue, "b", 1, 1.0)
    fill(queue, "a", 5, 1.0, first=10)
    refusal = queue.offer(Waiter(99, "a", 1.0), 0.0, 0.0, 1.0)
    assert refusal
    assert (refusal.status, refusal.retry_after_seconds) == (429, 10)
    assert queue.offer(Waiter(100, "b", 1.0), 0.0, 0.0, 1.0) is None


def test_a_deadline_that_cannot_be_met_is_refused_at_once_and_a_late_one_later() -> None:
    queue = FairQueue()
    fill(queue, "a", 10, 1.0)
    refusal = queue.offer(Waiter(99, "a", 1.0, deadline=5.0), 0.0, 0.0, 1.0)
    assert refusal
    assert refusal.code == "deadline"
    assert queue.offer(Waiter(98, "a", 1.0, deadline=15.0), 0.0, 0.0, 1.0) is None
    assert [late.number for late in queue.expired(16.0)] == [98]
    assert len(queue) == 10


def ask(seconds: float = 1.0, key: str = "a") -> Waiter:
    return Waiter(0, key, seconds)


async def test_the_gate_lets_through_what_there_is_room_for() -> None:
    gate, inside, most = Gate(lambda: 3.0, lambda: 1), 0, 0

    async def one() -> None:
        nonlocal inside, most
        async with gate.turn(ask()):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.005)
            inside -= 1

    await asyncio.gather(*(one() for _ in range(30)))
    assert most == 3
    assert (gate.inside_seconds, len(gate.queue)) == (0, 0)


async def test_one_larger_than_the_room_goes_alone() -> None:
    gate = Gate(lambda: 3.0, lambda: 1)
    async with gate.turn(ask(100.0)):
        assert gate.inside_seconds == 100


async def test_those_who_leave_while_they_wait_leave_nothing() -> None:
    gate = Gate(lambda: 1.0, lambda: 1)

    async def one(seconds: float) -> None:
        async with gate.turn(ask()):
            await asyncio.sleep(seconds)

    first = asyncio.create_task(one(0.05))
    await asyncio.sleep(0)
    waiting = [asyncio.create_task(one(0)) for _ in range(5)]
    await asyncio.sleep(0)
    for task in waiting[:4]:
        task.cancel()
    await asyncio.gather(first, *waiting, return_exceptions=True)
    assert (gate.inside_seconds, len(gate.queue), gate._inside) == (0, 0, 0)


async def test_a_refusal_takes_no_time() -> None:
    gate = Gate(lambda: 1.0, lambda: 1, Bounds(requests=400))
    tasks = []

    async def one() -> None:
        async with gate.turn(ask()):
            await asyncio.sleep(10)

    for _ in range(401):
        tasks.append(asyncio.create_task(one()))
        await asyncio.sleep(0)
    began = time.perf_counter()
    for _ in range(20):
        with pytest.raises(Refused) as said:
            async with gate.turn(ask()):
                pass
    assert (time.perf_counter() - began) / 20 < 0.02
    assert said.value.refusal.status == 503
    assert said.value.refusal.retry_after_seconds == 120
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (gate.inside_seconds, len(gate.queue), gate._inside) == (0, 0, 0)


async def test_a_deadline_passes_while_it_waits() -> None:
    gate = Gate(lambda: 1.0, lambda: 1000)

    async def hold() -> None:
        async with gate.turn(ask()):
            await asyncio.sleep(0.3)

    holder = asyncio.create_task(hold())
    await asyncio.sleep(0)
    with pytest.raises(Refused) as said:
        async with gate.turn(replace(ask(0.1), deadline=time.monotonic() + 0.05)):
            pass
    assert said.value.refusal.code == "deadline"
    await holder


def test_the_pace_is_what_a_busy_fleet_finishes() -> None:
    pace, now = Pace(1.0), 0.0
    for _ in range(400):
        now += 0.5
        pace.finished(2.0, now, busy=True)
    assert pace.value == pytest.approx(4.0, rel=0.1)
    pace.finished(0.0, now + 1000, busy=False)
    assert pace.value == pytest.approx(4.0, rel=0.1)
