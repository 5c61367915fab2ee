"""The door of the fleet as handlers use it: wait for a turn, within bounds, or hear at once why not."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

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


class Gate:
    """At most `room()` predicted seconds of work are let through at once; the rest waits in a `FairQueue`."""

    def __init__(
        self,
        room: Callable[[], float],
        replicas: Callable[[], int],
        bounds: Bounds | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.queue = FairQueue(bounds)
        self.inside_seconds = 0.0
        """Predicted work of all that were let through and have not ended."""
        self._inside = 0
        self._room, self._clock = room, clock
        self._pace = Pace(float(max(1, replicas())))
        self._numbers = itertools.count()
        self._turns: dict[int, asyncio.Future[None]] = {}

    @property
    def pace(self) -> float:
        """Predicted seconds of work that the fleet finishes in a second."""
        return self._pace.value

    @asynccontextmanager
    async def turn(self, waiter: Waiter) -> AsyncIterator[None]:
        """Its body is the request's time at the replicas. Numbers of waiters are given here.

        Raises:
            Refused: at once when it may not wait; later when its deadline passes first.
        """
        waiter = replace(waiter, number=next(self._numbers))
        if self.queue or not self._fits(waiter):
            await self._wait(waiter)
        else:
            self._enter(waiter)
        try:
            yield
        finally:
            busy = bool(self.queue)
            self._inside -= 1
            self.inside_seconds = self.inside_seconds - waiter.seconds if self._inside else 0.0
            self._pace.finished(waiter.seconds, self._clock(), busy=busy)
            self.admit()

    def admit(self) -> None:
        """Lets through those for whom there is room. Call it when there may be more, as when a replica is ready."""
        now = self._clock()
        for late in self.queue.expired(now):
            self._refuse(late)
        while (head := self.queue.peek()) is not None and self._fits(head):
            waiter = self.queue.take()
            assert waiter is not None
            turn = self._turns.pop(waiter.number)
            if not turn.done():  # else its client has just left
                self._enter(waiter)
                turn.set_result(None)

    async def _wait(self, waiter: Waiter) -> None:
        refusal = self.queue.offer(waiter, self._clock(), self.inside_seconds, self.pace)
        if refusal is not None:
            raise Refused(refusal)
        loop = asyncio.get_running_loop()
        turn = self._turns[waiter.number] = loop.create_future()
        timer = None
        if waiter.deadline < float("inf"):
            timer = loop.call_later(max(0.0, waiter.deadline - self._clock()) + 1e-3, self.admit)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._inside -= 1
                self.inside_seconds -= waiter.seconds
                self.admit()
            raise
        finally:
            self._turns.pop(waiter.number, None)
            self.queue.leave(waiter.number)
            if timer is not None:
                timer.cancel()

    def _fits(self, waiter: Waiter) -> bool:
        """One that is larger than all the room goes when nothing else is inside."""
        return not self._inside or self.inside_seconds + waiter.seconds <= self._room()

    def _enter(self, waiter: Waiter) -> None:
        self._inside += 1
        self.inside_seconds += waiter.seconds

    def _refuse(self, waiter: Waiter) -> None:
        turn = self._turns.pop(waiter.number, None)
        if turn is not None and not turn.done():
            wait = (self.inside_seconds + self.queue.seconds) / self.pace
            message = f"its deadline passed while it waited; about {wait:.0f} s of work still wait"
            turn.set_exception(Refused(Refusal(503, "deadline", message, retry_after(wait))))
