"""The door of the fleet as handlers use it: wait for a turn, within bounds, or hear at once why not."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from vlfleet.gateway.route.fair_queue import Bounds, FairQueue, Refusal, Waiter, retry_after

DRAIN_WINDOW_SECONDS = 10.0
"""Over which the pace of the fleet is taken: predicted seconds of work that were finished in each second."""


class Refused(Exception):  # noqa: N818  (an answer to a client, not a fault of this program)
    """A request that may not wait, or waited in vain."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class Pace:
    """Predicted seconds of work that a fleet finishes in a second; `first` until something was finished."""

    def __init__(self, first: float) -> None:
        self.value = max(first, 1e-3)
        self._at = 0.0
        self._done = 0.0

    def finished(self, seconds: float, now: float, *, busy: bool) -> None:
        """So much work ended at `now`. Only a `busy` fleet shows what it can do."""
        if not busy:
            self._at, self._done = now, 0.0
            return
        self._done += seconds
        elapsed = now - self._at
        if elapsed >= 1.0:
            weight = min(1.0, elapsed / DRAIN_WINDOW_SECONDS)
            self.value += weight * (self._done / elapsed - self.value)
            self.value = max(self.value, 1e-3)
            self._at, self._done = now, 0.0


@dataclass
class Turn:
    """One request that was let through."""

    number: int
    seconds: float = 0.0
    """Predicted work; 0 before it is sent."""


class Gate:
    """Requests go through while the replicas have room; the rest waits in a `FairQueue`.

    `room` says whether another request may be sent now, by what was sent so far. One that waited is let through only
    when the one before it was `sent` (or has left), so that `room` knows of it.
    """

    def __init__(
        self,
        room: Callable[[], bool],
        backlog: Callable[[], float],
        replicas: int = 1,
        bounds: Bounds | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`backlog`: predicted seconds of work that the replicas have, all together."""
        self.queue = FairQueue(bounds)
        self.refusals: Counter[str] = Counter()
        """By their code."""
        self._room, self._backlog, self._clock = room, backlog, clock
        self._pace = Pace(float(max(1, replicas)))
        self._numbers = itertools.count()
        self._turns: dict[int, asyncio.Future[None]] = {}
        self._called = -1
        """The number of the one that was let through and is not sent yet; -1 when there is none."""

    @property
    def pace(self) -> float:
        """Predicted seconds of work that the fleet finishes in a second."""
        return self._pace.value

    def turn(self, waiter: Callable[[], Waiter]) -> _Turn:
        """An async context manager whose body is the request's time at the replicas; `waiter` is called only if it has
        to wait. Entering it raises `Refused`: at once when it may not wait; later when its deadline passes first."""
        return _Turn(self, waiter)

    async def _enter(self, turn: Turn, waiter: Callable[[], Waiter]) -> None:
        if self.queue or self._called >= 0 or not self._room():
            try:
                await self._wait(replace(waiter(), number=turn.number))
            except BaseException:
                self._leave(turn)
                raise

    def _finished(self, turn: Turn) -> None:
        self._pace.finished(turn.seconds, self._clock(), busy=bool(self.queue))
        self._leave(turn)

    def _leave(self, turn: Turn) -> None:
        if self._called == turn.number:
            self._called = -1
        self.admit()

    def sent(self, turn: Turn, seconds: float) -> None:
        """It is at a replica, which is predicted to work `seconds` on it."""
        turn.seconds = seconds
        if self._called == turn.number:
            self._called = -1
            self.admit()

    def admit(self) -> None:
        """Lets the next one through, if there is room. Call it when there may be more, as when a replica is ready."""
        if not self.queue:
            return
        # Whoever is let through now still stands behind what the replicas have.
        for late in self.queue.expired(self._clock() + self._backlog() / self.pace):
            wait = (self._backlog() + self.queue.seconds) / self.pace
            message = f"it can no longer begin before its deadline; about {wait:.0f} s of work still wait"
            self._refuse(late.number, Refusal(503, "deadline", message, retry_after(wait)))
        while self._called < 0 and self.queue and self._room():
            waiter = self.queue.take()
            assert waiter is not None
            turn = self._turns.pop(waiter.number)
            if not turn.done():  # else its client has just left
                self._called = waiter.number
                turn.set_result(None)

    def hopeless(self, key: str) -> Refusal | None:
        """Why no request of `key` may wait now, before anything of it was read; None when one may."""
        if not self.queue.hopeless(key):
            return None
        wait = (self._backlog() + self.queue.seconds) / self.pace
        message = f"the fleet has {len(self.queue)} requests waiting, about {wait:.0f} s of work; send it again then"
        return self._count(Refusal(503, "overloaded", message, retry_after(wait)))

    def send_away(self, refusal: Refusal) -> None:
        """Nobody may wait any longer."""
        for number in list(self._turns):
            self.queue.leave(number)
            self._refuse(number, refusal)

    async def _wait(self, waiter: Waiter) -> None:
        refusal = self._offer(waiter)
        if refusal is not None:
            raise Refused(self._count(refusal))
        loop = asyncio.get_running_loop()
        turn = self._turns[waiter.number] = loop.create_future()
        timer = None
        if waiter.deadline < float("inf"):
            timer = loop.call_later(max(0.0, waiter.deadline - self._clock()) + 1e-3, self.admit)
        try:
            await turn
        finally:
            self._turns.pop(waiter.number, None)
            self.queue.leave(waiter.number)
            if timer is not None:
                timer.cancel()

    def _offer(self, waiter: Waiter) -> Refusal | None:
        refusal = self.queue.offer(waiter, self._clock(), self._backlog(), self.pace)
        if refusal is None or refusal.code == "deadline":
            return refusal
        for last in self.queue.make_room(waiter):
            wait = retry_after(self.queue.seconds / self.pace)
            message = "others wait who have asked for less; send fewer at a time"
            self._refuse(last.number, Refusal(429, "too_many_waiting", message, wait))
        return self.queue.offer(waiter, self._clock(), self._backlog(), self.pace)

    def _refuse(self, number: int, refusal: Refusal) -> None:
        turn = self._turns.pop(number, None)
        if turn is not None and not turn.done():
            turn.set_exception(Refused(self._count(refusal)))

    def _count(self, refusal: Refusal) -> Refusal:
        self.refusals[refusal.code] += 1
        return refusal


class _Turn:
    """See `Gate.turn`."""

    def __init__(self, gate: Gate, waiter: Callable[[], Waiter]) -> None:
        self._gate, self._waiter = gate, waiter
        self._turn = Turn(next(gate._numbers))

    async def __aenter__(self) -> Turn:
        await self._gate._enter(self._turn, self._waiter)
        return self._turn

    async def __aexit__(self, *_: object) -> None:
        self._gate._finished(self._turn)
