"""Requests that wait for a replica: who may wait, who goes next, and what those hear who may not. Pure.

Between keys, deficit round robin on predicted seconds (Shreedhar and Varghese, 1996): a key that asks for videos gets
as many seconds of the fleet as one that asks for texts. Within a key, by priority, then by arrival; a lower number goes
first, as vLLM's `priority` has it.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict
from dataclasses import dataclass, field

QUANTUM_SECONDS = 0.05
"""What a key may take in its turn: about one image. Smaller is fairer at short range, larger has fewer turns."""
MOST_RETRY_AFTER_SECONDS = 120


@dataclass(frozen=True)
class Bounds:
    """Of everything that waits; a request that alone is larger is refused for good by the checks before."""

    requests: int = 512
    visual_tokens: int = 1_000_000
    """About 750 images of a megapixel."""
    body_bytes: int = 1 << 30
    """They wait in the gateway's memory."""


@dataclass(frozen=True)
class Waiter:
    """One request that wants in. Times are seconds of one monotonic clock."""

    number: int
    key: str
    """Of the client, for its fair share."""
    seconds: float
    """Predicted work."""
    visual_tokens: int = 0
    body_bytes: int = 0
    priority: int = 0
    deadline: float = math.inf
    """When it must begin at a replica, else nobody waits for the answer any more."""


@dataclass(frozen=True)
class Refusal:
    """Why a request may not wait."""

    status: int
    """429: this key asks for too much; 503: the fleet has too much to do."""
    code: str
    message: str
    retry_after_seconds: int


@dataclass
class _Lane:
    """One key's requests."""

    waiting: list[tuple[int, int, Waiter]] = field(default_factory=list)
    deficit: float = 0.0
    requests: int = 0
    seconds: float = 0.0


