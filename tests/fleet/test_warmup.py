"""The first picture before rotation: no client waits for what it sets off, and no replica fails by it."""

from __future__ import annotations

import asyncio
import base64
import io
from dataclasses import replace

import pytest
from PIL import Image

from tests.fakes import FakeEngine
from tests.fleet.rig import FAST, ScriptEngine, fleet, until
from tests.fleet.served import seen, served
from vlfleet.fleet import warmup
from vlfleet.fleet.folder import FleetFolder
from vlfleet.fleet.replica import Phase
from vlfleet.fleet.timing import RestartPolicy


def test_the_picture_is_one() -> None:
    head, _, data = warmup.picture().partition(",")
    assert head == "data:image/png;base64"
    image = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
    image.load()
    assert (image.size, image.mode) == ((364, 252), "RGB")
    assert image.getpixel((300, 200)) == (300 % 256, 200, 500 % 256)
    assert len(warmup.picture()) < 4096


async def test_it_goes_into_rotation_after_its_first_picture(folder: FleetFolder) -> None:
    async with fleet(folder, FakeEngine("--warm-up-seconds", "0.4")) as supervisor:
        (replica,) = supervisor.replicas
        await until(lambda: replica.detail == warmup.PHASE)
        assert (replica.phase, replica.ready_at, replica.in_rotation) == (Phase.STARTING, 0.0, False)
        await until(lambda: replica.phase is Phase.READY)
        assert list(replica.phases) == ["start", "load", warmup.PHASE]
        assert replica.phases[warmup.PHASE] >= 0.4
        facts = await seen(replica)
        assert (facts["warm_ups"], facts["requests"]) == (1, 0)
        assert not supervisor.said


async def test_an_engine_that_needs_none_gets_none(folder: FleetFolder) -> None:
    async with fleet(folder, ScriptEngine()) as supervisor:
        (replica,) = supervisor.replicas
        await until(lambda: replica.phase is Phase.READY)
        assert list(replica.phases) == ["start", "load"]


@pytest.mark.parametrize("status", ["400", "404"])
async def test_an_engine_that_takes_no_pictures_is_just_ready(folder: FleetFolder, status: str) -> None:
    async with fleet(folder, FakeEngine("--warm-up", status)) as supervisor:
        (replica,) = supervisor.replicas
        await until(lambda: replica.phase is Phase.READY)
        assert (replica.restarts, supervisor.said) == (0, [])


async def test_one_that_fails_is_ready_all_the_same_and_told(folder: FleetFolder) -> None:
    async with fleet(folder, FakeEngine("--warm-up", "500")) as supervisor:
        (replica,) = supervisor.replicas
        await until(lambda: replica.phase is Phase.READY)
        assert supervisor.said == ["r0 was not warmed up with a picture: HTTP 500"]


async def test_one_that_hangs_costs_its_bound_and_no_more(folder: FleetFolder) -> None:
    """Nor is its time silence of the replica's: it is judged from its rotation on."""
    timing = replace(FAST, warm_up_seconds=2.5, start_timeout_seconds=2.0)
    assert timing.warm_up_seconds > max(timing.hung_seconds, timing.start_timeout_seconds)
    async with served(folder, "--warm-up", "wait", timing=timing) as (supervisor, rig):
        (replica,) = supervisor.replicas
        pid = replica.pid
        assert 2.5 <= replica.phases[warmup.PHASE] < 4
        assert supervisor.said == ["r0 was not warmed up with a picture: no answer in 2.5 s"]
        async with rig.chat() as answer:
            assert answer.status == 200
        await asyncio.sleep(1.0)
        assert (replica.pid, replica.phase, replica.restarts) == (pid, Phase.READY, 0)


async def test_a_long_one_teaches_the_watch_no_patience(folder: FleetFolder) -> None:
    """A compilation that nobody waited for must not count as this engine's longest wait."""
    timing = replace(FAST, warm_up_seconds=5.0)
    async with served(folder, "--warm-up-seconds", "1.2", timing=timing) as (supervisor, _):
        (life,) = supervisor.lives
        assert life.watch
        await until(lambda: life.watch and not life.watch._pulse.asked_at)  # the canary has been answered
        assert life.watch._pulse.longest_wait < 1.0


async def test_what_it_logs_is_no_phase_of_the_start(folder: FleetFolder) -> None:
    """vLLM tells of a second compilation then; the first one's figures stay."""
    start = ("--log", 'decided: {"compile_seconds": 16.7}')
    loud = ("--warm-up-log", "phase: compile", "--warm-up-log", 'decided: {"compile_seconds": 1.5, "late": 1}')
    async with fleet(folder, FakeEngine(*start, *loud, "--warm-up-seconds", "0.3")) as supervisor:
        (replica,) = supervisor.replicas
        await until(lambda: replica.phase is Phase.READY)
        assert list(replica.phases) == ["start", "load", warmup.PHASE]
        assert replica.decisions == {"compile_seconds": 16.7, "late": 1}


async def test_an_adopted_replica_is_not_warmed_again(folder: FleetFolder) -> None:
    async with fleet(folder, FakeEngine()) as first:
        await until(lambda: first.replicas[0].phase is Phase.READY)
        await first.crash()
    async with fleet(folder, FakeEngine()) as second:
        (replica,) = second.replicas
        await until(lambda: replica.phase is Phase.READY)
        assert (await seen(replica))["warm_ups"] == 1


async def test_one_that_was_not_ready_yet_is(folder: FleetFolder) -> None:
    async with fleet(folder, FakeEngine("--warm-up-seconds", "0.5")) as first:
        (replica,) = first.replicas
        await until(lambda: replica.detail == warmup.PHASE)
        while not (await seen(replica))["warm_ups"]:  # noqa: ASYNC110 - in another process
            await asyncio.sleep(0.01)
        await first.crash()
    async with fleet(folder, FakeEngine()) as second:
        (replica,) = second.replicas
        await until(lambda: replica.phase is Phase.READY)
        assert (await seen(replica))["warm_ups"] == 2


async def test_one_that_dies_of_it_is_started_again_without(folder: FleetFolder) -> None:
    """It may still serve text."""
    timing = replace(FAST, restart=RestartPolicy(first_seconds=0.05, most_seconds=0.1))
    async with fleet(folder, FakeEngine("--warm-up", "die"), timing=timing) as supervisor:
        (replica,) = supervisor.replicas
        await until(lambda: replica.phase is Phase.READY)
        assert replica.restarts == 1
        assert (await seen(replica))["warm_ups"] == 0
        assert "r0 ended over a first picture: its next start goes without one" in supervisor.said
