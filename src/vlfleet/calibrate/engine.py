"""One engine for a short while: started as the fleet starts it, and ended whatever happens."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp

from vlfleet.engine.launch import Engine, EngineSpec, FailureKind, Placement, Value
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
_PORT_TRIES = 3


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
    log = folder.log(name)
    for _ in range(_PORT_TRIES):
        port, key = free_port(), secrets.token_urlsafe(24)
        launch = engine.launch(spec, placement, port, key)
        one = Running(f"http://127.0.0.1:{port}", {"Authorization": f"Bearer {key}"}, spec.served_model_name, {})
        process = await engine_of(*spawn(launch.argv, launch.env, folder, name, _ADOPT_SECONDS))
        try:
            decisions = await _ready(engine, process, log, one, tell)
            yield replace(one, decisions={**launch.decisions, **decisions})
            return
        except _PortTakenError as error:
            taken = error
        finally:
            await process.stop(_GRACE_SECONDS)
    raise taken


class _PortTakenError(VlfleetError):
    """Between the choice of a port and an engine's first use of it pass seconds, in which others choose too."""


async def _ready(
    engine: Engine, process: EngineProcess, log: Path, one: Running, tell: Callable[[str], None]
) -> dict[str, Value]:
    """Follows the log until the engine answers; what it told."""
    phase, tail = "start", Tail(log)
    decisions: dict[str, Value] = {}
    session = aiohttp.ClientSession(one.url, headers=dict(one.headers))
    try:
        async with asyncio.timeout(START_SECONDS), session:
            while True:
                ready = await _answers(session, one.model)
                for line in tail.lines():
                    if seen := engine.observe(line):
                        decisions |= seen.decisions
                        phase = seen.phase or phase
                if ready:
                    return decisions
                if not process.alive():
                    raise _ended(engine, log)
                tell(phase)
                await asyncio.sleep(_TICK_SECONDS)
    except TimeoutError:
        cause = f"the engine was not ready within {START_SECONDS:.0f} s: {last_line(log)}"
        raise VlfleetError(cause, f"see {log}") from None


async def _answers(session: aiohttp.ClientSession, model: str) -> bool:
    """Whether it is healthy and serves `model`: another program that took the port does not."""
    timeout = aiohttp.ClientTimeout(total=2)
    try:
        async with session.get("/health", timeout=timeout) as answer:
            healthy = answer.status == 200
        async with session.get("/v1/models", timeout=timeout) as answer:
            return healthy and model in await answer.text()
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False


def _ended(engine: Engine, log: Path) -> VlfleetError:
    """Why, by its log."""
    failure = engine.failure(tail_lines(log, 1000))
    if failure is None:
        return VlfleetError(f"the engine ended while it started: {last_line(log)[:200]}", f"see {log}")
    kind = _PortTakenError if failure.kind is FailureKind.PORT else VlfleetError
    return kind(failure.cause, failure.remedy or f"see {log}")
