"""The shim, with real processes: nothing of an engine is ever left, and how it ended is known."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
import time

import psutil
import pytest

from tests.fleet.rig import start_process, until
from vlfleet.fleet.folder import FleetFolder, Lock
from vlfleet.fleet.logs import tail_lines
from vlfleet.fleet.processes import EngineProcess, ProcessId, engine_of, marked, read_exit, spawn

SLEEP = "import time; time.sleep(60)"
FAMILY = """
import os, subprocess, sys, time
sleep = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"]
subprocess.Popen(sleep)
subprocess.Popen(sleep, start_new_session=True)
subprocess.run([sys.executable, "-c", "import subprocess, sys; subprocess.Popen(sys.argv[1:])", *sleep])
print("born", flush=True)
time.sleep(60)
"""
"""A child in the group, one in a session of its own, and a grandchild whose parent is gone."""
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="prctl and /proc")


@pytest.mark.parametrize(
    ("script", "code", "number"),
    [("raise SystemExit(7)", 7, None), ("pass", 0, None), ("import os; os.kill(os.getpid(), 9)", None, 9)],
)
async def test_exit_is_written_down(folder: FleetFolder, script: str, code: int | None, number: int | None) -> None:
    before = time.time()
    process = await start_process(folder, script)
    await process.ended()
    await process.cleared()
    end = read_exit(folder, "r0", process.engine.pid)
    assert end
    assert (end.code, end.signal) == (code, number)
    assert before - 1 < end.at < time.time() + 1
    assert read_exit(folder, "r0", process.engine.pid + 1) is None


async def test_command_that_does_not_exist(folder: FleetFolder) -> None:
    process = await engine_of(*spawn(("/no/such/engine",), {}, folder, "r0", 600))
    await process.ended()
    await process.cleared()
    assert tail_lines(folder.log("r0"), 9) == ["vlfleet: cannot start /no/such/engine: No such file or directory"]
    end = read_exit(folder, "r0", process.engine.pid)
    assert end is None or end.code == 127  # an engine that was gone before it was looked at has no known pid


@needs_linux
async def test_killed_engine_leaves_no_descendant(folder: FleetFolder) -> None:
    process = await start_process(folder, FAMILY)
    await until(lambda: tail_lines(folder.log("r0"), 1) == ["born"])
    assert len(marked(process.mark)) == 5  # shim, engine, three sleepers
    process.engine.send(signal.SIGKILL)
    await asyncio.wait_for(process.shim.ended(), 10)
    assert not marked(process.mark)
    await process.cleared()


@needs_linux
async def test_killed_shim_takes_the_engine_along(folder: FleetFolder) -> None:
    process = await start_process(folder, FAMILY)
    await until(lambda: tail_lines(folder.log("r0"), 1) == ["born"])
    process.shim.send(signal.SIGKILL)
    await asyncio.wait_for(process.ended(), 10)
    await process.cleared()  # and what the engine left
    assert not marked(process.mark)


async def test_sigterm_reaches_the_engine(folder: FleetFolder) -> None:
    process = await start_process(folder, SLEEP)
    await process.stop(10)
    end = read_exit(folder, "r0", process.engine.pid)
    assert end
    assert end.signal == signal.SIGTERM


async def test_engine_that_ignores_sigterm_is_killed(folder: FleetFolder) -> None:
    ignoring = f"import signal; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); {SLEEP}"
    process = await start_process(folder, ignoring)
    await until(lambda: tail_lines(folder.log("r0"), 1) == ["deaf"])
    await process.stop(0.1)
    end = read_exit(folder, "r0", process.engine.pid)
    assert end
    assert end.signal == signal.SIGKILL


async def test_without_a_supervisor_the_lease_ends(folder: FleetFolder) -> None:
    lock = Lock(folder)
    assert lock.acquire()
    process = await start_process(folder, SLEEP, adopt_seconds=0.2)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(process.ended(), 0.6)  # three leases long: the lock is held
    lock.release()
    await asyncio.wait_for(process.ended(), 10)
    await process.cleared()
    assert tail_lines(folder.log("r0"), 1) == ["vlfleet: no supervisor came back; ending this replica"]


async def test_a_new_log_keeps_the_one_before(folder: FleetFolder) -> None:
    for run in ("one", "two"):
        process = await start_process(folder, f"print({run!r})")
        await process.ended()
        await process.cleared()
    log = folder.log("r0")
    assert (log.read_text(), log.with_name("r0.log.1").read_text()) == ("two\n", "one\n")
    assert log.stat().st_mode & 0o777 == 0o600


@needs_linux
async def test_shim_is_small(folder: FleetFolder) -> None:
    """It must not import the project: `-I -S` and only the standard library."""
    process = await start_process(folder, SLEEP)
    maps = {os.path.basename(each.path) for each in psutil.Process(process.shim.pid).memory_maps()}  # noqa: PTH119
    assert not {name for name in maps if "uvloop" in name or "psutil" in name or "ssl" in name}
    await process.stop(0)


@needs_linux
async def test_process_id_does_not_depend_on_the_clock(folder: FleetFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the clock is set, the kernel's time of boot moves with it, and with that the start times that psutil has."""
    process = await start_process(folder, SLEEP)
    clock = time.time
    monkeypatch.setattr("time.time", lambda: clock() + 3600)
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: clock() + 1800)
    assert process.alive()
    assert ProcessId.of(process.engine.pid) == process.engine
    await process.stop(5)
    assert not process.engine.alive()


@needs_linux
async def test_without_descriptors_nobody_is_taken_for_dead(folder: FleetFolder) -> None:
    process = await start_process(folder, SLEEP)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        assert process.alive()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(process.ended(), 0.3)  # it cannot be waited for by the kernel, and is looked at
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    await process.stop(0)


@needs_linux
async def test_a_full_disk_does_not_keep_the_shim_from_its_duty(folder: FleetFolder) -> None:
    """The engine's end cannot be written down; what the engine left is killed all the same."""
    process = await start_process(folder, FAMILY)
    await until(lambda: tail_lines(folder.log("r0"), 1) == ["born"])
    for marked_process in marked(process.mark):
        resource.prlimit(marked_process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    process.engine.send(signal.SIGKILL)
    await asyncio.wait_for(process.shim.ended(), 10)
    assert not marked(process.mark)
    assert read_exit(folder, "r0", process.engine.pid) is None
    await process.cleared()


async def test_process_id_is_not_fooled_by_its_number(folder: FleetFolder) -> None:
    process = await start_process(folder, SLEEP)
    other = type(process.engine)(process.engine.pid, process.engine.started + "0")
    assert process.engine.alive()
    assert not other.alive()
    other.send(signal.SIGKILL)
    await asyncio.wait_for(other.ended(), 1)
    assert process.engine.alive()
    assert EngineProcess(other, process.shim, process.mark).alive() is False
    await process.stop(0)
