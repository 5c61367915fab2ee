"""The supervisor with real processes: start, kill, hang, crash loop, adoption."""

from __future__ import annotations

import asyncio
import signal
import time
from dataclasses import replace
from itertools import chain, repeat

import aiohttp
import psutil
import pytest

from tests.fakes import FakeEngine
from tests.fleet.rig import FAST, SERVER, ScriptEngine, fleet, start_process, until
from vlfleet.engine.launch import EngineSpec, Launch, Placement
from vlfleet.errors import ExitCode
from vlfleet.fleet import memory
from vlfleet.fleet.folder import FleetFolder
from vlfleet.fleet.processes import marked
from vlfleet.fleet.replica import Phase, Replica
from vlfleet.fleet.state import load
from vlfleet.fleet.timing import RestartPolicy


def all_ready(replicas: list[Replica]) -> bool:
    return all(replica.phase is Phase.READY for replica in replicas)


async def test_start_and_stop(folder: FleetFolder) -> None:
    async with fleet(folder, ScriptEngine(), replicas=2) as supervisor:
        await until(lambda: all_ready(supervisor.replicas))
        first, second = supervisor.replicas
        assert first.port != second.port
        assert first.api_key != second.api_key
        assert len(first.api_key) >= 22  # 128 bit in base64
        assert first.started_at <= first.ready_at <= time.time()
        pids = [replica.pid for replica in supervisor.replicas]
        assert all(psutil.pid_exists(pid) for pid in pids)
        state = load(folder)
        assert state
        assert [replica.name for replica in state.replicas] == ["r0", "r1"]
    assert not any(psutil.pid_exists(pid) for pid in pids)
    state = load(folder)
    assert state
    assert (state.status, state.processes) == ("stopped", {})
    assert [replica.phase for replica in state.replicas] == [Phase.STOPPED] * 2


async def test_keys_are_in_no_command_line_and_no_log(folder: FleetFolder) -> None:
    async with fleet(folder, FakeEngine()) as supervisor:
        await until(lambda: all_ready(supervisor.replicas))
        key = supervisor.replicas[0].api_key
        lines = [" ".join(process.cmdline()) for process in marked(f"{folder.path}/")]
        assert len(lines) >= 2
        assert not [line for line in lines if key in line]
        assert key not in folder.log("r0").read_text()
        async with aiohttp.ClientSession() as session:
            answer = await session.get(f"{supervisor.replicas[0].base_url}/v1/models")
            assert answer.status == 401


async def test_phases_come_from_the_log(folder: FleetFolder) -> None:
    script = "print('phase: warm-up', flush=True); import time; time.sleep(60)"
    async with fleet(folder, ScriptEngine(script)) as supervisor:
        await until(lambda: supervisor.replicas[0].detail == "warm-up")
        assert supervisor.replicas[0].phase is Phase.STARTING


async def test_killed_engine_is_out_at_once_and_back_soon(folder: FleetFolder) -> None:
    engine = ScriptEngine()
    async with fleet(folder, engine, replicas=2) as supervisor:
        await until(lambda: all_ready(supervisor.replicas))
        first, second = supervisor.replicas
        pid, neighbour, old = first.pid, second.pid, (first.port, first.api_key)
        psutil.Process(pid).kill()
        killed = time.monotonic()
        await until(lambda: first.phase is not Phase.READY)
        assert time.monotonic() - killed < 0.5  # some 5 ms; the limit is for a machine that is busy
        assert second.phase is Phase.READY
        await until(lambda: all_ready(supervisor.replicas))
        assert first.pid != pid
        assert (first.port, first.api_key) != old
        assert first.restarts == 1
        assert first.error == "it was killed by SIGKILL (vlfleet logs r0 shows more)"
        assert (second.pid, second.restarts) == (neighbour, 0)
    assert len(engine.launched) == 3


async def test_killed_shim_is_a_death_too(folder: FleetFolder) -> None:
    async with fleet(folder, ScriptEngine()) as supervisor:
        await until(lambda: all_ready(supervisor.replicas))
        process = supervisor.lives[0].process
        assert process
        process.shim.send(signal.SIGKILL)
        await until(lambda: supervisor.replicas[0].restarts == 1)
        await until(lambda: all_ready(supervisor.replicas))
        assert not process.engine.alive()


