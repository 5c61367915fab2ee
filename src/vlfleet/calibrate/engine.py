"""One engine for a short while: started as the fleet starts it, and ended whatever happens."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from vlfleet.engine.launch import Engine, EngineSpec, Placement, Value
from vlfleet.errors import VlfleetError
from vlfleet.fleet.folder import FleetFolder, Lock
from vlfleet.fleet.life import free_port
from vlfleet.fleet.logs import Tail, last_line, tail_lines
from vlfleet.fleet.processes import EngineProcess, engine_of, kill_marked, spawn

START_SECONDS = 300.0
"""A first start on a machine compiles; 130 s were seen with the 7B on an H200 (0.26)."""
_GRACE_SECONDS = 5.0
_ADOPT_SECONDS = 2.0
"""After a kill -9 of this process its engines live on for so long."""
_TICK_SECONDS = 0.2


@dataclass(frozen=True)
class Running:
    """An engine that is ready."""

    url: str
    headers: Mapping[str, str]
    model: str
    """What it is called in requests."""
    decisions: Mapping[str, Value]
    """What its log said of its start."""


@asynccontextmanager
async def holding(folder: Path) -> AsyncIterator[FleetFolder]:
    """A folder for logs whose lock is held: shims end their engines when this process is gone.

    Raises:
        VlfleetError: another process holds it; two would measure each other.
    """
    fleet = FleetFolder(folder)
    fleet.make()
    lock = Lock(fleet)
    if not lock.acquire():
        raise VlfleetError("another `vlfleet calibrate` runs on this machine", "wait for its end")
    try:
        yield fleet
    finally:
        await asyncio.to_thread(kill_marked, f"{fleet.path}/")
        lock.release()


@asynccontextmanager
async def running(
    engine: Engine,
    spec: EngineSpec,
    placement: Placement,
    folder: FleetFolder,
    name: str,
    tell: Callable[[str], None],
) -> AsyncIterator[Running]:
    """The engine, once it is ready; nothing is left of it afterwards.

    Raises:
        VlfleetError: it ended before it was ready, or was not ready within `START_SECONDS`.
    """
    port, key, log = free_port(), secrets.token_urlsafe(24), folder.log(name)
    launch = engine.launch(spec, placement, port, key)
    started = spawn(launch.argv, launch.env, folder, name, _ADOPT_SECONDS)
    process = await engine_of(*started)
    try:
        url, headers = f"http://127.0.0.1:{port}", {"Authorization": f"Bearer {key}"}
        decisions = dict(launch.decisions)
        async with asyncio.timeout(START_SECONDS):
            await _ready(engine, process, log, url, decisions, tell)
        yield Running(url, headers, spec.served_model_name, decisions)
    except TimeoutError:
        last = last_line(log)
        raise VlfleetError(f"the engine was not ready within {START_SECONDS:.0f} s: {last}", f"see {log}") from None
    finally:
        await process.stop(_GRACE_SECONDS)


async def _ready(
    engine: Engine,
    process: EngineProcess,
    log: Path,
    url: str,
    decisions: dict[str, Value],
    tell: Callable[[str], None],
) -> None:
    """Follows the log until /health says 200; `decisions` takes what it tells."""
    phase, tail = "start", Tail(log)
    async with aiohttp.ClientSession() as session:
        while True:
            ready = await _healthy(session, url)
            for line in tail.lines():
                if seen := engine.observe(line):
                    decisions |= seen.decisions
                    phase = seen.phase or phase
            if ready:
                return
            if not process.alive():
                raise _ended(engine, log)
            tell(phase)
            await asyncio.sleep(_TICK_SECONDS)


async def _healthy(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(f"{url}/health", timeout=aiohttp.ClientTimeout(total=2)) as answer:
            return answer.status == 200
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False


def _ended(engine: Engine, log: Path) -> VlfleetError:
    """Why, by its log."""
    failure = engine.failure(tail_lines(log, 1000))
    if failure is None:
        return VlfleetError(f"the engine ended while it started: {last_line(log)[:200]}", f"see {log}")
    return VlfleetError(failure.cause, failure.remedy or f"see {log}")
