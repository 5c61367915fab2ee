"""The heart of a batch: takes requests as they come, keeps as many at the fleet as it takes, and loses none."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace

from vlfleet.batch import record
from vlfleet.batch.ask import Ask, Kind, Trouble
from vlfleet.batch.journal import Journal
from vlfleet.batch.known import Known
from vlfleet.batch.limit import Limit
from vlfleet.batch.patience import Patience, Terms
from vlfleet.batch.record import Failure, Reply
from vlfleet.batch.request import Flaw, Request
from vlfleet.batch.row import Row
from vlfleet.batch.tally import Tally
from vlfleet.client.retries import wait_seconds
from vlfleet.errors import VlfleetError

IN_FLIGHT_BYTES = 64 << 20
"""Of the pictures of all requests under way; each is in memory twice while it is sent."""
MOST_WAITING = 4096
"""Rows that wait for the answer to the same question of another row."""


@dataclass(eq=False)
class Runner:
    """One run. `stop` takes no more rows and lets those in flight end; cancelling `run` ends it now."""

    ask: Ask
    journal: Journal
    known: Known
    limit: Limit = field(default_factory=Limit)
    tally: Tally = field(default_factory=Tally)
    terms: Terms = field(default_factory=Terms)
    warn: Callable[[str], None] = lambda line: None
    clock: Callable[[], float] = time.monotonic
    in_flight: int = 0
    """Requests at the fleet."""
    complete: bool = False
    """The source was read to its end, and each of its rows is settled."""
    error: VlfleetError | None = None
    """Why it ended early."""
    patience: Patience = field(init=False)
    _stopping: bool = False
    _abandoned: bool = False
    _crash: BaseException | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _alive: int = 0
    """Requests that are not settled: in flight, or about to be sent again."""
    _bytes: int = 0
    _returning: int = 0
    _asked: dict[bytes, list[tuple[Row, bytes]]] = field(default_factory=dict)
    """By what is asked, the rows that wait for the same answer."""
    _waiting: int = 0

    def __post_init__(self) -> None:
        self.patience = Patience(self.terms, self.warn)

    def stop(self) -> None:
        """Takes no more rows."""
        self._stopping = True
        self._changed.set()

    async def run(self, requests: AsyncGenerator[Request | Flaw, None]) -> None:
        """Settles every row.

        Raises:
            VlfleetError: the server is away for too long, the disk is full, ...; what was answered is on disk.
        """
        try:
            async with aclosing(requests):
                async for request in requests:
                    if not self._stopping:
                        await self._take(request)
                    if self._stopping:
                        self._abandoned = True
                        break
            while self._tasks:
                await asyncio.wait(self._tasks)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._crash:
            raise self._crash
        if self.error:
            raise self.error
        self.complete = not self._abandoned

    async def _take(self, request: Request | Flaw) -> None:
        """Begins with one row, when there is room for it."""
        key, known, tally = request.key, self.known, self.tally
        if key in known.seen:
            tally.repeated += 1
            return
        known.seen[key] = None
        if key in known.done:
            tally.done_before += 1
        elif key in known.failed and not self.terms.retry_failed:
            tally.failed_before += 1
        elif isinstance(request, Flaw):
            await self._start(self._write_flaw(request))
        elif request.shared and (waiting := self._asked.get(request.content)) is not None:
            waiting.append((request.row, key))
            self._waiting += 1
            await self._until(lambda: self._waiting < MOST_WAITING)
        elif request.shared and (place := known.by_content.get(request.content)) is not None:
            await self._start(self._reuse(request.row, key, place))
        else:
            await self._until(self._may_begin)
            if not self._stopping:
                self._asked.setdefault(request.content, [])
                self._alive += 1
                self._bytes += request.size_bytes
                self._depart()
                await self._start(self._settle(request))

    def _may_begin(self) -> bool:
        """Rows that are asked again go first."""
        crowded = self._returning or self._alive > 2 * self.limit.value or self._bytes > IN_FLIGHT_BYTES
        return not crowded and self.limit.room(self.in_flight, self.clock())

    def _depart(self) -> None:
        """One more is at the fleet; counted before its task runs, so that the next row sees it."""
        self.in_flight += 1
        self.limit.sent()

    async def _until(self, condition: Callable[[], bool], at: float | None = None) -> None:
        """Returns when `condition` holds, or the run is to end. It may hold when something changes, or `at` that time,
        if not when the limit's hold ends."""
        while not self._stopping and not condition():
            self._changed.clear()
            seconds = (self.limit.held_until if at is None else at) - self.clock()
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds if seconds > 0 else None):
                    await self._changed.wait()

    async def _start(self, work: Coroutine[None, None, None]) -> None:
        """Begins a piece of work, which the run waits for at its end."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        await self._until(lambda: len(self._tasks) < MOST_WAITING)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        failure = None if task.cancelled() else task.exception()
        if isinstance(failure, VlfleetError):  # of the journal
            self._end(failure)
        elif failure:
            self._crash = failure
            self.stop()
        self._changed.set()

    def _end(self, error: VlfleetError) -> None:
        """No row will be answered any more."""
        self.error = self.error or error
        self._abandoned = True
        self.stop()

    async def _settle(self, request: Request) -> None:
        """Asks, until there is an answer or no hope of one, and writes what came of it."""
        outcome: Reply | Failure | None = None
        place = -1
        try:
            outcome = await self._outcome(request)
            if outcome is not None:
                place = await self._write(request.row, request.key, outcome)
        finally:
            self._alive -= 1
            self._bytes -= request.size_bytes
            waiting = self._asked.pop(request.content, [])
            self._waiting -= len(waiting)
            self._changed.set()
        for row, key in waiting:
            if isinstance(outcome, Reply):
                await self._reuse(row, key, place)
            elif outcome is not None:
                await self._write(row, key, outcome)
        self._abandoned = self._abandoned or outcome is None

    async def _outcome(self, request: Request) -> Reply | Failure | None:
        """The answer, or why there is none; None when the run ends first."""
        attempts = 0
        while True:
            sent_at = self.clock()
            try:
                reply = await self.ask(request)
                self._heard()
                return reply
            except Trouble as trouble:
                if trouble.kind in (Kind.BUSY, Kind.AWAY):
                    self._refused(trouble, sent_at)
                else:
                    self._heard(answered=False)
                    attempts += 1
                    if trouble.kind is Kind.SHUT:
                        self._end(VlfleetError(trouble.failure.cause, trouble.failure.remedy))
                        return None
                    if trouble.kind is Kind.REFUSED or attempts >= self.terms.attempts:
                        if error := self.patience.failed(trouble, any_answered=self.tally.answered > 0):
                            self._end(error)
                        return replace(trouble.failure, attempts=attempts)
                    self.tally.retries += 1
            finally:
                self.in_flight -= 1
                self._changed.set()
            if attempts and not await self._pause(attempts):
                return None
            self._returning += 1
            try:
                await self._until(lambda: self.limit.room(self.in_flight, self.clock()))
            finally:
                self._returning -= 1
            if self._stopping:
                return None
            self._depart()

    def _heard(self, *, answered: bool = True) -> None:
        """The fleet is there, whatever it said."""
        self.limit.answered(self.clock(), self.in_flight)
        self.patience.heard(answered=answered)

    def _refused(self, trouble: Trouble, sent_at: float) -> None:
        """The fleet took it not."""
        now, told = self.clock(), trouble.retry_after_seconds
        self.tally.refusals += 1
        self.limit.refused(now, sent_at, None if told is None else min(told, self.terms.patience_seconds))
        if error := self.patience.refused(trouble.failure.cause, now):
            self._end(error)

    async def _pause(self, attempts: int) -> bool:
        """Between two attempts; False when the run ends meanwhile."""
        seconds = self.terms.pause_seconds
        until = self.clock() + (wait_seconds(attempts, None) if seconds is None else seconds)
        await self._until(lambda: self.clock() >= until, until)
        return not self._stopping

    async def _write(self, row: Row, key: bytes, outcome: Reply | Failure) -> int:
        """Puts a row's end on disk; its place."""
        tally, known = self.tally, self.known
        if isinstance(outcome, Failure):
            failed = record.failed(row.id, row, key, outcome)
            known.failed[key] = await self.journal.put(failed, failure=True)
            tally.failed += 1
            return -1
        place = await self.journal.put(record.answered(row, key, outcome))
        known.add(key, place)
        known.failed.pop(key, None)
        tally.answered += 1
        tally.prompt_tokens += outcome.usage.prompt_tokens
        tally.completion_tokens += outcome.usage.completion_tokens
        return place

    async def _write_flaw(self, flaw: Flaw) -> None:
        self.known.failed[flaw.key] = await self.journal.put(record.flawed(flaw), failure=True)
        self.tally.failed += 1

    async def _reuse(self, row: Row, key: bytes, place: int) -> None:
        """Fills a row with the answer that another one got."""
        other = await asyncio.to_thread(self.journal.output.read, place)
        self.known.add(key, await self.journal.put(record.reused(row, key, other)))
        self.known.failed.pop(key, None)
        self.tally.reused += 1