async def test_crash_loop_is_given_up_with_its_reason(folder: FleetFolder) -> None:
    engine = ScriptEngine("print('ERROR: no KV cache fits'); raise SystemExit(1)")
    async with fleet(folder, engine) as supervisor:
        error = await supervisor.failed()
        assert error.cause == ("the replica has failed: it died 5 times in 10 minutes; the last time: no KV cache fits")
        assert error.remedy == "buy memory"
        assert error.exit_code is ExitCode.FAILED
        assert supervisor.replicas[0].phase is Phase.FAILED
        assert "buy memory" in supervisor.replicas[0].error
    assert len(engine.launched) == 5


async def test_what_no_restart_can_help_is_given_up_at_once(folder: FleetFolder) -> None:
    engine = ScriptEngine("print('ERROR: fatal lack of shards'); raise SystemExit(1)")
    async with fleet(folder, engine, replicas=2) as supervisor:
        error = await supervisor.failed()
        assert error.cause == "every replica has failed: fatal lack of shards"
    assert len(engine.launched) == 2


async def test_neighbours_serve_on_when_one_is_given_up(folder: FleetFolder) -> None:
    class OneBroken(ScriptEngine):
        def launch(self, spec: EngineSpec, placement: Placement, port: int, api_key: str) -> Launch:
            self.script = SERVER if not self.launched else "print('ERROR: fatal'); raise SystemExit(1)"
            return super().launch(spec, placement, port, api_key)

    async with fleet(folder, OneBroken(), replicas=2) as supervisor:
        good, bad = supervisor.replicas
        await until(lambda: bad.phase is Phase.FAILED and good.phase is Phase.READY)
        psutil.Process(good.pid).kill()
        error = await supervisor.failed()  # now the first is started as a broken one
        assert error.exit_code is ExitCode.UNHEALTHY  # it had served


async def test_engine_class_that_raises_fails_alone(folder: FleetFolder) -> None:
    class Faulty(ScriptEngine):
        def launch(self, spec: EngineSpec, placement: Placement, port: int, api_key: str) -> Launch:
            raise RuntimeError("no such flag")

    timing = replace(FAST, restart=RestartPolicy(first_seconds=0.001, deaths=2))
    async with fleet(folder, Faulty(), timing=timing) as supervisor:
        assert "no such flag" in (await supervisor.failed()).cause


async def test_start_that_never_gets_ready_is_a_death(folder: FleetFolder) -> None:
    timing = replace(FAST, start_timeout_seconds=0.2, stop_seconds=0.5)
    async with fleet(folder, ScriptEngine("import time; time.sleep(60)"), timing=timing) as supervisor:
        await until(lambda: supervisor.replicas[0].error.startswith("it was not ready after 0 s"))


async def test_unhealthy_replica_is_out_and_may_come_back(folder: FleetFolder) -> None:
    async with fleet(folder, FakeEngine(), timing=replace(FAST, unhealthy_seconds=30)) as supervisor:
        (replica,) = supervisor.replicas
        await until(lambda: replica.phase is Phase.READY)
        pid = replica.pid
        async with aiohttp.ClientSession() as session:
            await session.post(f"{replica.base_url}/fake/faults", json={"health": 503})
            await until(lambda: replica.phase is Phase.UNHEALTHY)
            assert (replica.detail, replica.stalled) == ("not healthy", False)
            await session.post(f"{replica.base_url}/fake/faults", json={"health": 200})
            await until(lambda: replica.phase is Phase.READY)
        assert (replica.pid, replica.restarts) == (pid, 0)


async def test_replica_that_stays_unhealthy_is_started_again(folder: FleetFolder) -> None:
    async with fleet(folder, FakeEngine()) as supervisor:
        (replica,) = supervisor.replicas
        await until(lambda: replica.phase is Phase.READY)
        async with aiohttp.ClientSession() as session:
            await session.post(f"{replica.base_url}/fake/faults", json={"health": 503})
        await until(lambda: replica.restarts == 1 and replica.phase is Phase.READY)
        assert replica.error.startswith("it answered no /health for")


