"""The queue before the replicas: bounds, shares, priorities, deadlines, and refusals that come at once."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlfleet.gateway.route.fair_queue import Bounds, FairQueue, Refusal, Waiter
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


def test_a_full_queue_makes_room_for_whoever_asks_for_less() -> None:
    queue = FairQueue(Bounds(requests=10))
    fill(queue, "a", 9, 1.0)
    fill(queue, "b", 1, 1.0, first=50)
    greedy, modest = Waiter(99, "a", 1.0), Waiter(100, "b", 1.0)
    refusal = queue.offer(greedy, 0.0, 0.0, 1.0)
    assert refusal
    assert (refusal.status, refusal.retry_after_seconds) == (429, 10)
    assert queue.make_room(greedy) == []
    assert queue.hopeless("a")
    assert not queue.hopeless("b")
    assert [each.number for each in queue.make_room(modest)] == [8]
    assert queue.offer(modest, 0.0, 0.0, 1.0) is None
    assert len(queue) == 10


def test_of_a_full_queue_the_least_urgent_goes_first_and_never_the_last_of_an_equal() -> None:
    queue = FairQueue(Bounds(requests=2))
    fill(queue, "a", 1, 1.0)
    assert queue.offer(Waiter(5, "a", 1.0, priority=9), 0.0, 0.0, 1.0) is None
    fill_later = Waiter(6, "b", 1.0)
    assert [each.number for each in queue.make_room(fill_later)] == [5]
    assert queue.offer(fill_later, 0.0, 0.0, 1.0) is None
    assert queue.make_room(Waiter(7, "c", 1.0)) == []


def test_bodies_that_wait_are_bounded_too() -> None:
    queue = FairQueue(Bounds(body_bytes=100))
    assert queue.offer(Waiter(0, "a", 1.0, body_bytes=90), 0.0, 0.0, 1.0) is None
    refusal = queue.offer(Waiter(1, "a", 1.0, body_bytes=20), 0.0, 0.0, 1.0)
    assert refusal
    assert refusal.status == 503
    queue.leave(0)
    assert queue.offer(Waiter(1, "a", 1.0, body_bytes=20), 0.0, 0.0, 1.0) is None
    assert queue.body_bytes == 20


def test_a_deadline_that_cannot_be_met_is_refused_at_once_and_a_late_one_later() -> None:
    queue = FairQueue()
    fill(queue, "a", 10, 1.0)
    refusal = queue.offer(Waiter(99, "a", 1.0, deadline=5.0), 0.0, 0.0, 1.0)
    assert refusal
    assert refusal.code == "deadline"
    assert queue.offer(Waiter(98, "a", 1.0, deadline=15.0), 0.0, 0.0, 1.0) is None
    assert [late.number for late in queue.expired(16.0)] == [98]
    assert len(queue) == 10
    assert queue.offer(Waiter(97, "b", 1.0, deadline=5.0), 0.0, 0.0, 1.0) is None, "its own line is short"


class Replicas:
    """With room for `most` requests at once."""

    def __init__(self, most: int) -> None:
        self.most, self.inside, self.seen = most, 0, 0

    def gate(self, bounds: Bounds | None = None, replicas: int = 1) -> Gate:
        return Gate(lambda: self.inside < self.most, lambda: float(self.inside), replicas, bounds)

    async def visit(self, gate: Gate, seconds: float = 0.0, waiter: Waiter = Waiter(0, "a", 1.0)) -> None:  # noqa: B008
        async with gate.turn(lambda: waiter) as turn:
            if gate._called == turn.number:
                await asyncio.sleep(0)  # its task runs later than it was called; nobody else may be called before
            self.inside += 1
            self.seen = max(self.seen, self.inside)
            gate.sent(turn, waiter.seconds)
            try:
                await asyncio.sleep(seconds)
            finally:
                self.inside -= 1


async def test_the_gate_lets_through_what_there_is_room_for() -> None:
    replicas = Replicas(3)
    gate = replicas.gate()
    first = [asyncio.create_task(replicas.visit(gate, 0.005)) for _ in range(3)]
    await asyncio.sleep(0.001)
    rest = [asyncio.create_task(replicas.visit(gate, 0.001)) for _ in range(40)]
    await asyncio.gather(*first, *rest)
    assert (replicas.seen, replicas.inside, len(gate.queue)) == (3, 0, 0)


@given(st.integers(0, 1 << 32))
@settings(max_examples=30, deadline=None)
def test_whoever_leaves_whenever_nobody_is_stuck(seed: int) -> None:
    draw = random.Random(seed)

    async def scene() -> None:
        replicas = Replicas(2)
        gate = replicas.gate(Bounds(requests=6))
        tasks = []
        for _ in range(40):
            waiter = Waiter(0, draw.choice("abc"), draw.choice([0.1, 1.0]), priority=draw.randint(0, 2))
            tasks.append(asyncio.create_task(replicas.visit(gate, draw.choice([0, 0.0005]), waiter)))
            if draw.random() < 0.5:
                await asyncio.sleep(0)
            if draw.random() < 0.3:
                draw.choice(tasks).cancel()
        async with asyncio.timeout(5):
            found = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(each is None or isinstance(each, Refused | asyncio.CancelledError) for each in found)
        assert (replicas.inside, len(gate.queue), gate._turns, gate._called) == (0, 0, {}, -1)
        assert replicas.seen <= 2

    asyncio.run(scene())


async def test_a_refusal_takes_no_time() -> None:
    replicas = Replicas(1)
    gate = replicas.gate(Bounds(requests=400))
    tasks = []
    for _ in range(401):
        tasks.append(asyncio.create_task(replicas.visit(gate, 10)))
        await asyncio.sleep(0.0001)
    began = time.perf_counter()
    for _ in range(20):
        with pytest.raises(Refused) as said:
            await replicas.visit(gate)
    assert (time.perf_counter() - began) / 20 < 0.02
    assert said.value.refusal.status == 503
    assert said.value.refusal.retry_after_seconds == 120
    assert gate.refusals == {"overloaded": 20}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (replicas.inside, len(gate.queue)) == (0, 0)


async def test_one_who_is_pushed_out_hears_of_it() -> None:
    replicas = Replicas(1)
    gate = replicas.gate(Bounds(requests=2))
    tasks = [asyncio.create_task(replicas.visit(gate, 0.02)) for _ in range(3)]
    await asyncio.sleep(0.005)
    await replicas.visit(gate, 0, Waiter(0, "b", 0.1))
    found = await asyncio.gather(*tasks, return_exceptions=True)
    refused = [each for each in found if isinstance(each, Refused)]
    assert [(each.refusal.status, each.refusal.code) for each in refused] == [(429, "too_many_waiting")]
    assert found.count(None) == 2


async def test_when_nobody_is_left_all_are_sent_away() -> None:
    replicas = Replicas(0)
    gate = replicas.gate()
    tasks = [asyncio.create_task(replicas.visit(gate)) for _ in range(3)]
    await asyncio.sleep(0)
    gate.send_away(Refusal(503, "not_ready", "all have died", 7))
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [each.refusal.retry_after_seconds for each in found if isinstance(each, Refused)] == [7, 7, 7]
    assert len(gate.queue) == 0


async def test_a_deadline_passes_while_it_waits() -> None:
    replicas = Replicas(1)
    gate = replicas.gate(replicas=1000)
    holder = asyncio.create_task(replicas.visit(gate, 0.3))
    await asyncio.sleep(0.01)
    with pytest.raises(Refused) as said:
        await replicas.visit(gate, 0, Waiter(0, "a", 0.1, deadline=time.monotonic() + 0.05))
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
