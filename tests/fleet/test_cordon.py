"""Replicas out of rotation by hand: no new request reaches them, nothing that they have is lost, and only a person puts
them back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import FakeEngine
from tests.fleet.rig import WatchedSupervisor, fleet, until
from tests.fleet.served import Load, faults, seen, served
from tests.gateway.rig import Rig
from vlfleet.engine.launch import EngineSpec, Placement, Preparation
from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.fleet.control import Control, give
from vlfleet.fleet.cordon import Cordon, Drain, check_others, chosen
from vlfleet.fleet.folder import FleetFolder
from vlfleet.fleet.replica import Phase, Replica
from vlfleet.fleet.roll import Order
from vlfleet.fleet.state import load

Events = list[dict[str, Any]]
LONG = ("--tokens", "60", "--token-seconds", "0.02")


async def drained(supervisor: WatchedSupervisor, order: Drain) -> Events:
    """As the order does it: cordoned first."""
    await supervisor.cordon(Cordon(order.replica, order.force))
    return [event async for event in supervisor.drained(order)]


async def answered_by(rig: Rig, requests: int = 6) -> set[str]:
    names = set()
    for _ in range(requests):
        async with rig.chat(max_tokens=1) as answer:
            assert answer.status == 200
            names.add(answer.headers["X-Vlfleet-Replica"])
    return names


def on_gpus(*gpus: tuple[int, ...]) -> list[Replica]:
    made = [Replica(f"r{at}", 1, "k", "fake", phase=Phase.READY) for at in range(len(gpus))]
    for replica, each in zip(made, gpus, strict=True):
        replica.placement = Placement(each)
    return made


class OnGpus(FakeEngine):
    """Three replicas, the last two on one GPU."""

    def prepare(self, spec: EngineSpec, replicas: int, *, exposed: bool = False) -> Preparation:
        return Preparation((Placement((0,)), Placement((3,)), Placement((3,))))


def test_a_gpu_stands_for_its_replicas() -> None:
    replicas = on_gpus((0, 1), (2, 3), (3, 4))
    assert [each.name for each in chosen(replicas, "r1")] == ["r1"]
    assert [each.name for each in chosen(replicas, "gpu1")] == ["r0"]
    assert [each.name for each in chosen(replicas, "gpu3")] == ["r1", "r2"]


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("r7", "there is no replica 'r7'"),
        ("gpu7", "no replica is placed on gpu7"),
        ("", "there is no replica ''"),
        ("gpu", "there is no replica 'gpu'"),
        ("3", "there is no replica '3'"),
    ],
)
def test_an_unknown_name_is_answered_with_those_that_are_known(name: str, cause: str) -> None:
    with pytest.raises(VlfleetError) as caught:
        chosen(on_gpus((0, 1), (2,)), name)
    assert (caught.value.cause, caught.value.remedy) == (cause, "choose one of: r0 r1 gpu0 gpu1 gpu2")
    assert caught.value.exit_code is ExitCode.USAGE


@given(
    states=st.lists(st.tuples(st.sampled_from([Phase.READY, Phase.STARTING, Phase.FAILED]), st.booleans()), min_size=1),
    going=st.sets(st.integers(0, 20), min_size=1),
)
def test_without_force_somebody_is_left(states: list[tuple[Phase, bool]], going: set[int]) -> None:
    """Or nobody was there before: then there is nothing to lose."""
    replicas = [Replica(f"r{at}", 1, "k", "fake", phase=phase) for at, (phase, _) in enumerate(states)]
    for replica, (_, cordoned) in zip(replicas, states, strict=True):
        replica.cordoned = cordoned
    before = [each for each in replicas if each.in_rotation]
    chosen_now = [replicas[at % len(replicas)] for at in going]
    try:
        check_others(replicas, chosen_now)
        refused = False
    except VlfleetError:
        refused = True
    for replica in chosen_now:
        replica.cordoned = True
    left = any(each.in_rotation for each in replicas)
    assert refused == (bool(before) and not left)


async def test_no_new_request_reaches_it_and_what_it_has_is_finished(folder: FleetFolder) -> None:
    async with served(folder, *LONG, replicas=2) as (supervisor, rig):
        first, second = supervisor.replicas
        streams = [await rig.chat(stream=True) for _ in range(2)]
        await until(lambda: first.in_flight == second.in_flight == 1)
        assert await supervisor.cordon(Cordon("r0")) == ["r0"]
        assert await answered_by(rig) == {"r1"}
        for stream in streams:
            assert (await stream.text()).endswith("data: [DONE]\n\n")
        assert (first.phase, first.in_rotation) == (Phase.READY, False)
        assert await rig.metric('vlfleet:replica_ready{replica="r0"}') == 0
        assert await rig.metric('vlfleet:replica_cordoned{replica="r0"}') == 1
        assert await supervisor.cordon(Cordon("r0"), cordoned=False) == []
        assert await answered_by(rig) == {"r0", "r1"}
        assert supervisor.said == ["r0 is cordoned: it gets no new request", "r0 is uncordoned"]


async def test_a_drain_loses_none_of_16_streams(folder: FleetFolder) -> None:
    async with served(folder, *LONG, replicas=2) as (supervisor, rig):
        first, second = supervisor.replicas
        streams = [await rig.chat(stream=True) for _ in range(16)]
        await until(lambda: first.in_flight == second.in_flight == 8)
        events = await drained(supervisor, Drain("r0"))
        assert events[0] == {"event": "draining", "replica": "r0", "in_flight": 8}
        assert events[-1] == {"event": "drained", "replica": "r0"}
        assert first.in_flight == 0
        texts = [await stream.text() for stream in streams]
        assert all(text.endswith("data: [DONE]\n\n") and '"error"' not in text for text in texts)
        assert (await seen(first))["cancelled"] == 0


async def test_under_load_nobody_notices(folder: FleetFolder) -> None:
    async with served(folder, "--token-seconds", "0.01", replicas=2) as (supervisor, rig):
        async with Load(rig, clients=16) as load:
            await asyncio.sleep(0.3)
            for name in ("r0", "r1"):
                await drained(supervisor, Drain(name))
                assert supervisor.replicas[int(name[1])].in_flight == 0
                await supervisor.cordon(Cordon(name), cordoned=False)
            await asyncio.sleep(0.3)
        assert load.failed == []
        assert load.answered > 32


async def test_a_drain_of_a_gpu_is_one_of_all_its_replicas(folder: FleetFolder) -> None:
    async with served(folder, replicas=3, engine=OnGpus(*LONG)) as (supervisor, rig):
        streams = [await rig.chat(stream=True) for _ in range(6)]
        await until(lambda: all(each.in_flight == 2 for each in supervisor.replicas))
        events = await drained(supervisor, Drain("gpu3"))
        assert {event["replica"] for event in events} == {"r1", "r2"}
        assert sorted(event["replica"] for event in events if event["event"] == "drained") == ["r1", "r2"]
        assert await answered_by(rig) == {"r0"}
        assert all([(await stream.text()).endswith("data: [DONE]\n\n") for stream in streams])
        assert await supervisor.cordon(Cordon("gpu3"), cordoned=False) == []


async def test_the_last_one_is_left_alone_unless_forced(folder: FleetFolder) -> None:
    async with served(folder, replicas=2) as (supervisor, rig):
        await supervisor.cordon(Cordon("r0"))
        with pytest.raises(VlfleetError) as caught:
            await supervisor.cordon(Cordon("r1"))
        assert caught.value.cause == "r1 is the only replica in rotation"
        assert caught.value.remedy == "--force cordons it all the same; requests are refused meanwhile"
        assert not supervisor.replicas[1].cordoned
        assert await supervisor.cordon(Cordon("r0")) == ["r0"]  # again: nothing new
        assert await supervisor.cordon(Cordon("r1", force=True)) == ["r0", "r1"]
        async with rig.chat() as answer:
            body = await answer.json()
            assert (answer.status, answer.headers["Retry-After"]) == (503, "30")
        assert "r1 is cordoned by hand: vlfleet uncordon r1" in body["error"]["message"]
        async with rig.http.get(f"{rig.url}/ready") as answer:
            ready = await answer.json()
            assert (answer.status, ready["ready"]) == (503, False)
        assert [each["cordoned"] for each in ready["replicas"]] == [True, True]
        await supervisor.cordon(Cordon("r1"), cordoned=False)
        assert await answered_by(rig) == {"r1"}


async def test_the_last_ones_of_a_gpu_too(folder: FleetFolder) -> None:
    async with served(folder, replicas=3, engine=OnGpus()) as (supervisor, _):
        await supervisor.cordon(Cordon("r0"))
        with pytest.raises(VlfleetError, match="r1 r2 are the only replicas in rotation"):
            await supervisor.cordon(Cordon("gpu3"))
        assert [each.cordoned for each in supervisor.replicas] == [True, False, False]


async def test_one_that_dies_is_started_again_and_stays_out(folder: FleetFolder) -> None:
    async with served(folder, replicas=2) as (supervisor, rig):
        first, _ = supervisor.replicas
        await supervisor.cordon(Cordon("r0"))
        pid = first.pid
        psutil.Process(pid).kill()
        await until(lambda: first.restarts == 1 and first.phase is Phase.READY)
        assert (first.pid != pid, first.cordoned) == (True, True)
        assert await answered_by(rig) == {"r1"}
        assert (await seen(first))["requests"] == 0


async def test_one_that_hangs_is_replaced_and_stays_out(folder: FleetFolder) -> None:
    """No client asks it anything: the watch does."""
    async with served(folder, replicas=2) as (supervisor, rig):
        first, _ = supervisor.replicas
        await supervisor.cordon(Cordon("r0"))
        await faults(first, wedged=True)
        await until(lambda: first.restarts == 1 and first.phase is Phase.READY)
        assert "it hung: no token" in first.error
        assert first.cordoned
        assert await answered_by(rig) == {"r1"}


async def test_a_slow_one_is_not_spared_for_a_neighbour_who_is_out(folder: FleetFolder) -> None:
    """Where nobody else can be asked it stays in rotation while it is silent."""
    async with served(folder, replicas=2) as (supervisor, _):
        _, second = supervisor.replicas
        await supervisor.cordon(Cordon("r0"))
        (life,) = [each for each in supervisor.lives if each.replica is second]
        assert life.watch
        assert not life.watch._shared.another_ready(second)
        await supervisor.cordon(Cordon("r0"), cordoned=False)
        assert life.watch._shared.another_ready(second)


async def test_another_supervisor_keeps_it_out(folder: FleetFolder) -> None:
    async with fleet(folder, FakeEngine(), replicas=2) as first:
        await until(lambda: all(each.phase is Phase.READY for each in first.replicas))
        await first.cordon(Cordon("r1"))
        pids = [each.pid for each in first.replicas]
        await first.crash()
    async with served(folder, replicas=2) as (second, rig):
        assert [each.pid for each in second.replicas] == pids
        assert [each.cordoned for each in second.replicas] == [False, True]
        assert await answered_by(rig) == {"r0"}


async def test_so_does_one_after_a_crash_of_the_whole_machine(folder: FleetFolder) -> None:
    async with fleet(folder, FakeEngine(), replicas=2) as first:
        await until(lambda: all(each.phase is Phase.READY for each in first.replicas))
        await first.cordon(Cordon("r1"))
        pids = [each.pid for each in first.replicas]
        await first.crash()
        for pid in pids:
            psutil.Process(pid).kill()
        await until(lambda: not any(psutil.pid_exists(pid) for pid in pids))
    async with served(folder, replicas=2) as (second, rig):
        assert set(pids).isdisjoint(each.pid for each in second.replicas)
        assert await answered_by(rig) == {"r0"}


async def test_a_fleet_that_was_stopped_begins_anew(folder: FleetFolder) -> None:
    async with fleet(folder, FakeEngine(), replicas=2) as first:
        await first.cordon(Cordon("r1"))
    async with fleet(folder, FakeEngine(), replicas=2) as second:
        assert not any(each.cordoned for each in second.replicas)


async def test_who_was_told_finds_it_in_the_state_file(folder: FleetFolder) -> None:
    async with served(folder, replicas=2) as (supervisor, _):
        await supervisor.cordon(Cordon("r0"))
        state = load(folder)
        assert state
        assert [each.cordoned for each in state.replicas] == [True, False]
        await supervisor.cordon(Cordon("r0"), cordoned=False)
        state = load(folder)
        assert state
        assert not state.replicas[0].cordoned


async def test_a_full_disk_does_not_stop_a_cordon(folder: FleetFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    async with served(folder, replicas=2) as (supervisor, rig):
        monkeypatch.setattr("vlfleet.fleet.keeper.save", full)
        assert await supervisor.cordon(Cordon("r0")) == ["r0"]
        assert await answered_by(rig) == {"r1"}
        monkeypatch.undo()


async def test_a_restart_passes_nobody_over_and_leaves_it_out(folder: FleetFolder) -> None:
    async with served(folder, "--token-seconds", "0.01", replicas=3) as (supervisor, rig):
        await supervisor.cordon(Cordon("r1"))
        old = [each.pid for each in supervisor.replicas]
        events: Events = []
        async with Load(rig, clients=8) as load:
            await supervisor.restart(Order(), events.append)
        assert load.failed == []
        assert set(old).isdisjoint(each.pid for each in supervisor.replicas)
        assert [event["replica"] for event in events if event["event"] == "ready"] == ["r1", "r0", "r2"]
        assert [each.cordoned for each in supervisor.replicas] == [False, True, False]
        assert (await seen(supervisor.replicas[1]))["requests"] == 0


async def test_a_cordoned_neighbour_is_none_for_a_restart(folder: FleetFolder) -> None:
    async with served(folder, replicas=2) as (supervisor, _):
        await supervisor.cordon(Cordon("r1"))
        with pytest.raises(VlfleetError, match="r0 is the only replica that is ready"):
            await supervisor.restart(Order("r0"), lambda event: None)
        await supervisor.restart(Order("r1"), lambda event: None)  # it takes nobody away


async def test_a_drain_that_takes_too_long_leaves_its_requests_and_it_out(folder: FleetFolder) -> None:
    async with served(folder, "--tokens", "100000", "--token-seconds", "0.01", replicas=2) as (supervisor, rig):
        first, second = supervisor.replicas
        streams = [await rig.chat(stream=True) for _ in range(2)]
        await until(lambda: first.in_flight == second.in_flight == 1)
        with pytest.raises(VlfleetError) as caught:
            await drained(supervisor, Drain("r0", timeout_seconds=0.2))
        assert caught.value.cause == "after 0.2 s r0 still had 1 request in flight"
        assert caught.value.exit_code is ExitCode.UNHEALTHY
        assert (first.in_flight, first.cordoned) == (1, True)
        for stream in streams:
            stream.close()


async def test_what_ends_a_drain_early(folder: FleetFolder) -> None:
    async with served(folder, "--tokens", "100000", "--token-seconds", "0.01", replicas=2) as (supervisor, rig):
        first, second = supervisor.replicas
        streams = [await rig.chat(stream=True) for _ in range(2)]
        await until(lambda: first.in_flight == second.in_flight == 1)
        draining = asyncio.create_task(drained(supervisor, Drain("r0")))
        await until(lambda: first.cordoned)
        await supervisor.cordon(Cordon("r0"), cordoned=False)
        with pytest.raises(VlfleetError, match="r0 was put back into rotation meanwhile"):
            await draining
        draining = asyncio.create_task(drained(supervisor, Drain("r0")))
        await until(lambda: first.cordoned)
        await supervisor.drain(0.1, asyncio.Event())
        with pytest.raises(VlfleetError, match="the fleet is shutting down"):
            await draining
        with pytest.raises(VlfleetError, match="the fleet is shutting down"):
            await supervisor.cordon(Cordon("r1"), cordoned=False)
        for stream in streams:
            stream.close()


async def test_one_that_dies_while_it_drains_is_drained(folder: FleetFolder) -> None:
    async with served(folder, "--tokens", "100000", "--token-seconds", "0.01", replicas=2) as (supervisor, rig):
        first, second = supervisor.replicas
        streams = [await rig.chat(stream=True) for _ in range(2)]
        await until(lambda: first.in_flight == second.in_flight == 1)
        draining = asyncio.create_task(drained(supervisor, Drain("r0")))
        await until(lambda: first.cordoned)
        psutil.Process(first.pid).kill()
        assert (await draining)[-1] == {"event": "drained", "replica": "r0"}
        await until(lambda: first.phase is Phase.READY)
        assert (first.cordoned, second.in_flight) == (True, 1)
        for stream in streams:
            stream.close()


@asynccontextmanager
async def controlled(supervisor: WatchedSupervisor, folder: FleetFolder) -> AsyncIterator[Control]:
    control = Control(supervisor, folder)
    await control.open(supervisor.said.append)
    try:
        yield control
    finally:
        await control.close()


async def test_orders_over_the_socket(folder: FleetFolder) -> None:
    async with served(folder, replicas=2) as (supervisor, _), controlled(supervisor, folder):
        assert [event async for event in give(folder, "/cordon", Cordon("r1"))] == [{"cordoned": ["r1"]}]
        assert [event async for event in give(folder, "/uncordon", Cordon("r1"))] == [{"cordoned": []}]
        events = [event async for event in give(folder, "/drain", Drain("r0"))]
        assert events == [{"event": "drained", "replica": "r0"}, {"event": "done"}]
        for path, order in (("/cordon", Cordon("r1")), ("/drain", Drain("r1"))):
            with pytest.raises(VlfleetError, match="r1 is the only replica in rotation"):
                await anext(give(folder, path, order))
        with pytest.raises(VlfleetError, match="there is no replica 'r9'") as caught:
            await anext(give(folder, "/uncordon", Cordon("r9")))
        assert (caught.value.remedy, caught.value.exit_code) == ("choose one of: r0 r1", ExitCode.USAGE)
        assert [each.cordoned for each in supervisor.replicas] == [True, False]


async def test_who_stops_listening_leaves_it_cordoned(folder: FleetFolder) -> None:
    async with served(folder, *LONG, replicas=2) as (supervisor, rig), controlled(supervisor, folder):
        first, second = supervisor.replicas
        streams = [await rig.chat(stream=True) for _ in range(2)]
        await until(lambda: first.in_flight == second.in_flight == 1)
        listening = give(folder, "/drain", Drain("r0"))
        assert await anext(listening) == {"event": "draining", "replica": "r0", "in_flight": 1}
        await listening.aclose()  # type: ignore[attr-defined]
        assert first.cordoned
        assert all([(await stream.text()).endswith("data: [DONE]\n\n") for stream in streams])
