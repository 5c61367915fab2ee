"""The life of one replica: start, become ready, die, be explained, wait, start again, or be given up."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import signal
import socket
import time
from collections.abc import Callable

import aiohttp

from vlfleet.engine.launch import Engine, EngineSpec, Failure
from vlfleet.errors import VlfleetError
from vlfleet.fleet import logs, memory
from vlfleet.fleet.folder import FleetFolder
from vlfleet.fleet.health import Health, probe
from vlfleet.fleet.processes import EngineProcess, engine_of, read_exit, spawn
from vlfleet.fleet.replica import Phase, Replica
from vlfleet.fleet.timing import Death, Timing

_KEY_BYTES = 24  # 192 bit
_LOG_BOUND_SECONDS = 10.0


def free_port() -> int:
    """A loopback port that nobody listens on now. Another may take it before the engine does: that is a death."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def new_replica(name: str, engine: str) -> Replica:
    return Replica(name, port=0, api_key="", engine=engine)


class ReplicaLife:
    """Owns one replica's process and writes the supervisor's part of its record."""

    def __init__(
        self,
        replica: Replica,
        spec: EngineSpec,
        engine: Engine,
        folder: FleetFolder,
        timing: Timing,
        session: aiohttp.ClientSession,
        on_change: Callable[[Replica], None],
    ) -> None:
        self.replica = replica
        self.process: EngineProcess | None = None
        self.failure: Failure | None = None
        """Why it was given up."""
        self.ever_ready = False
        self._spec, self._engine, self._folder, self._timing = spec, engine, folder, timing
        self._session, self._on_change = session, on_change
        self._deaths: list[Death] = []
        self._probe_now = asyncio.Event()
        self._oom_kills = memory.oom_kills()

    def probe_now(self) -> None:
        """The gateway could not reach it: ask at once, not at the next turn."""
        self._probe_now.set()

    async def run(self, adopted: EngineProcess | None = None) -> None:
        """Keeps the replica alive, beginning with `adopted` if it runs already; returns when it is given up."""
        self.process = adopted
        while True:
            try:
                failure = await self._one_run()
            except VlfleetError as error:
                failure = Failure(error.cause, error.remedy, retry=False)
            except Exception as error:  # no process, no disk, a fault of an engine's class: its neighbours serve on
                failure = Failure(f"it cannot be run: {error}")
                if self.process:
                    await self.process.stop(0)
            delay = self._after(failure)
            if delay is None:
                return
            await asyncio.sleep(delay)
            self.replica.restarts += 1

    def _set(self, phase: Phase, detail: str = "") -> None:
        if (self.replica.phase, self.replica.detail) != (phase, detail):
            self.replica.phase, self.replica.detail = phase, detail
            self._on_change(self.replica)

    async def _one_run(self) -> Failure:
        process = self.process or await self._start()
        tasks = [asyncio.create_task(each) for each in (process.ended(), self._watch_health(), self._follow_log())]
        ended, unhealthy, _ = tasks
        try:
            await asyncio.wait((ended, unhealthy), return_when=asyncio.FIRST_COMPLETED)
            self._set(Phase.BACKOFF, "ended")  # at once: the gateway must not choose it any more
            if ended.done():
                await process.cleared()
                return self._explain(process)
            failure = unhealthy.result()
            assert isinstance(failure, Failure)
            await process.stop(self._timing.stop_seconds)
            return failure
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _start(self) -> EngineProcess:
        replica = self.replica
        replica.port, replica.api_key = free_port(), secrets.token_urlsafe(_KEY_BYTES)
        replica.started_at, replica.ready_at, replica.retry_at, replica.pid = time.time(), 0.0, 0.0, 0
        launch = self._engine.launch(self._spec, replica.placement, replica.port, replica.api_key)
        self._oom_kills = memory.oom_kills()
        started = spawn(launch.argv, launch.env, self._folder, replica.name, self._timing.adopt_seconds)
        self._set(Phase.STARTING)
        self.process = await engine_of(*started)
        replica.pid = self.process.engine.pid
        self._on_change(replica)
        return self.process

    async def _watch_health(self) -> Failure:
        """Moves the replica in and out of READY; returns when it has to be ended."""
        replica, timing = self.replica, self._timing
        silent, out_since = 0, 0.0
        while True:
            health = await probe(self._session, replica, timing.probe_timeout_seconds)
            now = time.time()
            silent = silent + 1 if health is Health.SILENT else 0
            if health is Health.GOOD:
                self._ready(now)
            elif replica.phase is Phase.READY:
                if health is Health.BAD or silent >= timing.probe_timeouts:
                    out_since = now
                    self._set(Phase.STARTING, "not healthy")
            elif replica.ready_at and now - (out_since or now) > timing.unhealthy_seconds:
                return Failure(f"it answered no /health for {timing.unhealthy_seconds:.0f} s")
            elif not replica.ready_at and now - replica.started_at > timing.start_timeout_seconds:
                return Failure(f"it was not ready after {timing.start_timeout_seconds:.0f} s")
            ready = replica.phase is Phase.READY
            await self._pause(timing.probe_ready_seconds if ready else timing.probe_starting_seconds)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._probe_now.wait(), seconds)
        self._probe_now.clear()

    def _ready(self, now: float) -> None:
        self.ever_ready = True
        self.replica.ready_at = self.replica.ready_at or now
        self._set(Phase.READY)

    async def _follow_log(self) -> None:
        """Takes the phases of the start from the log; later keeps it from filling the disk."""
        replica, log = self.replica, self._folder.log(self.replica.name)
        tail = logs.Tail(log)
        while not replica.ready_at:
            for line in tail.lines():
                seen = self._engine.observe(line)
                phase = seen.phase if seen else ""
                if phase == Phase.READY:
                    self.probe_now()  # only /health decides
                elif phase and not replica.ready_at:
                    self._set(Phase.STARTING, phase)
            await asyncio.sleep(self._timing.log_poll_seconds)
        while True:
            await asyncio.to_thread(logs.bound, log, self._timing.most_log_bytes)
            await asyncio.sleep(_LOG_BOUND_SECONDS)

    def _explain(self, process: EngineProcess) -> Failure:
        """Why the engine ended: what the kernel did, what its log says, or at least how."""
        log = self._folder.log(self.replica.name)
        end = read_exit(self._folder, self.replica.name, process.engine.pid)
        if end is None:
            return Failure("it was killed together with its shim")
        if end.signal == signal.SIGKILL:  # nothing in its log can say why
            if memory.oom_kills() > self._oom_kills:
                return Failure("the kernel killed it: no memory left", "start fewer replicas, or a smaller model")
            return Failure(str(end))
        known = self._engine.failure(logs.tail_lines(log, 1000))
        last = logs.last_line(log)
        return known or Failure(f"{end}: {last[:200]}" if last else str(end))

    def _after(self, failure: Failure) -> float | None:
        """Writes the death down; how long to wait before the next start, or None when there will be none."""
        replica, policy, now = self.replica, self._timing.restart, time.time()
        self.process, replica.pid = None, 0
        self._deaths.append(Death(now, now - replica.ready_at if replica.ready_at else 0.0))
        del self._deaths[:-32]
        delay = policy.delay_seconds(self._deaths) if failure.retry else None
        remedy = failure.remedy or f"vlfleet logs {replica.name} shows more"
        if delay is None:
            loop = f"it died {policy.deaths} times in {policy.window_seconds / 60:.0f} minutes; the last time: "
            self.failure = Failure((loop if failure.retry else "") + failure.cause, remedy, failure.retry)
            replica.error = f"{self.failure.cause} ({remedy})"
            self._set(Phase.FAILED)
            return None
        delay += delay * policy.jitter * random.random()  # noqa: S311 - spreads starts, hides nothing
        replica.error, replica.retry_at = f"{failure.cause} ({remedy})", now + delay
        self._set(Phase.BACKOFF)
        self._on_change(replica)
        return delay
