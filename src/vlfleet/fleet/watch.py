"""Watching one run of a replica: its /health, its progress and its log decide whether it gets requests."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

from vlfleet.engine.launch import Failure, Observation
from vlfleet.fleet import logs, startup
from vlfleet.fleet.health import Answer, Health, canary, count, probe
from vlfleet.fleet.processes import cpu_seconds
from vlfleet.fleet.pulse import Pulse, Verdict
from vlfleet.fleet.replica import Phase, Replica
from vlfleet.fleet.shared import Shared
from vlfleet.fleet.warmup import WarmUp

HUNG = "hung"
"""The `Failure.rule` of a replica that must be killed: neither SIGSTOP nor a wedged vLLM heeds SIGTERM."""
_LOG_BOUND_SECONDS = 10.0
_LATE_SECONDS = 0.5
"""More than this between two looks, beyond what was meant: this process did not run, and saw nothing."""
_LOOKS = 3
"""Closer looks at a silent replica before it is judged."""
_SAID = {Health.GOOD: "/health said 200", Health.BAD: "/health failed", Health.SILENT: "/health gave no answer"}


class Watch:
    """One run: writes phase, detail and times of the record until the run has to be ended."""

    def __init__(
        self, replica: Replica, shared: Shared, settled: Callable[[], Awaitable[None]], *, warms: bool = True
    ) -> None:
        """`settled` is awaited once, when the log of the start has been read to its end. `warms`: it is asked about a
        first picture before it is put into rotation, if its engine needs that."""
        self.draining = False
        self._settled = settled
        self.proved = asyncio.Event()
        """It has given a token, or says that it takes no such request."""
        self._replica, self._shared, self._timing = replica, shared, shared.timing
        self.ready_since = time.monotonic() if replica.ready_at else 0.0
        """Monotonic, of this watch: one that was adopted was ready before. 0 when it is not ready yet."""
        self._probe_now, self._ready = asyncio.Event(), asyncio.Event()
        self._tail = logs.Tail(shared.folder.log(replica.name))
        self._health: Health | None = None
        self._healthy = False
        self._pulse = Pulse(time.monotonic())
        self._verdict = Verdict.MOVING
        self._tokens: float | None = None
        """Its counters at the beginning of this silence."""
        self._cpu: tuple[float, float] | None = None
        """When its CPU time was read last in this silence, and what it was."""
        self._computing = False
        self._looked_at = 0.0
        self._warms = warms and shared.engine.needs_warm_up
        self._warm_up = WarmUp(replica, shared, self.probe_now)
        self._canary: asyncio.Task[None] | None = None
        self._look: asyncio.Task[None] | None = None

    @property
    def died_cold(self) -> bool:
        """Whether this run, which is over, got as far as its first picture and no further."""
        return self._warm_up.task is not None and not self._replica.ready_at

    def probe_now(self) -> None:
        self._probe_now.set()

    def drain(self, draining: bool) -> None:
        """Takes it out of rotation while it goes on with what it has, or puts it back."""
        self.draining = draining
        self._place()

    async def run(self) -> Failure:
        """Returns when the run has to be ended."""
        judges = [asyncio.create_task(each) for each in (self._follow_health(), self._follow_progress())]
        tasks = [*judges, asyncio.create_task(self._follow_log())]
        try:
            done, _ = await asyncio.wait(judges, return_when=asyncio.FIRST_COMPLETED)
            return done.pop().result()
        finally:
            tasks += [task for task in (self._warm_up.task, self._canary, self._look) if task]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _place(self) -> None:
        """In rotation or out of it, by health and progress."""
        replica, verdict = self._replica, self._verdict
        if not replica.ready_at or self._health is None:
            return
        # One whose /health is silent as well gets no patience: an engine that only computes answers that at once.
        replica.stalled = verdict >= Verdict.STALLED or (verdict is Verdict.SILENT and self._health is Health.SILENT)
        why = ""
        if not self._healthy:
            why = "not healthy"
        elif replica.stalled or (verdict is Verdict.SILENT and self._shared.another_ready(replica)):
            why = "no progress"
        replica.unhealthy_at = (replica.unhealthy_at or time.time()) if why else 0.0
        phase = Phase.DRAINING if self.draining else Phase.UNHEALTHY if why else Phase.READY
        self._shared.set(replica, phase, why)

    async def _follow_health(self) -> Failure:
        replica, timing = self._replica, self._timing
        starting_seconds = bad_seconds = 0.0
        looked_at = time.monotonic()
        while True:
            health = await probe(self._shared.session, replica, timing.probe_timeout_seconds)
            now = time.monotonic()
            # Time in which this process stood still, as when the machine was suspended, is nobody's silence.
            step = min(now - looked_at, timing.probe_timeout_seconds + timing.probe_ready_seconds + _LATE_SECONDS)
            looked_at = now
            if health is not Health.NOT_ASKED:
                self._health = health
            if health is Health.GOOD:
                self._healthy, bad_seconds = True, 0.0
                if replica.ready_at or self._is_warm():
                    self._become_ready()
            elif health is Health.BAD or not self._healthy:  # a silent one may be busy: its progress tells
                bad_seconds += 0.0 if self._healthy or health is Health.NOT_ASKED else step
                self._healthy = False
            self._place()
            # The warm-up has a bound of its own.
            starting_seconds += 0.0 if replica.ready_at or self._warm_up.goes_on else step
            if starting_seconds > timing.start_timeout_seconds:
                return Failure(f"it was not ready after {timing.start_timeout_seconds:.0f} s")
            if replica.ready_at and bad_seconds > timing.unhealthy_seconds:
                return Failure(f"it answered no /health for {timing.unhealthy_seconds:.0f} s")
            await self._pause(timing.probe_ready_seconds if self._healthy else timing.probe_starting_seconds)

    async def _pause(self, seconds: float) -> None:
        # asyncio.wait_for loses a cancellation that comes together with the event (Python 3.11, gh-86296).
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._probe_now.wait()
        self._probe_now.clear()

    def _is_warm(self) -> bool:
        """Whether its first picture is behind it, as far as it will ever be; the first call asks about it."""
        if self._warms and not self._warm_up.task:
            self._read_log()
            self._warm_up.begin()
        return not self._warm_up.goes_on

    def _become_ready(self) -> None:
        if not self._replica.ready_at:
            if self._warm_up.answer is Answer.ANSWERED:
                self.proved.set()
            now, self.ready_since = time.time(), time.monotonic()
            self._read_log()
            startup.end(self._replica, now)
            self._replica.ready_at = now
        self._ready.set()

    async def _follow_progress(self) -> Failure:
        """Looks for signs of life, and asks for one when there is none. The first token is asked for at once."""
        replica, timing = self._replica, self._timing
        await self._ready.wait()
        self._pulse = Pulse(time.monotonic())
        self._ask(self._pulse.heard_at)
        looked_at = self._pulse.heard_at
        while True:
            await asyncio.sleep(timing.watch_seconds)
            now = time.monotonic()
            late, looked_at = now - looked_at - timing.watch_seconds, now
            if late > _LATE_SECONDS:  # this process itself was stopped, or the machine is very busy
                self._pulse.excuse(late, now)
            if replica.progress_at > self._pulse.heard_at:
                self._heard(replica.progress_at)
            if self._pulse.silence(now) >= timing.quiet_seconds:
                self._ask(now)
            self._verdict = self._pulse.verdict(now, timing, computing=self._computing)
            if self._verdict is Verdict.HUNG:
                return Failure(self._hung(now), rule=HUNG)
            self._place()

    def _hung(self, now: float) -> str:
        waiting = self._replica.in_flight
        while_ = f"while {waiting} request{'s' * (waiting != 1)} waited" if waiting else "although it was asked for one"
        said = _SAID[self._health or Health.SILENT]
        return f"it hung: no token for {self._pulse.silence(now):.0f} s {while_}; {said}"

    def _heard(self, at: float) -> None:
        self._pulse.heard(at)
        self._tokens, self._cpu, self._computing = None, None, False
        self.proved.set()

    def _ask(self, now: float) -> None:
        """For a token, and looks closer: what it has to do already may keep it from that."""
        if self._canary and not self._pulse.asked_at:
            self._canary.cancel()  # of a silence that is over: it may be the one request that is stuck
        self._pulse.asked(now)
        if self._canary is None or self._canary.done() or self._canary.cancelling():
            self._canary = asyncio.create_task(self._send_canary())
        pause = self._timing.answer_seconds / _LOOKS
        free = self._look is None or self._look.done()
        if free and min(self._pulse.waited(now), now - self._looked_at) >= pause:
            self._looked_at = now
            self._look = asyncio.create_task(self._look_closer(self._pulse.heard_at))

    async def _send_canary(self) -> None:
        answer = await canary(self._shared.session, self._replica, self._shared.served_model_name)
        if answer is Answer.NOT_ASKED:
            self._pulse.not_asked()
        if answer is Answer.REFUSED:
            self.proved.set()  # as far as it can be
        if answer is Answer.ANSWERED or (answer is Answer.REFUSED and not self._replica.in_flight):
            self._alive()

    async def _look_closer(self, silence: float) -> None:
        """A long step without a GPU shows in CPU time, a full batch in the counters. `silence`: when this one began."""
        replica, shared = self._replica, self._shared
        if not replica.placement.gpus:  # who waits for a GPU uses the CPU as well
            used, now = await asyncio.to_thread(cpu_seconds, replica.pid), time.monotonic()
            if self._pulse.heard_at != silence:
                return
            if self._cpu:
                then, before = self._cpu
                self._computing = used - before >= self._timing.computing_share * (now - then)
            self._cpu = now, used
        if replica.in_flight:
            timeout = self._timing.probe_timeout_seconds
            tokens = await count(shared.session, replica, shared.engine.progress_counters, timeout)
            if tokens is None or self._pulse.heard_at != silence:
                return
            if self._tokens is not None and tokens > self._tokens:
                self._alive()
            else:
                self._tokens = tokens

    def _alive(self) -> None:
        """Back in rotation at once."""
        self._heard(time.monotonic())
        self._verdict = Verdict.MOVING
        self._place()

    async def _follow_log(self) -> None:
        """Takes phases and decisions of the start from the log; later keeps it from filling the disk."""
        replica, timing = self._replica, self._timing
        if not replica.ready_at:  # else adopted: its record is complete
            while not replica.ready_at:
                self._read_log()
                await asyncio.sleep(timing.log_poll_seconds)
            await asyncio.sleep(timing.decisions_seconds)
            self._read_log()
            await self._settled()
        while True:
            await asyncio.to_thread(logs.bound, self._shared.folder.log(replica.name), timing.most_log_bytes)
            await asyncio.sleep(_LOG_BOUND_SECONDS)

    def _read_log(self) -> None:
        replica = self._replica
        for line in self._tail.lines():
            seen = self._shared.engine.observe(line)
            if seen and self._warm_up.task:  # what the first picture sets off is no phase of the engine's start
                seen = Observation(decisions={k: v for k, v in seen.decisions.items() if k not in replica.decisions})
            if seen and seen.phase == Phase.READY:
                self.probe_now()  # only /health decides
            elif seen and startup.note(replica, seen, time.time()):
                self._shared.on_change(replica)
