"""What the fleet's tests share: fast clocks, engines of a few lines, and a folder that is left without a process."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from vlfleet.demo import model_path
from vlfleet.engine.launch import (
    Engine,
    EngineSpec,
    Failure,
    Launch,
    Lesson,
    Observation,
    Placement,
    Preparation,
    Value,
)
from vlfleet.fleet.folder import FleetFolder, Lock
from vlfleet.fleet.processes import EngineProcess, engine_of, kill_marked, marked, spawn
from vlfleet.fleet.spec import FleetSpec
from vlfleet.fleet.supervisor import Supervisor
from vlfleet.fleet.timing import RestartPolicy, Timing

FAST = Timing(
    warm_up_seconds=1.0,
    probe_starting_seconds=0.02,
    probe_ready_seconds=0.05,
    probe_timeout_seconds=0.3,
    unhealthy_seconds=0.5,
    watch_seconds=0.02,
    quiet_seconds=0.3,
    answer_seconds=0.8,  # no less: an engine that shares two busy cores is slow
    hung_seconds=1.5,
    decisions_seconds=0.1,
    stop_seconds=1.0,
    log_poll_seconds=0.02,
    save_counters_seconds=0.1,
    restart=RestartPolicy(first_seconds=0.05, most_seconds=0.2),
)
PATIENCE_SECONDS = 30.0

SERVER = """
import http.server, os, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()
    do_POST = do_GET
    def log_message(self, *_): pass
print("phase: load", flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""
"""Answers 200 to everything; starts in a tenth of a second."""


class ScriptEngine:
    """An engine that is a few lines of Python, given the port as sys.argv[1]."""

    name = "script"
    progress_counters: tuple[str, ...] = ("vllm:generation_tokens_total", "vllm:prompt_tokens_total")
    needs_warm_up = False

    def __init__(self, script: str = SERVER) -> None:
        self.script = script
        self.launched: list[tuple[int, str]] = []

    def media_cache_gb(self, spec: EngineSpec) -> float:
        return 0.0

    def default_replicas(self, spec: EngineSpec) -> int:
        return 2

    def prepare(self, spec: EngineSpec, replicas: int, *, exposed: bool = False) -> Preparation:
        """It fits everywhere."""
        return Preparation((Placement(),) * replicas)

    def launch(self, spec: EngineSpec, placement: Placement, port: int, api_key: str) -> Launch:
        self.launched.append((port, api_key))
        return Launch((sys.executable, "-I", "-S", "-c", self.script, str(port)), {"VLFLEET_ENGINE_KEY": api_key})

    def observe(self, line: str) -> Observation | None:
        return Observation(line.removeprefix("phase: ")) if line.startswith("phase: ") else None

    def learn(self, spec: EngineSpec, placement: Placement, decisions: Mapping[str, Value]) -> Lesson | None:
        return None

    def failure(self, lines: Sequence[str]) -> Failure | None:
        found = next((line for line in lines if line.startswith("ERROR: ")), "")
        return Failure(found.removeprefix("ERROR: "), "buy memory", retry="fatal" not in found) if found else None

    def heal(self, spec: EngineSpec, failure: Failure, decisions: Mapping[str, Value]) -> tuple[EngineSpec, str] | None:
        return None


def make_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FleetFolder]:
    """An empty fleet folder; after the test no process of its fleet may be left."""
    monkeypatch.setenv("VLFLEET_HOME", str(tmp_path / "home"))
    folder = FleetFolder.of("default")
    folder.make()
    yield folder
    left = [" ".join(process.cmdline()) for process in marked(f"{folder.path}/")]
    kill_marked(f"{folder.path}/")
    assert not left


def linked_checkpoint(folder: Path) -> Path:
    """A checkpoint that passes every check before a start: links to the demo model's files."""
    folder.mkdir(parents=True)
    for file in model_path().iterdir():
        (folder / file.name).symlink_to(file)
    return folder


async def start_process(folder: FleetFolder, script: str, adopt_seconds: float = 600.0) -> EngineProcess:
    """A shim with `script` as its engine."""
    argv = (sys.executable, "-I", "-S", "-c", script)
    return await engine_of(*spawn(argv, {}, folder, "r0", adopt_seconds))


async def until(condition: Callable[[], object]) -> None:
    """Waits for something that sends no event; TimeoutError when it does not come."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 - what other processes do sets no event here
            await asyncio.sleep(0.005)


class WatchedSupervisor(Supervisor):
    """Remembers what it said, and can be killed."""

    def __init__(self, spec: FleetSpec, engine: Engine, folder: FleetFolder, timing: Timing) -> None:
        self.said: list[str] = []
        self.crashed = False
        super().__init__(spec, engine, folder, timing, self.said.append)

    async def crash(self) -> None:
        """Leaves what kill -9 of its process leaves: engines that run, the last state, a free lock."""
        self.crashed = True
        await self._cancel_lives()
        await self._keeper.close()
        await self._session.close()


@asynccontextmanager
async def fleet(
    folder: FleetFolder, engine: Engine, replicas: int = 1, timing: Timing = FAST, model: str = "model"
) -> AsyncIterator[WatchedSupervisor]:
    """A started supervisor that holds its lock; stopped at the end unless it crashed."""
    lock = Lock(folder)
    assert lock.acquire()
    spec = FleetSpec(Path(model), "m", engine=engine.name, replicas=replicas)
    supervisor = WatchedSupervisor(spec, engine, folder, timing)
    await supervisor.start()
    try:
        yield supervisor
    finally:
        if not supervisor.crashed:
            await supervisor.stop()
        lock.release()
