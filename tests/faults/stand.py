"""A fleet of fake engines as a person has one: `vlfleet up` as a process, every engine a process, and what is done to
them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from tests.fakes.launch import REPO
from vlfleet.fleet.folder import FleetFolder
from vlfleet.fleet.life import free_port
from vlfleet.fleet.processes import kill_marked, marked
from vlfleet.fleet.replica import Phase, Replica
from vlfleet.fleet.state import FleetState, load

MODEL = "m"
PATIENCE_SECONDS = 40.0
PROGRAM = (sys.executable, "-m", "tests.faults.up")


class Stand:
    """A running `vlfleet up`, which may be killed and started again."""

    def __init__(self, home: Path, arguments: Sequence[str], env: Mapping[str, str], prefix: Sequence[str]) -> None:
        self.home, self._arguments, self._prefix = home, arguments, prefix
        self._env = {**os.environ, "VLFLEET_HOME": str(home), "PYTHONPATH": str(REPO), **env}
        self.process: asyncio.subprocess.Process | None = None
        self.url = ""
        self.told = home.parent / "up.log"
        """What `up` says to a person, of all its starts."""

    async def start(self) -> None:
        """Returns when the gateway listens."""
        with self.told.open("ab") as told:
            command = (*self._prefix, *PROGRAM, "up", *self._arguments)
            self.process = await asyncio.create_subprocess_exec(
                *command, env=self._env, cwd=REPO, stdout=told, stderr=told, start_new_session=True
            )
        await self.until(lambda: self._serving() is not None)
        state = self._serving()
        assert state
        self.url = state.spec.url

    def _serving(self) -> FleetState | None:
        assert self.process
        assert self.process.returncode is None, self.told.read_text()
        state = load(self.folder)
        return state if state and state.supervisor.pid == self.pid and state.spec.port else None

    @property
    def pid(self) -> int:
        """Of supervisor and gateway."""
        assert self.process
        return self.process.pid

    @property
    def folder(self) -> FleetFolder:
        """As the fleet sees it, whatever it has mounted there."""
        seen = Path(f"/proc/{self.pid}/root{self.home}") if self._prefix else self.home
        return FleetFolder(seen / "default")

    @property
    def state(self) -> FleetState:
        state = load(self.folder)
        assert state
        return state

    @property
    def replicas(self) -> list[Replica]:
        return self.state.replicas

    def replica(self, name: str) -> Replica:
        return next(replica for replica in self.replicas if replica.name == name)

    def ready(self) -> list[str]:
        state = load(self.folder)
        return [replica.name for replica in state.replicas if replica.phase is Phase.READY] if state else []

    async def all_ready(self) -> None:
        await self.until(lambda: len(self.ready()) == len(self.replicas))

    def processes(self) -> list[psutil.Process]:
        """Supervisor, shims and engines."""
        return [psutil.Process(self.pid), *marked(f"{self.home}/default/")]

    async def until(self, condition: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> float:
        """Waits for what another process does; the seconds that it took.

        Raises:
            TimeoutError: it did not come.
        """
        began = time.monotonic()
        while not condition():
            if time.monotonic() - began > seconds:
                raise TimeoutError(self.told.read_text(errors="replace")[-3000:])
            await asyncio.sleep(0.02)
        return time.monotonic() - began

    async def faults(self, name: str, **fields: Any) -> None:
        """Switches faults of one engine: see `tests.fakes.engine.Faults`."""
        url = f"{self.replica(name).base_url}/fake/faults"
        async with aiohttp.ClientSession() as session, session.post(url, json=fields) as answer:
            assert answer.status == 200

    async def seen(self, name: str) -> dict[str, Any]:
        """What reached one engine: see `tests.fakes.engine.Seen`."""
        url = f"{self.replica(name).base_url}/fake/seen"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            facts: dict[str, Any] = await answer.json()
            return facts

    def busiest(self) -> str:
        """The replica with most requests in flight, as of a second ago at most."""
        return max((replica for replica in self.replicas if replica.pid), key=lambda each: each.in_flight).name

    async def engine_has(self, name: str, running: int) -> dict[str, Any]:
        """Waits until exactly so many requests run there; what it has seen by then."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (facts := await self.seen(name))["running"] != running:  # noqa: ASYNC110 - in another process
                await asyncio.sleep(0.02)
        return facts

    async def vlfleet(self, *arguments: str) -> tuple[int, str]:
        """Another command on this fleet; its exit code and what it prints."""
        process = await asyncio.create_subprocess_exec(
            *PROGRAM, *arguments, env=self._env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        out, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode()

    async def kill(self) -> None:
        """kill -9 of supervisor and gateway."""
        assert self.process
        self.process.kill()
        await self.process.wait()

    async def end(self) -> int:
        """SIGTERM, as a service manager does it; the exit code."""
        assert self.process
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.resume()
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        try:
            return await asyncio.wait_for(self.process.wait(), 20.0)
        except TimeoutError:
            await self.kill()
            return -1


@asynccontextmanager
async def stand(
    replicas: int = 2,
    engine: Sequence[str] = (),
    *,
    options: Sequence[str] = (),
    timing: Mapping[str, Any] | None = None,
    prefix: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
) -> AsyncIterator[Stand]:
    """A fleet with `engine` as options of each fake, whose replicas are ready; nothing of it is left afterwards.

    `timing`: fields of `Timing` that are not the product's own. `prefix`: a command that runs `up`.
    """
    with tempfile.TemporaryDirectory(prefix="vlfleet-drill-") as temporary:
        home = Path(temporary) / "home"
        home.mkdir()
        fake = ("--engine", "tests.fakes:FakeEngine", "--served-model-name", MODEL, "--port", str(free_port()))
        arguments = (*fake, "--replicas", str(replicas), *options, "--", *engine)
        added = {"DRILL_CLOCK": str(home.parent / "clock"), **(env or {})}
        if timing:
            added["DRILL_TIMING"] = json.dumps(timing)
        made = Stand(home, arguments, added, prefix)
        try:
            await made.start()
            await made.all_ready()
            yield made
        finally:
            if made.process and made.process.returncode is None:
                await made.end()
            kill_marked(f"{home}/default/")
