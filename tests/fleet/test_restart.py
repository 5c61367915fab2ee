"""A rolling restart: nobody's request fails, and whatever goes wrong stops it where it is."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.fakes import FakeEngine
from tests.fleet.rig import FAST, WatchedSupervisor, until
from tests.fleet.served import Load, faults, served
from vlfleet.engine.launch import EngineSpec, Launch, Placement
from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.fleet.control import Control, give
from vlfleet.fleet.folder import FleetFolder
from vlfleet.fleet.replica import Phase
from vlfleet.fleet.roll import Order

Events = list[dict[str, Any]]


async def rolled(supervisor: WatchedSupervisor, order: Order | None = None) -> Events:
    """Restarts, and returns the events; raises what ended it."""
    events: Events = []
    await supervisor.restart(order or Order(), events.append)
    return events


def pids(supervisor: WatchedSupervisor) -> list[int]:
    return [replica.pid for replica in supervisor.replicas]


class Switched(FakeEngine):
    """Its next starts fail once `broken` is set."""

    broken: tuple[str, ...] = ()

    def launch(self, spec: EngineSpec, placement: Placement, port: int, api_key: str) -> Launch:
        self.options = self.broken
        return super().launch(spec, placement, port, api_key)


async def test_no_request_fails_while_all_are_replaced(folder: FleetFolder) -> None:
    async with served(folder, "--token-seconds", "0.02", replicas=3) as (supervisor, rig):
        old = pids(supervisor)
        async with Load(rig, clients=16) as load:
            await asyncio.sleep(0.5)
            events = await rolled(supervisor)
            await asyncio.sleep(0.5)
        assert load.failed == []
        assert load.answered > 48
        assert [event["replica"] for event in events if event["event"] == "ready"] == ["r0", "r1", "r2"]
        assert any(event.get("in_flight", 0) > 0 for event in events)  # there was something to wait for
        assert {event["cut"] for event in events if event["event"] == "stopping"} == {0}
        assert set(old).isdisjoint(pids(supervisor))
        assert not any(psutil.pid_exists(pid) for pid in old)
        assert [replica.restarts for replica in supervisor.replicas] == [0, 0, 0]  # nobody died


async def test_one_at_a_time_and_out_of_rotation_meanwhile(folder: FleetFolder) -> None:
    async with served(folder, "--tokens", "40", "--token-seconds", "0.02", replicas=2) as (supervisor, rig):
        first, second = supervisor.replicas
        streams = [await rig.chat(stream=True) for _ in range(2)]
        await until(lambda: first.in_flight == second.in_flight == 1)
        rolling = asyncio.create_task(rolled(supervisor, Order("r0")))
        await until(lambda: first.phase is Phase.DRAINING)
        async with rig.chat(max_tokens=1) as answer:
            assert answer.headers["X-Vlfleet-Replica"] == "r1"
        for stream in streams:
            assert (await stream.text()).endswith("data: [DONE]\n\n")
        pid = second.pid
        await rolling
        assert (second.pid, second.phase, first.phase) == (pid, Phase.READY, Phase.READY)


async def test_the_only_ready_one_is_left_alone_unless_forced(folder: FleetFolder) -> None:
    async with served(folder) as (supervisor, _):
        (pid,) = pids(supervisor)
        with pytest.raises(VlfleetError) as caught:
            await rolled(supervisor)
        assert caught.value.cause.startswith("r0 is the only replica that is ready, and its last start took ")
        assert caught.value.remedy == "--force restarts it all the same; requests are refused meanwhile"
        assert (pids(supervisor), supervisor.replicas[0].phase) == ([pid], Phase.READY)
        events = await rolled(supervisor, Order(force=True))
        assert events[-1]["event"] == "ready"
        assert pids(supervisor) != [pid]


async def test_when_the_drain_timeout_is_over_streams_are_told(folder: FleetFolder) -> None:
    async with served(folder, "--tokens", "100000", "--token-seconds", "0.01", replicas=2) as (supervisor, rig):
        first, second = supervisor.replicas
        streams = [await rig.chat(stream=True) for _ in range(2)]
        await until(lambda: first.in_flight == second.in_flight == 1)
        events = await rolled(supervisor, Order("r0", drain_timeout_seconds=0.3))
        assert {"event": "stopping", "replica": "r0", "cut": 1} in events
        cut = next(stream for stream in streams if stream.headers["X-Vlfleet-Replica"] == "r0")
        assert '"code":"stream_broken"' in (await cut.text()).split("\n\n")[-2]
        assert second.in_flight == 1
        for stream in streams:
            stream.close()


async def test_it_stops_at_the_first_that_does_not_come_back(folder: FleetFolder) -> None:
    engine = Switched()
    async with served(folder, replicas=3, engine=engine) as (supervisor, rig):
        old = pids(supervisor)
        engine.broken = ("--crash-at-start", "no KV cache fits | use fewer tokens", "--fatal")
        with pytest.raises(VlfleetError) as caught:
            await rolled(supervisor)
        assert caught.value.cause == "r0 did not become ready: no KV cache fits (use fewer tokens)"
        assert caught.value.remedy == "mend that, then restart again; not restarted: r1 r2"
        assert caught.value.exit_code is ExitCode.UNHEALTHY
        assert pids(supervisor)[1:] == old[1:]
        assert supervisor.said == [f"the restart ended early: {caught.value}"]
        async with rig.chat() as answer:
            assert answer.status == 200
        engine.broken = ()  # mended: restart also recovers what was given up
        assert supervisor.replicas[0].phase is Phase.FAILED
        events = await rolled(supervisor, Order("r0"))
        assert (events[0]["event"], events[-1]["event"]) == ("stopping", "ready")  # there was nothing to drain
        assert (supervisor.replicas[0].phase, supervisor.replicas[0].error) == (Phase.READY, "")


async def test_the_next_one_waits_for_a_token_of_the_new_one(folder: FleetFolder) -> None:
    engine = Switched()
    async with served(folder, replicas=2, engine=engine) as (supervisor, _):
        second = supervisor.replicas[1].pid
        engine.broken = ("--wedged",)  # /health 200 and never a token
        with pytest.raises(VlfleetError, match="r0 did not become ready: it hung: no token for 2 s"):
            await rolled(supervisor)
        assert supervisor.replicas[1].pid == second


async def test_one_that_died_is_started_first_and_without_its_past(folder: FleetFolder) -> None:
    engine = Switched("--fitting-tokens", "8192")
    engine.broken = engine.options
    timing = replace(FAST, restart=replace(FAST.restart, first_seconds=60.0, most_seconds=60.0))
    async with served(folder, replicas=2, engine=engine, timing=timing) as (supervisor, _):
        first, second = supervisor.replicas
        assert "8,192" in second.adjusted
        engine.broken = ()
        psutil.Process(second.pid).kill()
        await until(lambda: second.phase is Phase.BACKOFF and second.retry_at)
        events = await rolled(supervisor)
        assert [event["replica"] for event in events if event["event"] == "ready"] == ["r1", "r0"]
        assert (second.adjusted, second.error) == ("", "")
        assert "--max-num-batched-tokens 16384" in " ".join(psutil.Process(second.pid).cmdline())
        assert first.phase is Phase.READY


async def test_one_that_dies_while_it_drains_is_replaced_all_the_same(folder: FleetFolder) -> None:
    async with served(folder, "--tokens", "100000", "--token-seconds", "0.01", replicas=2) as (supervisor, rig):
        first, second = supervisor.replicas
        streams = [await rig.chat(stream=True) for _ in range(2)]
        await until(lambda: first.in_flight == second.in_flight == 1)
        rolling = asyncio.create_task(rolled(supervisor, Order("r0")))
        await until(lambda: first.phase is Phase.DRAINING)
        psutil.Process(first.pid).kill()
        events = await rolling
        assert [event["event"] for event in events if event["replica"] == "r0"][-1] == "ready"
        assert (first.phase, first.restarts) == (Phase.READY, 0)
        for stream in streams:
            stream.close()


async def test_it_serves_on_when_its_neighbour_dies_while_it_drains(folder: FleetFolder) -> None:
    async with served(folder, "--tokens", "100", "--token-seconds", "0.02", replicas=2) as (supervisor, rig):
        first, second = supervisor.replicas
        streams = [await rig.chat(stream=True) for _ in range(2)]
        await until(lambda: first.in_flight == second.in_flight == 1)
        rolling = asyncio.create_task(rolled(supervisor, Order("r0")))
        await until(lambda: first.phase is Phase.DRAINING)
        pid = first.pid
        psutil.Process(second.pid).kill()
        with pytest.raises(VlfleetError, match="no other replica is ready any more, so r0 serves on as it is"):
            await rolling
        assert (first.pid, first.phase) == (pid, Phase.READY)
        mine = next(stream for stream in streams if stream.headers["X-Vlfleet-Replica"] == "r0")
        assert (await mine.text()).endswith("data: [DONE]\n\n")


async def test_a_second_restart_is_refused(folder: FleetFolder) -> None:
    async with served(folder, replicas=2) as (supervisor, _):
        rolling = asyncio.create_task(rolled(supervisor))
        await asyncio.sleep(0.05)
        with pytest.raises(VlfleetError, match="a restart is under way already"):
            supervisor.restart(Order("r0"), lambda event: None)
        await rolling
        await rolled(supervisor, Order("r1"))  # and possible again after its end


async def test_the_end_of_the_fleet_ends_a_restart(folder: FleetFolder) -> None:
    async with served(folder, "--startup-seconds", "0.3", replicas=2) as (supervisor, _):
        task = supervisor.restart(Order(), lambda event: None)
        await until(lambda: supervisor.replicas[0].phase is Phase.STARTING)
        await supervisor.drain(5.0, asyncio.Event())
        assert task.cancelled()
        with pytest.raises(VlfleetError, match="the fleet is shutting down"):
            supervisor.restart(Order(), lambda event: None)


@asynccontextmanager
async def controlled(supervisor: WatchedSupervisor, folder: FleetFolder) -> AsyncIterator[Control]:
    control = Control(supervisor, folder)
    await control.open(supervisor.said.append)
    try:
        yield control
    finally:
        await control.close()
        assert not folder.control.exists()


async def test_orders_over_the_socket(folder: FleetFolder) -> None:
    async with served(folder, replicas=2) as (supervisor, _), controlled(supervisor, folder):
        assert stat.S_IMODE(folder.control.stat().st_mode) == 0o600
        events = [event["event"] async for event in give(folder, "/restart", Order("r1"))]
        assert (events[0], events[-2:]) == ("draining", ["ready", "done"])
        with pytest.raises(VlfleetError, match="there is no replica 'r7'") as caught:
            async for _ in give(folder, "/restart", Order("r7")):
                pass
        assert (caught.value.remedy, caught.value.exit_code) == ("choose one of: r0 r1", ExitCode.USAGE)


async def test_a_restart_needs_no_listener(folder: FleetFolder) -> None:
    slow = ("--startup-seconds", "0.3")
    async with served(folder, *slow, replicas=2) as (supervisor, _), controlled(supervisor, folder):
        old = pids(supervisor)
        listening = give(folder, "/restart", Order())
        assert (await anext(listening))["event"] == "draining"
        await listening.aclose()  # type: ignore[attr-defined]
        await until(lambda: set(old).isdisjoint(pids(supervisor)))
        await until(lambda: all(replica.phase is Phase.READY for replica in supervisor.replicas))


async def test_a_path_too_long_for_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLFLEET_HOME", str(tmp_path / ("long" * 30)))
    folder = FleetFolder.of("default")
    folder.make()
    assert len(str(folder.control)) > 108
    async with served(folder, replicas=2) as (supervisor, _), controlled(supervisor, folder):
        assert [event["event"] async for event in give(folder, "/restart", Order("r0"))][-1] == "done"


async def test_nobody_listens(folder: FleetFolder) -> None:
    with pytest.raises(VlfleetError, match="the fleet's supervisor takes no orders"):
        await anext(give(folder, "/restart", Order()))


async def test_a_fleet_without_its_socket_serves_and_says_so(folder: FleetFolder) -> None:
    folder.control.mkdir()
    async with served(folder) as (supervisor, rig):
        control = Control(supervisor, folder)
        await control.open(supervisor.said.append)
        assert supervisor.said[-1].startswith("`vlfleet restart`, cordon and drain will not work: ")
        async with rig.chat() as answer:
            assert answer.status == 200
        folder.control.rmdir()
        await control.close()


async def test_a_wedge_while_draining_is_killed_and_replaced(folder: FleetFolder) -> None:
    async with served(folder, "--tokens", "150", "--token-seconds", "0.02", replicas=2) as (supervisor, rig):
        first, second = supervisor.replicas
        streams = [await rig.chat(stream=True) for _ in range(2)]
        await until(lambda: first.in_flight == second.in_flight == 1)
        await faults(first, wedged=True)
        events = await rolled(supervisor, Order("r0"))
        assert events[-1]["event"] == "ready"
        texts = {stream.headers["X-Vlfleet-Replica"]: await stream.text() for stream in streams}
        assert '"code":"stream_broken"' in texts["r0"]
        assert texts["r1"].endswith("data: [DONE]\n\n")
