"""How every other command finds the fleets of this machine: by their state files."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from vlfleet.errors import VlfleetError
from vlfleet.fleet.folder import FleetFolder, Lock, locked
from vlfleet.fleet.processes import kill_marked
from vlfleet.fleet.replica import Phase
from vlfleet.fleet.state import FleetState, load, save
from vlfleet.fleet.timing import Timing

_NEW_SUPERVISOR_SECONDS = 5.0


@dataclass(frozen=True)
class LocalFleet:
    """A fleet of which something runs."""

    folder: FleetFolder
    state: FleetState
    supervised: bool
    """Whether its supervisor, and with it the gateway, lives; if not, only replicas are left."""


def find(name: str, warn: Callable[[str], None] = lambda line: None) -> LocalFleet | None:
    """The fleet `name`, or None when nothing of it runs. A damaged state file is told to `warn` and is no fleet.

    Raises:
        VlfleetError: `name` cannot be a fleet's.
    """
    folder = FleetFolder.of(name)
    deadline = time.monotonic() + _NEW_SUPERVISOR_SECONDS
    while True:
        supervised = locked(folder)
        try:
            state = load(folder)
        except ValueError as error:
            warn(str(error))
            return None
        if not supervised:
            running = state and any(process.alive() for process in state.processes.values())
            return LocalFleet(folder, state, supervised=False) if state and running else None
        if state and state.supervisor.alive():
            return LocalFleet(folder, state, supervised=True)
        if time.monotonic() > deadline:
            return None
        time.sleep(0.05)  # a supervisor that has just begun has not written its state yet


def base_url(name: str = "default") -> str:
    """The URL of a local fleet's gateway, such as http://127.0.0.1:8000.

    Raises:
        VlfleetError: no such fleet is being served.
    """
    fleet = find(name)
    option = "" if name == "default" else f" --name {name}"
    if fleet is None:
        raise VlfleetError("no fleet is running here", f"start one with `vlfleet up{option}`, or give --base-url")
    if not fleet.supervised:
        raise VlfleetError("the fleet's gateway was killed", f"`vlfleet up{option}` takes its replicas over")
    return fleet.state.spec.url


async def end(fleet: LocalFleet, timeout_seconds: float) -> None:
    """Ends a fleet with everything that belongs to it. It has `timeout_seconds` to finish its requests.

    Raises:
        VlfleetError: a new supervisor has just taken it over.
    """
    grace = Timing().stop_seconds
    if fleet.supervised:
        supervisor = fleet.state.supervisor
        for number, seconds in (
            (signal.SIGTERM, timeout_seconds),
            (signal.SIGTERM, 2 * grace),
            (signal.SIGKILL, grace),
        ):
            supervisor.send(number)
            try:
                await asyncio.wait_for(supervisor.ended(), seconds)
                break
            except TimeoutError:
                continue
    lock = Lock(fleet.folder)
    if not lock.acquire(grace):
        raise VlfleetError("another `vlfleet up` has just taken this fleet over", "run `vlfleet down` again")
    try:
        await _end_rest(fleet.folder, grace)
    finally:
        lock.release()


async def _end_rest(folder: FleetFolder, grace_seconds: float) -> None:
    """What a supervisor that was killed has left."""
    try:
        state = load(folder)
    except ValueError:
        state = None
    if state and state.processes:
        left = [process for process in state.processes.values() if process.alive()]
        await asyncio.gather(*(process.stop(grace_seconds) for process in left))
        state.status, state.processes = "stopped", {}
        for replica in state.replicas:
            replica.phase, replica.pid = Phase.STOPPED, 0
        save(folder, state.to_json())
    await asyncio.to_thread(kill_marked, f"{folder.path}/")
    folder.control.unlink(missing_ok=True)
