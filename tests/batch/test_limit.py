"""The limit against simulated fleets: kept busy, no storms of refusals, and changes followed."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vlfleet.batch.limit import Limit


@dataclass
class Simulated:
    """`slots` requests are worked on at once, each for `seconds`; `queue` wait, and one more is refused."""

    slots: int
    seconds: float
    queue: int = 10**9
    retry_after: float = 1.0
    out: tuple[float, float] = (0.0, 0.0)
    """The fleet refuses everything between these times."""
    limit: Limit = field(default_factory=Limit)
    now: float = 0.0
    answered: int = 0
    refused: list[float] = field(default_factory=list)
    most: int = 0
    early: int = 0
    """Sent before the time that a refusal had named."""

    def run(self, seconds: float) -> None:
        events: list[tuple[float, int, str, float]] = []
        in_flight = running = number = 0
        waiting: list[float] = []
        named = 0.0
        while self.now < seconds:
            while self.limit.room(in_flight, self.now):
                self.early += self.now < named
                in_flight, number = in_flight + 1, number + 1
                self.limit.sent()
                self.most = max(self.most, in_flight)
                if self.out[0] <= self.now < self.out[1] or (running >= self.slots and len(waiting) >= self.queue):
                    heapq.heappush(events, (self.now + 0.002, number, "refused", self.now))
                elif running < self.slots:
                    running += 1
                    heapq.heappush(events, (self.now + self.seconds, number, "answered", self.now))
                else:
                    waiting.append(self.now)
            if not events or (self.now < self.limit.held_until < events[0][0]):
                self.now = self.limit.held_until
                continue
            self.now, _, kind, sent_at = heapq.heappop(events)
            if kind == "refused":
                named = max(named, self.now + self.retry_after)
                self.refused.append(self.now)
                self.limit.refused(self.now, sent_at, self.retry_after)
            else:
                self.answered += 1
                running -= 1
                self.limit.answered(self.now, in_flight)
                if waiting:
                    number += 1
                    running += 1
                    heapq.heappush(events, (self.now + self.seconds, number, "answered", waiting.pop(0)))
            in_flight -= 1

    @property
    def busy(self) -> float:
        return self.answered * self.seconds / (self.slots * self.now)


@given(slots=st.integers(1, 128), seconds=st.floats(0.02, 5.0))
@example(slots=1, seconds=5.0)
@example(slots=128, seconds=5.0)
@settings(max_examples=15)
def test_a_fleet_is_kept_busy(slots: int, seconds: float) -> None:
    """For a minute and 250 times as long as one request takes, as a batch of thousands does."""
    fleet = Simulated(slots, seconds)
    fleet.run(250 * seconds + 60)
    assert fleet.busy >= 0.95
    assert fleet.most <= max(96, 5 * slots)  # answers that come in bursts look like a gain now and then


@given(slots=st.integers(2, 100), seconds=st.floats(0.05, 2.0), share=st.floats(0.1, 2.0), wait=st.floats(0.5, 4.0))
@settings(max_examples=15)
def test_a_short_queue_is_no_reason_for_a_storm(slots: int, seconds: float, share: float, wait: float) -> None:
    fleet = Simulated(slots, seconds, queue=max(1, int(share * slots)), retry_after=wait)
    fleet.run(300 * seconds + 60)
    assert fleet.early == 0
    assert len(fleet.refused) <= max(48, 0.02 * fleet.answered)
    assert fleet.busy >= 0.75


def test_the_first_refusals_are_one_flight_and_one_cut() -> None:
    limit = Limit(first=32)
    limit.answered(0.0, 32)
    for _ in range(32):
        limit.sent()
    for _ in range(32):
        limit.refused(1.0, 0.5, 2.0)
    assert limit.value == pytest.approx(32 * 0.7)
    assert limit.held_until == 3.0
    assert not limit.room(0, 2.9)


def test_a_fleet_that_is_out_is_asked_one_at_a_time() -> None:
    fleet = Simulated(16, 0.1, retry_after=2.0, out=(10.0, 70.0))
    fleet.run(100.0)
    assert len(fleet.refused) <= 64 + 60 / 2 + 1
    assert fleet.early == 0
    assert fleet.answered >= 0.9 * 40 * 160 - 320


def test_more_replicas_more_requests() -> None:
    limit = Limit(first=32)
    limit.scaled(2.0)
    assert limit.value == 64
    limit.scaled(0.25)
    assert limit.value == 16
    limit.scaled(1e-9)
    assert limit.value == 1


def test_no_more_than_it_was_told() -> None:
    fleet = Simulated(1000, 0.1, limit=Limit(first=16, most=24))
    fleet.run(30.0)
    assert fleet.most == 24


def test_a_source_that_is_slow_teaches_nothing() -> None:
    """Answers of a fleet that waits for us do not make the limit grow."""
    limit = Limit(first=16)
    for step in range(1000):
        limit.answered(step * 0.1, 2)
    assert limit.value == 16