async def test_gateway_makes_it_look_at_once(folder: FleetFolder) -> None:
    timing = replace(FAST, probe_ready_seconds=3600.0)
    async with fleet(folder, FakeEngine(), timing=timing) as supervisor:
        (replica,) = supervisor.replicas
        await until(lambda: replica.phase is Phase.READY)
        async with aiohttp.ClientSession() as session:
            await session.post(f"{replica.base_url}/fake/faults", json={"health": 503})
        supervisor.probe_now(replica)
        await until(lambda: replica.phase is Phase.UNHEALTHY)


async def test_adoption(folder: FleetFolder) -> None:
    engine = ScriptEngine()
    async with fleet(folder, engine, replicas=2) as first:
        await until(lambda: all_ready(first.replicas))
        before = [(replica.name, replica.pid, replica.port, replica.api_key) for replica in first.replicas]
        await first.crash()
    async with fleet(folder, engine, replicas=2) as second:
        await until(lambda: all_ready(second.replicas))
        assert [(each.name, each.pid, each.port, each.api_key) for each in second.replicas] == before
        assert [replica.restarts for replica in second.replicas] == [0, 0]
        assert second.said == ["adopting r0 r1, which still run"]
        psutil.Process(second.replicas[0].pid).kill()  # an adopted one is watched as any other
        await until(lambda: second.replicas[0].restarts == 1)
        assert "SIGKILL" in second.replicas[0].error
        await until(lambda: all_ready(second.replicas))
    assert len(engine.launched) == 3


async def test_another_spec_stops_the_old_replicas_first(folder: FleetFolder) -> None:
    async with fleet(folder, ScriptEngine(), replicas=2) as first:
        await until(lambda: all_ready(first.replicas))
        old = [replica.pid for replica in first.replicas]
        await first.crash()
    async with fleet(folder, ScriptEngine(), model="another") as second:
        assert not any(psutil.pid_exists(pid) for pid in old)
        (line,) = second.said
        assert line.startswith("stopping r0 r1: they run another model")
        await until(lambda: all_ready(second.replicas))


async def test_a_run_that_no_state_knows_is_ended(folder: FleetFolder) -> None:
    stray = await start_process(folder, "import time; time.sleep(60)")
    folder.state.write_bytes(b"{ half a sta")
    async with fleet(folder, ScriptEngine()) as supervisor:
        assert not stray.engine.alive()
        assert "damaged" in supervisor.said[0]
        await until(lambda: all_ready(supervisor.replicas))


async def test_full_disk_does_not_stop_the_fleet(folder: FleetFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vlfleet.fleet.keeper.save", full)
    async with fleet(folder, ScriptEngine()) as supervisor:
        await until(lambda: all_ready(supervisor.replicas))
        assert supervisor.said == ["the state file cannot be written: [Errno 28] No space left on device"]


async def test_out_of_memory_is_told_from_a_kill(folder: FleetFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    kills = chain([0, 0], repeat(1))
    monkeypatch.setattr(memory, "oom_kills", lambda: next(kills))
    async with fleet(folder, ScriptEngine("import os; os.kill(os.getpid(), 9)")) as supervisor:
        await until(lambda: supervisor.replicas[0].error)
        assert supervisor.replicas[0].error.startswith("the kernel killed it: no memory left (start fewer replicas")


async def test_drain_waits_for_requests_but_not_for_ever(folder: FleetFolder) -> None:
    async with fleet(folder, ScriptEngine()) as supervisor:
        (replica,) = supervisor.replicas
        await until(lambda: replica.phase is Phase.READY)
        replica.in_flight = 1
        drain = asyncio.create_task(supervisor.drain(30, asyncio.Event()))
        await until(lambda: replica.phase is Phase.DRAINING)
        assert not drain.done()
        replica.in_flight = 0
        await asyncio.wait_for(drain, 5)
        replica.in_flight = 1
        await asyncio.wait_for(supervisor.drain(0.05, asyncio.Event()), 5)
