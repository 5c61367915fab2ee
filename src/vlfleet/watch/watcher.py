"""Samples, alerts and history of one fleet, for as long as it is served. Nothing in here can stop or slow serving."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from prometheus_client import generate_latest

from vlfleet.fleet.replica import Replica
from vlfleet.hardware.readings import GpuReader
from vlfleet.watch import kept
from vlfleet.watch.alert import Change, Rule, Silence, step
from vlfleet.watch.alerts import all_rules
from vlfleet.watch.exposed import Exposed
from vlfleet.watch.history import History
from vlfleet.watch.history_read import Event
from vlfleet.watch.host import HostReader
from vlfleet.watch.model import Sample
from vlfleet.watch.pages import Pages
from vlfleet.watch.point import point
from vlfleet.watch.sampler import Gpus, Sampler
from vlfleet.watch.sinks import LogSink, Sink
from vlfleet.watch.window import Trail, Window

FILE = "history.sqlite"
"""In the fleet's folder."""
SAMPLE_SECONDS = 1.0
SECONDS_A_REPLICA = 0.01
"""A look costs 0.6 ms of the loop for each replica (tests/watch/test_thousand.py): with more than a hundred there are
fewer looks, so that watching stays below a tenth of a core."""
FLUSH_SECONDS = 5.0
"""What a kill -9 loses of history, at most."""
RETRY_SECONDS = 60.0
"""After which history is tried again that could not be written, and a line may be logged again."""

log = logging.getLogger("vlfleet.watch")


class Watcher:
    """`async with Watcher(...)` beside the gateway. `say` gets a line when something is wrong with the watch itself."""

    def __init__(
        self,
        replicas: Sequence[Replica],
        gateway: Callable[[], bytes],
        pages: Callable[[], Pages],
        folder: Path,
        *,
        rules: Sequence[Rule] | None = None,
        sinks: Sequence[Sink] | None = None,
        gpus: Gpus | None = None,
        say: Callable[[str], None] = log.warning,
        sample_seconds: float = SAMPLE_SECONDS,
    ) -> None:
        self.book = kept.load(folder, time.time())
        """The alerts; whoever silences or acknowledges puts a new book here, in the event loop."""
        self.window: Window | None = None
        """What was seen of the last quarter of an hour; None before the first look."""
        self._folder, self._say = folder, say
        self._rules = tuple(all_rules() if rules is None else rules)
        self._sinks: tuple[Sink, ...] = (LogSink(),) if sinks is None else tuple(sinks)
        self._sampler = Sampler(replicas, gateway, pages, gpus or GpuReader(), HostReader(folder))
        self._replicas, self._seconds = replicas, sample_seconds
        self._trail = Trail()
        self._history: History | None = None
        self._history_at = float("-inf")
        """When it was tried last."""
        self._kept = kept.pack(self.book)
        """Of the book, as it is on disk."""
        self._pending: list[tuple[float, dict[str, float], list[Event]]] = []
        self._writing: asyncio.Task[None] | None = None
        self._told: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def latest(self) -> Sample | None:
        """What was seen last."""
        return self.window.now if self.window else None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks = [task for task in (self._task, self._writing) if task]
        if self._task:
            self._task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with suppress(Exception):
            await asyncio.to_thread(self._write, self._take())
            if self._history:
                await asyncio.to_thread(self._history.close)
        with suppress(Exception):
            self._sampler.close()
        await asyncio.gather(*(sink.close() for sink in self._sinks), return_exceptions=True)

    def silence(self, silence: Silence) -> None:
        """Nobody is told of what it covers."""
        self.book = self.book.silence(silence)

    def acknowledge(self, code: str, subject: str, by: str) -> None:
        """`by` knows of this alert."""
        self.book = self.book.acknowledge(code, subject, by)

    def metrics(self) -> bytes:
        """What it sees, as text for Prometheus."""
        return generate_latest(Exposed(self.latest, self.book.heard(time.time())))

    async def _run(self) -> None:
        flushed = time.monotonic()
        due = time.monotonic()
        while True:
            try:
                await self._look()
            except Exception as error:  # whatever it is: the fleet serves on
                self._tell(f"watching failed: {type(error).__name__}: {error}")
            if time.monotonic() - flushed >= FLUSH_SECONDS and (self._writing is None or self._writing.done()):
                flushed = time.monotonic()
                self._writing = asyncio.create_task(asyncio.to_thread(self._write, self._take()))
            seconds = max(self._seconds, SECONDS_A_REPLICA * len(self._replicas))
            due = max(due + seconds, time.monotonic())  # what was missed is not made up for
            await asyncio.sleep(due - time.monotonic())

    async def _look(self) -> None:
        before = self.latest
        sample = await self._sampler.sample()
        window = self.window = self._trail.add(sample)
        self.book, changes = step(self.book, self._rules, window)
        for change in changes:
            if not change.silent:
                for sink in self._sinks:
                    with suppress(Exception):
                        sink.tell(change)
        events = [_event(change) for change in changes] + moves(before, sample)
        self._pending.append((sample.at, point(sample, before), events))
        del self._pending[:-600]  # a disk that hangs must not fill the memory

    def _take(self) -> list[tuple[float, dict[str, float], list[Event]]]:
        taken, self._pending = self._pending, []
        return taken

    def _write(self, taken: list[tuple[float, dict[str, float], list[Event]]]) -> None:
        """In a thread, and never in two at once."""
        try:
            if (packed := kept.pack(self.book)) != self._kept:
                kept.save(self._folder, packed)
                self._kept = packed
        except OSError as error:
            self._tell(f"silences cannot be kept for the next start: {error}")
        try:
            if self._history is None:
                if time.monotonic() - self._history_at < RETRY_SECONDS:
                    return
                self._history_at = time.monotonic()
                self._history = History(self._folder / FILE)
                if self._history.said:
                    self._tell(self._history.said)
            for at, numbers, events in taken:
                self._history.add(at, numbers, events)
            self._history.flush()
        except (sqlite3.Error, OSError) as error:
            self._tell(f"history cannot be written, and is tried again in {RETRY_SECONDS:.0f} s: {error}")
            broken, self._history = self._history, None
            self._history_at = time.monotonic()
            if broken:
                with suppress(sqlite3.Error, OSError):
                    broken.close()

    def _tell(self, line: str) -> None:
        """Each line once in a while."""
        now = time.monotonic()
        if now - self._told.get(line, float("-inf")) >= 10 * RETRY_SECONDS:
            self._told = {known: at for known, at in self._told.items() if now - at < 10 * RETRY_SECONDS} | {line: now}
            with suppress(Exception):
                self._say(line)


def _event(change: Change) -> Event:
    alert = change.alert
    return Event(change.at, "began" if change.began else "ended", alert.code, alert.subject, alert.text, alert.advice)


def moves(before: Sample | None, now: Sample) -> list[Event]:
    """What happened to replicas between two samples."""
    found = []
    for replica in now.replicas:
        old = before.replica(replica.name) if before else None
        if old and old.cordoned != replica.cordoned:
            kind = "cordoned" if replica.cordoned else "uncordoned"
            found.append(Event(now.at, "replica", kind, replica.name, f"{kind} by hand"))
        if before is None or (old and (old.phase, old.restarts) == (replica.phase, replica.restarts)):
            continue
        text = f"{old.phase} -> {replica.phase}" if old else replica.phase
        down = replica.phase in ("backoff", "failed", "unhealthy")
        detail = replica.error or replica.detail if down else ""
        found.append(Event(now.at, "replica", replica.phase, replica.name, text, detail))
    return found
