"""Starts, watches and stops the replicas of one fleet, and keeps its state file."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import replace

from vlfleet.engine.launch import Engine
from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.fleet.cordon import Cordon, Drain, Event, check_others, chosen, drained
from vlfleet.fleet.folder import FleetFolder
from vlfleet.fleet.health import open_session
from vlfleet.fleet.keeper import Keeper
from vlfleet.fleet.life import ReplicaLife, new_replica
from vlfleet.fleet.processes import EngineProcess, ProcessId, kill_marked
from vlfleet.fleet.replica import Phase, Replica
from vlfleet.fleet.roll import Order, Tell, roll
from vlfleet.fleet.shared import Shared
from vlfleet.fleet.spec import FleetSpec, is_loopback
from vlfleet.fleet.state import FleetState, Status, load
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
        self.lives: list[ReplicaLife] = []
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._all_failed = asyncio.Event()
        self._keeper = Keeper(folder, self._to_save, self._timing.save_counters_seconds, say)
        self._rolling: asyncio.Task[None] | None = None
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
        shared = Shared(
            engine=self._engine,
            served_model_name=self.spec.served_model_name,
            folder=self._folder,
            timing=self._timing,
            session=self._session,
            replicas=self.replicas,
            on_change=self._changed,
            say=self._say,
        )
        healed, fleets = self._state.healed, self.spec.engine_spec
        self.lives = [ReplicaLife(replica, healed.get(replica.name, fleets), shared) for replica in self.replicas]
        self._keeper.start()
        for life in self.lives:
            self._run(life, running.get(life.replica.name))

    def _run(self, life: ReplicaLife, adopted: EngineProcess | None = None) -> None:
        self._tasks[life.replica.name] = asyncio.create_task(life.run(adopted))

    async def renew(self, life: ReplicaLife) -> None:
        """Ends a replica, whatever it does, and starts it with the fleet's own spec as if it had never died."""
        if life.watch:
            life.watch.drain(True)  # it must not become ready any more
        task = self._tasks[life.replica.name]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await life.renew(self.spec.engine_spec)
        self._run(life)

    def restart(self, order: Order, tell: Tell) -> asyncio.Task[None]:
        """Begins a rolling restart; `tell` gets its events, and the task raises what ended it early.

        Raises:
            VlfleetError: there is no such replica, a restart is under way already, or the fleet is stopping.
        """
        names = [replica.name for replica in self.replicas]
        if order.replica and order.replica not in names:
            remedy = f"choose one of: {' '.join(names)}"
            raise VlfleetError(f"there is no replica {order.replica!r}", remedy, ExitCode.USAGE)
        self._check_serving()
        if self._rolling:
            raise VlfleetError("a restart is under way already", "wait for its end: `vlfleet status` shows it")
        self._rolling = asyncio.create_task(roll(self.lives, self.renew, order, tell))
        self._rolling.add_done_callback(self._rolled)
        return self._rolling

    def _rolled(self, task: asyncio.Task[None]) -> None:
        """Tells why a restart ended early: nobody else may be listening any more."""
        self._rolling = None
        if not task.cancelled() and (error := task.exception()):
            self._say(f"the restart ended early: {error}")

    async def cordon(self, order: Cordon, *, cordoned: bool = True) -> list[str]:
        """Takes replicas out of rotation, or puts them back; the names of all that are out by hand now, once the state
        file has them.

        Raises:
            VlfleetError: there is no such replica, nobody else is ready, or the fleet is stopping.
        """
        self._check_serving()
        going = chosen(self.replicas, order.replica)
        if cordoned and not order.force:
            check_others(self.replicas, going)
        for replica in going:
            if replica.cordoned != cordoned:
                replica.cordoned = cordoned
                self._say(f"{replica.name} is {'cordoned: it gets no new request' if cordoned else 'uncordoned'}")
        await self._keeper.kept()
        return [replica.name for replica in self.replicas if replica.cordoned]

    def drained(self, order: Drain) -> AsyncIterator[Event]:
        """Waits for the requests of replicas that are cordoned; what it tells and raises: `cordon.drained`."""
        going = chosen(self.replicas, order.replica)
        return drained(going, order.timeout_seconds, lambda: self._state.status == "serving")

    def _check_serving(self) -> None:
        if self._state.status != "serving":
            raise VlfleetError("the fleet is shutting down", "start it again with `vlfleet up`")

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
        if state and state.status in ("serving", "draining") and state.spec.engine_part == self.spec.engine_part:
            for replica, old in zip(self.replicas, state.replicas, strict=True):
                replica.cordoned = old.cordoned  # also where no engine lives any more: the machine may have crashed
        if alive and state:
            self._say(f"adopting {names}, which still run")
            self._restore(state, alive)
        return alive

    def _restore(self, state: FleetState, alive: Collection[str]) -> None:
        """What the replicas were under their last supervisor, but for what only a living gateway knows.

        One that has ended meanwhile starts on the same GPUs, and with the smaller plan that it was found to need.
        """
        self._state.healed = state.healed
        for replica, old in zip(self.replicas, state.replicas, strict=True):
            replica.placement, replica.adjusted = old.placement, old.adjusted
            if replica.name in alive:
                vars(replica).update(vars(old))
                replica.phase, replica.stalled, replica.unhealthy_at = Phase.STARTING, False, 0.0
                replica.in_flight, replica.outstanding_work, replica.progress_at = 0, 0.0, 0.0
                if replica.ready_at:
                    replica.detail = "adopted"

    @property
    def state(self) -> FleetState:
        """What the state file will say."""
        return self._state

    def at_port(self, port: int, admin_port: int) -> None:
        """The gateway and its admin got these ports (they may have been asked for any free one)."""
        self.spec = self._state.spec = replace(self.spec, port=port, admin_port=admin_port)

    def _changed(self, replica: Replica) -> None:
        self._keeper.changed()
        if all(each.phase is Phase.FAILED for each in self.replicas):
            self._all_failed.set()

    def probe_now(self, replica: Replica) -> None:
        """The gateway could not reach this replica: look at it at once."""
        for life in self.lives:
            if life.replica is replica:
                life.probe_now()

    async def failed(self) -> VlfleetError:
        """Returns when every replica has been given up, with the reason: exit code 4 if the fleet had been serving."""
        await self._all_failed.wait()
        reasons = {life.replica.name: life.failure for life in self.lives if life.failure}
        first = next(iter(reasons.values()))
        same = all(reason.cause == first.cause for reason in reasons.values())
        cause = first.cause if same else "; ".join(f"{name}: {each.cause}" for name, each in reasons.items())
        served = any(life.ever_ready for life in self.lives)
        which = "every replica" if len(reasons) > 1 else "the replica"
        code = ExitCode.UNHEALTHY if served else ExitCode.FAILED
        return VlfleetError(f"{which} has failed: {cause}", first.remedy, code)

    async def drain(self, timeout_seconds: float, now: asyncio.Event) -> None:
        """No restarts any more; waits until the gateway has no request in flight, the time is over, or `now`."""
        self._state.status = "draining"
        await self._cancel_lives()
        for replica in self.replicas:
            if replica.phase in (Phase.READY, Phase.UNHEALTHY):
                replica.phase = Phase.DRAINING
        self._keeper.changed()
        deadline = time.monotonic() + timeout_seconds
        while any(replica.in_flight for replica in self.replicas) and time.monotonic() < deadline:
            if now.is_set():
                return
            await asyncio.sleep(_DRAIN_POLL_SECONDS)

    async def stop(self, status: Status = "stopped", error: str = "") -> None:
        """Ends every engine: SIGTERM, SIGKILL after `stop_seconds`, and whatever is left of them after that."""
        await self._cancel_lives()
        running = [life.process for life in self.lives if life.process]
        await asyncio.gather(*(process.stop(self._timing.stop_seconds) for process in running))
        await asyncio.to_thread(kill_marked, f"{self._folder.path}/")
        for life in self.lives:
            life.process, life.replica.pid = None, 0
            if life.replica.phase is not Phase.FAILED:
                life.replica.phase, life.replica.detail = Phase.STOPPED, ""
        self._state.status, self._state.error = status, error
        await self._keeper.close()
        await self._session.close()

    def kill(self) -> None:
        """Ends every engine now; a `stop` that is under way returns soon after."""
        for life in self.lives:
            if life.process:
                life.process.engine.send(signal.SIGKILL)

    async def _cancel_lives(self) -> None:
        if self._rolling:
            self._rolling.cancel()
            await asyncio.gather(self._rolling, return_exceptions=True)
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _to_save(self) -> bytes:
        fleets = self.spec.engine_spec
        self._state.processes = {life.replica.name: life.process for life in self.lives if life.process}
        self._state.healed = {life.replica.name: life.spec for life in self.lives if life.spec != fleets}
        return self._state.to_json()
