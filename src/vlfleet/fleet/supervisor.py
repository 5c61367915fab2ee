"""Starts, watches and stops the replicas of one fleet, and keeps its state file."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace

from vlfleet.engine.launch import Engine
from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.fleet.folder import FleetFolder
from vlfleet.fleet.health import open_session
from vlfleet.fleet.life import ReplicaLife, new_replica
from vlfleet.fleet.processes import EngineProcess, ProcessId, kill_marked
from vlfleet.fleet.replica import Phase, Replica
from vlfleet.fleet.spec import FleetSpec, is_loopback
from vlfleet.fleet.state import FleetState, Status, load, save
from vlfleet.fleet.timing import Timing

_DRAIN_POLL_SECONDS = 0.02


class Supervisor:
    """One fleet's replicas. The caller holds the fleet's lock. `say` gets lines for a person."""

    def __init__(
        self,
        spec: FleetSpec,
        engine: Engine,
        folder: FleetFolder,
        timing: Timing | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.spec = spec
        self.replicas = [new_replica(f"r{number}", spec.engine) for number in range(spec.replicas)]
        """The same objects for good."""
        self._engine, self._folder, self._timing, self._say = engine, folder, timing or Timing(), say
        self._lives: list[ReplicaLife] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._saver: asyncio.Task[None] | None = None
        self._dirty = asyncio.Event()
        self._closing = False
        me = ProcessId.of(os.getpid())
        assert me is not None
        self._state = FleetState(spec, me, time.time(), replicas=self.replicas)

    async def start(self) -> None:
        """Takes over what still runs of this fleet, starts the rest, and returns at once.

        Raises:
            VlfleetError: the engine says beforehand that its options are wrong, or that the replicas cannot fit.
        """
        self._session = open_session()
        running = await self._take_over()
        if not running:  # else some serve: one that does not fit beside them fails alone
            await self._prepare()
        for replica in self.replicas:
            life = ReplicaLife(
                replica, self.spec.engine_spec, self._engine, self._folder, self._timing, self._session, self._changed
            )
            self._lives.append(life)
        self._saver = asyncio.create_task(self._keep_state())
        self._tasks = [asyncio.create_task(life.run(running.get(life.replica.name))) for life in self._lives]

    async def _prepare(self) -> None:
        """Asks the engine whether this can work here, and gives each replica its place."""
        exposed = not is_loopback(self.spec.host)
        prepared = await asyncio.to_thread(
            self._engine.prepare, self.spec.engine_spec, len(self.replicas), exposed=exposed
        )
        for note in prepared.notes:
            self._say(note)
        for replica, placement in zip(self.replicas, prepared.placements, strict=True):
            replica.placement = placement

    async def _take_over(self) -> dict[str, EngineProcess]:
        """The processes of a killed supervisor that can be kept, their records restored; its others are ended."""
        try:
            state = load(self._folder)
        except ValueError as error:
            self._say(str(error))
            state = None
        alive = {name: each for name, each in state.processes.items() if each.alive()} if state else {}
        names = " ".join(sorted(alive))
        if alive and state and state.spec.engine_part != self.spec.engine_part:
            self._say(f"stopping {names}: they run another model, number of replicas or arguments than asked for now")
            await asyncio.gather(*(each.stop(self._timing.stop_seconds) for each in alive.values()))
            alive = {}
        kept = frozenset(each.mark for each in alive.values())
        await asyncio.to_thread(kill_marked, f"{self._folder.path}/", kept)
        if alive and state:
            self._say(f"adopting {names}, which still run")
            self._restore({replica.name: replica for replica in state.replicas if replica.name in alive})
        return alive

    def _restore(self, records: dict[str, Replica]) -> None:
        """What a replica was under its last supervisor, but for what only a living gateway knows."""
        for replica in self.replicas:
            if old := records.get(replica.name):
                vars(replica).update(vars(old))
                replica.phase, replica.detail = Phase.STARTING, "adopted"
                replica.in_flight, replica.outstanding_work = 0, 0.0

    def at_port(self, port: int) -> None:
        """The gateway got this port (it may have been asked for any free one)."""
        self.spec = self._state.spec = replace(self.spec, port=port)

    def _changed(self, replica: Replica) -> None:
        self._dirty.set()

    def probe_now(self, replica: Replica) -> None:
        """The gateway could not reach this replica: look at it at once."""
        for life in self._lives:
            if life.replica is replica:
                life.probe_now()

    async def failed(self) -> VlfleetError:
        """Returns when every replica has been given up, with the reason: exit code 4 if the fleet had been serving."""
        await asyncio.gather(*self._tasks)
        reasons = {life.replica.name: life.failure for life in self._lives if life.failure}
        first = next(iter(reasons.values()))
        same = all(reason.cause == first.cause for reason in reasons.values())
        cause = first.cause if same else "; ".join(f"{name}: {each.cause}" for name, each in reasons.items())
        served = any(life.ever_ready for life in self._lives)
        which = "every replica" if len(reasons) > 1 else "the replica"
        code = ExitCode.UNHEALTHY if served else ExitCode.FAILED
        return VlfleetError(f"{which} has failed: {cause}", first.remedy, code)

    async def drain(self, timeout_seconds: float, now: asyncio.Event) -> None:
        """No restarts any more; waits until the gateway has no request in flight, the time is over, or `now`."""
        self._state.status = "draining"
        await self._cancel_lives()
        for replica in self.replicas:
            if replica.phase is Phase.READY:
                replica.phase = Phase.DRAINING
        self._dirty.set()
        deadline = time.monotonic() + timeout_seconds
        while any(replica.in_flight for replica in self.replicas) and time.monotonic() < deadline:
            if now.is_set():
                return
            await asyncio.sleep(_DRAIN_POLL_SECONDS)

    async def stop(self, status: Status = "stopped", error: str = "") -> None:
        """Ends every engine: SIGTERM, SIGKILL after `stop_seconds`, and whatever is left of them after that."""
        await self._cancel_lives()
        running = [life.process for life in self._lives if life.process]
        await asyncio.gather(*(process.stop(self._timing.stop_seconds) for process in running))
        await asyncio.to_thread(kill_marked, f"{self._folder.path}/")
        for life in self._lives:
            life.process, life.replica.pid = None, 0
            if life.replica.phase is not Phase.FAILED:
                life.replica.phase, life.replica.detail = Phase.STOPPED, ""
        self._state.status, self._state.error = status, error
        self._closing = True
        self._dirty.set()
        if self._saver:
            await self._saver
        await self._session.close()

    def kill(self) -> None:
        """Ends every engine now; a `stop` that is under way returns soon after."""
        for life in self._lives:
            if life.process:
                life.process.engine.send(signal.SIGKILL)

    async def _cancel_lives(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep_state(self) -> None:
        """Saves every change at once, and the gateway's counters every second; a full disk does not stop the fleet."""
        saved, trouble = b"", ""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._dirty.wait(), self._timing.save_counters_seconds)
            durable = self._dirty.is_set()
            closing = self._closing
            self._dirty.clear()
            self._state.processes = {life.replica.name: life.process for life in self._lives if life.process}
            state = self._state.to_json()
            try:
                if state != saved:
                    await asyncio.to_thread(save, self._folder, state, durable=durable)
                    saved = state
            except OSError as error:
                if str(error) != trouble:
                    trouble = str(error)
                    self._say(f"the state file cannot be written: {error}")
            if closing:
                return