class FairQueue:
    """Waiting requests. The caller says when one may go, and how many seconds of work the fleet does in a second."""

    def __init__(self, bounds: Bounds | None = None) -> None:
        self.bounds = bounds or Bounds()
        self.seconds = 0.0
        """Predicted work of all that wait."""
        self.requests = 0
        self.visual_tokens = 0
        self.body_bytes = 0
        self._lanes: OrderedDict[str, _Lane] = OrderedDict()
        self._gone: set[int] = set()
        self._waiting: dict[int, Waiter] = {}
        self._deadlines: list[tuple[float, int]] = []
        """A heap; of those who have left, too."""

    def __len__(self) -> int:
        return self.requests

    def offer(self, waiter: Waiter, now: float, backlog_seconds: float, pace: float) -> Refusal | None:
        """Lets `waiter` wait, or says why not.

        `backlog_seconds` of work are at the replicas already, and all of them together do `pace` seconds of predicted
        work in a second.
        """
        own, lanes = self._lanes.get(waiter.key), self._others(waiter.key) + 1
        own_seconds = own.seconds if own else 0.0
        wait = (backlog_seconds + min(self.seconds, own_seconds * lanes)) / pace
        if waiter.deadline < now + wait:
            message = f"it could not begin before its deadline: about {wait:.0f} s of work wait; ask later, or for less"
            return Refusal(503, "deadline", message, retry_after(wait))
        if not self._full(waiter):
            self._add(waiter)
            return None
        if own and own.requests and lanes > 1:
            message = f"this key has {own.requests} requests waiting and others wait too; send fewer at a time"
            return Refusal(429, "too_many_waiting", message, retry_after(wait))
        wait = (backlog_seconds + self.seconds) / pace
        message = f"the fleet has {self.requests} requests waiting, about {wait:.0f} s of work; send it again then"
        return Refusal(503, "overloaded", message, retry_after(wait))

    def make_room(self, waiter: Waiter) -> list[Waiter]:
        """Sends away the last ones of the key with the most work waiting, so that `waiter` of another key finds room
        (McKenney, Stochastic Fairness Queueing, 1990: drop from the longest queue). Returns those who have left: none
        when `waiter`'s own key would still have the most, or nobody waits."""
        gone: list[Waiter] = []
        while self.requests and self._full(waiter):
            key, lane = max(self._lanes.items(), key=lambda item: item[1].seconds)
            own = self._lanes.get(waiter.key)
            if key == waiter.key or lane.seconds <= (own.seconds if own else 0.0) + waiter.seconds:
                break
            last = max(each for each in lane.waiting if each[2].number in self._waiting)[2]
            self.leave(last.number)
            gone.append(last)
        return gone

    def hopeless(self, key: str) -> bool:
        """Whether any request of `key` would be refused now, whatever it asks for."""
        if self.requests < self.bounds.requests:
            return False
        own = self._lanes.get(key)
        return own is not None and own.seconds >= max(lane.seconds for lane in self._lanes.values())

    def peek(self) -> Waiter | None:
        """The next to go, who stays; None when nobody waits. Call `expired` before."""
        for key, lane in list(self._lanes.items()):
            self._drop_gone(lane)
            if not lane.waiting:
                del self._lanes[key]
        if not self._lanes:
            return None
        # The rounds that each key needs until it may send its next one, all done at once.
        rounds = [
            max(0, math.ceil((lane.waiting[0][2].seconds - lane.deficit) / QUANTUM_SECONDS))
            for lane in self._lanes.values()
        ]
        least = min(rounds)
        winner = rounds.index(least)
        for index, (key, lane) in enumerate(list(self._lanes.items())):
            lane.deficit += QUANTUM_SECONDS * max(0, least if index <= winner else least - 1)
            if index < winner:
                self._lanes.move_to_end(key)
        return next(iter(self._lanes.values())).waiting[0][2]

    def take(self) -> Waiter | None:
        """The next to go, who leaves; None when nobody waits."""
        waiter = self.peek()
        if waiter is not None:
            lane = self._lanes[waiter.key]
            heapq.heappop(lane.waiting)
            lane.deficit -= waiter.seconds
            self._remove(waiter)
            self._drop_gone(lane)
            if lane.waiting and lane.waiting[0][2].seconds > lane.deficit:
                self._lanes.move_to_end(waiter.key)
        return waiter

    def leave(self, number: int) -> None:
        """Its client has left."""
        waiter = self._waiting.get(number)
        if waiter is not None:
            self._remove(waiter)
            self._gone.add(number)

    def expired(self, now: float) -> list[Waiter]:
        """Those whose deadline has passed; they no longer wait."""
        late: list[Waiter] = []
        while self._deadlines and self._deadlines[0][0] < now:
            if waiter := self._waiting.get(heapq.heappop(self._deadlines)[1]):
                self.leave(waiter.number)
                late.append(waiter)
        return late

    def _others(self, key: str) -> int:
        """Keys beside this one that have requests waiting."""
        return sum(1 for other, lane in self._lanes.items() if lane.requests and other != key)

    def _full(self, waiter: Waiter) -> bool:
        bounds = self.bounds
        return bool(self.requests) and (
            self.requests >= bounds.requests
            or self.visual_tokens + waiter.visual_tokens > bounds.visual_tokens
            or self.body_bytes + waiter.body_bytes > bounds.body_bytes
        )

    def _add(self, waiter: Waiter) -> None:
        lane = self._lanes.setdefault(waiter.key, _Lane())
        heapq.heappush(lane.waiting, (waiter.priority, waiter.number, waiter))
        self._waiting[waiter.number] = waiter
        if waiter.deadline < math.inf:
            heapq.heappush(self._deadlines, (waiter.deadline, waiter.number))
        lane.requests += 1
        lane.seconds += waiter.seconds
        self.requests += 1
        self.visual_tokens += waiter.visual_tokens
        self.body_bytes += waiter.body_bytes
        self.seconds += waiter.seconds

    def _remove(self, waiter: Waiter) -> None:
        del self._waiting[waiter.number]
        lane = self._lanes[waiter.key]
        lane.requests -= 1
        lane.seconds = lane.seconds - waiter.seconds if lane.requests else 0.0
        self.requests -= 1
        self.visual_tokens -= waiter.visual_tokens
        self.body_bytes -= waiter.body_bytes
        self.seconds = self.seconds - waiter.seconds if self.requests else 0.0

    def _drop_gone(self, lane: _Lane) -> None:
        while lane.waiting and lane.waiting[0][2].number in self._gone:
            self._gone.discard(heapq.heappop(lane.waiting)[2].number)


def retry_after(seconds: float) -> int:
    """Whole seconds, as the header has them; at least one."""
    return min(MOST_RETRY_AFTER_SECONDS, max(1, math.ceil(seconds)))
