"""The life of one replica: start, become ready, die, be explained, wait, start again, or be given up."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import secrets
import signal
import socket
import time

from vlfleet.engine.launch import EngineSpec, Failure, FailureKind
from vlfleet.errors import VlfleetError
from vlfleet.fleet import logs, memory, startup
from vlfleet.fleet.processes import EngineProcess, engine_of, kill_marked, read_exit, spawn
from vlfleet.fleet.recovery import MACHINE, PASSING, Recovery
from vlfleet.fleet.replica import Phase, Replica
from vlfleet.fleet.shared import Shared
from vlfleet.fleet.watch import HUNG, Watch

_KEY_BYTES = 24  # 192 bit


def free_port() -> int:
    """A loopback port that nobody listens on now. Another may take it before the engine does: that is a death."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def new_replica(name: str, engine: str) -> Replica:
    return Replica(name, port=0, api_key="", engine=engine)


class ReplicaLife:
    """Owns one replica's process and writes the supervisor's part of its record."""

    def __init__(self, replica: Replica, spec: EngineSpec, shared: Shared) -> None:
        self.replica = replica
        self.process: EngineProcess | None = None
        self.watch: Watch | None = None
        """Of the run that goes on."""
        self.failure: Failure | None = None
        """Why it was given up."""
        self.ever_ready = False
        self._warms = True
        """Whether the next run begins with a picture; not after one that died of it: text may do all the same."""
        self._ready_since = 0.0
        """Of the last run, by the monotonic clock; 0 when it never was ready."""
        self._shared = shared
        self._recovery = Recovery(shared.engine, spec, shared.timing.restart)
        self._oom_kills = memory.oom_kills()

    @property
    def spec(self) -> EngineSpec:
        """What it is started with next."""
        return self._recovery.spec

    async def renew(self, spec: EngineSpec) -> None:
        """Ends whatever of it runs and forgets its deaths; the next `run` starts with `spec`. None may be going on."""
        if self.process:
            await self.process.stop(self._shared.timing.stop_seconds)
        # A start that was cancelled halfway has a shim that nobody knows.
        await asyncio.to_thread(kill_marked, f"{self._shared.folder.path}/{self.replica.name}/")
        self._recovery = Recovery(self._shared.engine, spec, self._shared.timing.restart)
        self.process, self.failure, self._warms = None, None, True
        replica = self.replica
        replica.pid, replica.retry_at, replica.error, replica.adjusted = 0, 0.0, "", ""
        self._shared.set(replica, Phase.STARTING)

    def probe_now(self) -> None:
        """The gateway could not reach it: ask at once, not at the next turn."""
        if self.watch:
            self.watch.probe_now()

    async def run(self, adopted: EngineProcess | None = None) -> None:
        """Keeps the replica alive, beginning with `adopted` if it runs already; returns when it is given up."""
        self.process = adopted
        while True:
            try:
                failure = await self._one_run()
            except VlfleetError as error:
                failure = Failure(error.cause, error.remedy, retry=False)
            except Exception as error:  # no process, no disk, a fault of an engine's class: its neighbours serve on
                passing = isinstance(error, OSError) and error.errno in PASSING
                failure = Failure(f"it cannot be run: {error}", rule=MACHINE if passing else "")
                if self.process:
                    await self.process.stop(0)
            delay = self._after(failure)
            if delay is None:
                return
            await asyncio.sleep(delay)
            self.replica.restarts += 1

    async def _one_run(self) -> Failure:
        replica, shared = self.replica, self._shared
        process = self.process or await self._start()
        watch = self.watch = Watch(replica, shared, self._learn, warms=self._warms)
        ended, unfit = asyncio.create_task(process.ended()), asyncio.create_task(watch.run())
        try:
            await asyncio.wait((ended, unfit), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (ended, unfit):
                task.cancel()
            await asyncio.gather(ended, unfit, return_exceptions=True)
            self._ready_since, self._warms = watch.ready_since, not watch.died_cold
            self.watch, replica.unhealthy_at, replica.stalled = None, 0.0, False
        shared.set(replica, Phase.BACKOFF, "ended")  # at once: the gateway must not choose it any more
        if not self._warms:
            shared.say(f"{replica.name} ended over a first picture: its next start goes without one")
        if unfit.cancelled():
            await process.cleared()
            return self._explain(process)
        failure = unfit.result()
        await process.stop(0 if failure.rule == HUNG else shared.timing.stop_seconds)
        return failure

    async def _start(self) -> EngineProcess:
        replica, shared = self.replica, self._shared
        replica.port, replica.api_key = free_port(), secrets.token_urlsafe(_KEY_BYTES)
        replica.started_at, replica.ready_at, replica.retry_at, replica.pid = time.time(), 0.0, 0.0, 0
        replica.progress_at = self._ready_since = 0.0
        launch = shared.engine.launch(self.spec, replica.placement, replica.port, replica.api_key)
        self._oom_kills = memory.oom_kills()
        started = spawn(launch.argv, launch.env, shared.folder, replica.name, shared.timing.adopt_seconds)
        startup.begin(replica, replica.started_at)
        replica.decisions |= launch.decisions
        shared.set(replica, Phase.STARTING)
        self.process = await engine_of(*started)
        replica.pid = self.process.engine.pid
        shared.on_change(replica)
        return self.process

    async def _learn(self) -> None:
        """Lets the engine correct the next plans by this start; whatever goes wrong there, the replica serves."""
        replica, shared = self.replica, self._shared
        decisions = dict(replica.decisions)
        try:
            lesson = await asyncio.to_thread(shared.engine.learn, self.spec, replica.placement, decisions)
        except Exception as error:
            shared.say(f"{replica.name}: what its start told of memory is not kept: {error}")
            return
        if lesson is None:
            return
        replica.decisions |= lesson.decisions
        shared.on_change(replica)
        if lesson.said:
            shared.say(f"{replica.name}: {lesson.said}")

    def _explain(self, process: EngineProcess) -> Failure:
        """Why the engine ended: what the kernel did, what its log says, or at least how."""
        log = self._shared.folder.log(self.replica.name)
        end = read_exit(self._shared.folder, self.replica.name, process.engine.pid)
        if end is None:
            return Failure("how it ended is not known: it was killed together with its shim, or the disk is full")
        if end.signal == signal.SIGKILL:  # nothing in its log can say why
            if memory.oom_kills() > self._oom_kills:
                remedy = "start fewer replicas, or a smaller model"
                return Failure("the kernel killed it: no memory left", remedy, kind=FailureKind.MACHINE)
            return Failure(str(end))
        known = self._shared.engine.failure(logs.tail_lines(log, 1000))
        last = logs.last_line(log)
        return known or Failure(f"{end}: {last[:200]}" if last else str(end))

    def _after(self, failure: Failure) -> float | None:
        """Writes the death down; how long to wait before the next start, or None when there will be none."""
        replica, shared, now = self.replica, self._shared, time.time()
        self.process, replica.pid = None, 0
        self.ever_ready |= bool(replica.ready_at)
        if failure.retry and shared.folder.full():  # an engine that cannot write its log may die of that alone
            cause = f"{failure.cause}; the disk of {shared.folder.path} is full"
            failure = dataclasses.replace(failure, cause=cause, remedy="make room there", rule=MACHINE)
        before = self.spec
        step = self._recovery.after(failure, time.monotonic(), ready_at=self._ready_since, decisions=replica.decisions)
        remedy = step.failure.remedy or f"vlfleet logs {replica.name} shows more"
        replica.error = f"{step.failure.cause} ({remedy})"
        if self.spec != before:
            replica.adjusted = "; ".join(filter(None, (replica.adjusted, step.said)))
            shared.say(f"{replica.name} ran out of GPU memory; starting again with {step.said}")
        elif step.said:
            shared.say(f"{replica.name}: {step.said}")
        if step.delay_seconds is None:
            self.failure = Failure(step.failure.cause, remedy, failure.retry)
            shared.set(replica, Phase.FAILED)
            return None
        delay = step.delay_seconds * (1 + shared.timing.restart.jitter * random.random())  # noqa: S311 - spreads starts
        if delay:
            replica.retry_at = now + delay
            shared.set(replica, Phase.BACKOFF)
        shared.on_change(replica)
        return delay
