"""Health by progress: what hangs is out of rotation and replaced, what is only slow is left in peace."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import replace

import aiohttp
import psutil
import pytest

from tests.fakes import FakeEngine
from tests.fleet.rig import FAST, fleet, until
from tests.fleet.served import Load, faults, seen, served
from vlfleet.engine.launch import Placement
from vlfleet.fleet.folder import FleetFolder
from vlfleet.fleet.replica import Phase, Replica
from vlfleet.fleet.timing import Timing

PATIENT = replace(FAST, hung_seconds=30.0)
"""Nothing is ended for its silence."""


class Phases:
    """Every phase that a replica is in while the context lasts, with its detail."""

    def __init__(self, replica: Replica) -> None:
        self.seen: set[str] = set()
        self._replica = replica

    async def _look(self) -> None:
        while True:
            self.seen.add(f"{self._replica.phase} {self._replica.detail}".rstrip())
            await asyncio.sleep(0.005)

    async def __aenter__(self) -> Phases:
        self._task = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()


async def test_an_idle_replica_is_asked_now_and_then_and_nobody_counts_it(folder: FleetFolder) -> None:
    async with served(folder) as (supervisor, rig):
        (replica,) = supervisor.replicas
        async with Phases(replica) as phases:
            await asyncio.sleep(1.2)
        facts = await seen(replica)
        assert 2 <= facts["canaries"] <= 6  # one at once, then one each 0.3 s of silence
        assert facts["requests"] == 0
        assert (replica.served, replica.in_flight, replica.progress_at) == (0, 0, 0.0)
        assert await rig.metric('vlfleet:requests_total{code="200",replica="r0"}') == 0
        assert phases.seen == {"ready"}


async def test_no_canary_where_requests_show_that_it_works(folder: FleetFolder) -> None:
    options, timing = ("--tokens", "75", "--token-seconds", "0.02"), replace(PATIENT, quiet_seconds=1.0)
    async with served(folder, *options, timing=timing) as (supervisor, rig):
        (replica,) = supervisor.replicas
        async with rig.chat(stream=True) as answer:
            assert await answer.content.readany()
            before = (await seen(replica))["canaries"]
            await answer.read()
        assert (before, (await seen(replica))["canaries"]) == (1, 1)  # the one at the start


async def test_a_wedge_is_out_although_health_says_200_and_comes_back_when_it_moves(folder: FleetFolder) -> None:
    async with served(folder, timing=PATIENT) as (supervisor, rig):
        (replica,) = supervisor.replicas
        pid = replica.pid
        await faults(replica, wedged=True)
        await until(lambda: replica.phase is Phase.UNHEALTHY)
        assert (replica.detail, replica.stalled, replica.unhealthy_at > 0) == ("no progress", True, True)
        async with aiohttp.ClientSession() as session, session.get(f"{replica.base_url}/health") as health:
            assert health.status == 200
        async with rig.chat() as answer:
            assert answer.status == 503
            message = (await answer.json())["error"]["message"]
            assert message == "no replica is ready: r0 has been out of rotation (no progress) for 0 s"
        asked = (await seen(replica))["canaries"]
        await asyncio.sleep(0.5)
        assert (await seen(replica))["canaries"] == asked  # one is out, so no other is sent
        await faults(replica, wedged=False)
        await until(lambda: replica.phase is Phase.READY)
        assert (replica.pid, replica.restarts, replica.stalled, replica.unhealthy_at) == (pid, 0, False, 0.0)


async def test_a_wedge_that_lasts_is_killed_and_explained(folder: FleetFolder) -> None:
    async with served(folder, "--ignore-sigterm") as (supervisor, _):
        (replica,) = supervisor.replicas
        old = psutil.Process(replica.pid)
        await faults(replica, fault="hang")
        await until(lambda: replica.restarts == 1)
        assert replica.error == (
            "it hung: no token for 2 s although it was asked for one; /health said 200 (vlfleet logs r0 shows more)"
        )
        assert not old.is_running()
        await until(lambda: replica.phase is Phase.READY)


async def test_a_stopped_process_is_killed_and_replaced(folder: FleetFolder) -> None:
    timing = replace(FAST, unhealthy_seconds=30.0)
    async with served(folder, "--children", "1", replicas=2, timing=timing) as (supervisor, _):
        first, second = supervisor.replicas
        group = [psutil.Process(first.pid), *psutil.Process(first.pid).children()]
        assert len(group) == 2
        for process in group:
            process.suspend()
        await until(lambda: first.phase is Phase.UNHEALTHY)
        assert first.stalled
        await until(lambda: first.restarts == 1 and first.phase is Phase.READY)
        assert "it hung: no token for 2 s" in first.error
        assert "/health gave no answer" in first.error
        assert not any(process.is_running() for process in group)
        assert (second.restarts, second.phase) == (0, Phase.READY)


async def test_what_waits_on_a_wedge_is_answered_elsewhere_and_what_streams_is_told(folder: FleetFolder) -> None:
    async with served(folder, "--tokens", "300", "--token-seconds", "0.01", replicas=2) as (supervisor, rig):
        first, second = supervisor.replicas
        streams = [await rig.chat(stream=True) for _ in range(2)]  # one on each, and both have begun
        await until(lambda: first.in_flight == second.in_flight == 1)
        first_bytes = [await stream.content.readany() for stream in streams]
        assert all(first_bytes)
        await faults(first, wedged=True)
        whole = [asyncio.create_task(rig.chat(max_tokens=5).__aenter__()) for _ in range(4)]
        await until(lambda: first.in_flight > 1)
        waiting = first.in_flight - 1
        answers = await asyncio.gather(*whole)
        assert first.restarts == 0  # nobody had to wait for its end
        assert [answer.status for answer in answers] == [200] * 4
        assert {answer.headers["X-Vlfleet-Replica"] for answer in answers} == {"r1"}
        assert await rig.metric('vlfleet:retries_total{replica="r0"}') == waiting
        ends = {stream.headers["X-Vlfleet-Replica"]: (await stream.read()).decode() for stream in streams}
        assert ends["r1"].endswith("data: [DONE]\n\n")
        assert '"code":"stream_broken"' in ends["r0"].split("\n\n")[-2]
        await until(lambda: "while 1 request waited" in first.error)


async def test_without_another_replica_a_request_waits_for_the_slow_one(folder: FleetFolder) -> None:
    """A prefill of 2 s with a bound of 1.1 s: one of 20 s with the real one."""
    async with served(folder, "--prefill-seconds", "2", "--tokens", "2", timing=PATIENT) as (supervisor, rig):
        (replica,) = supervisor.replicas
        pid = replica.pid
        async with Phases(replica) as first:
            async with rig.chat() as answer:
                assert (answer.status, (await answer.json())["usage"]["completion_tokens"]) == (200, 2)
            await until(lambda: replica.phase is Phase.READY)
        assert "unhealthy no progress" in first.seen
        async with Phases(replica) as second, rig.chat() as answer:  # it is known by now
            assert answer.status == 200
        assert second.seen == {"ready"}
        assert (replica.pid, replica.restarts, replica.served) == (pid, 0, 2)


async def test_a_long_step_on_the_cpu_is_no_hang(folder: FleetFolder) -> None:
    """2.5 s of silence with bounds of 1.1 and 1.5 s, and with another to go to: one that computes is left in peace."""
    async with served(folder, "--prefill-seconds", "2.5", "--burns", replicas=2) as (supervisor, rig):
        first, second = supervisor.replicas
        asking = asyncio.create_task(rig.chat().__aenter__())
        await until(lambda: first.in_flight or second.in_flight)
        async with Phases(first if first.in_flight else second) as phases:
            assert (await asking).status == 200
        assert phases.seen == {"ready"}
        assert [replica.restarts for replica in supervisor.replicas] == [0, 0]
        assert await rig.metric('vlfleet:retries_total{replica="r0"}') == 0
        assert await rig.metric('vlfleet:retries_total{replica="r1"}') == 0


async def test_on_gpus_the_cpu_says_nothing(folder: FleetFolder) -> None:
    """Who waits for a GPU that hangs spins."""
    async with served(folder, "--prefill-seconds", "2.5", "--burns", replicas=2, timing=PATIENT) as (supervisor, rig):
        for at, replica in enumerate(supervisor.replicas):
            replica.placement = Placement((at,), 24 << 30)
        asking = asyncio.create_task(rig.chat().__aenter__())
        await until(lambda: any(replica.phase is Phase.UNHEALTHY for replica in supervisor.replicas))
        assert (await asking).status == 200


async def test_counters_speak_for_a_long_answer_in_one_piece(folder: FleetFolder) -> None:
    """The batch is full: the canary waits, no byte comes for 1.8 s, but tokens are made."""
    timing = replace(PATIENT, answer_seconds=1.2)
    async with served(folder, "--tokens", "90", "--token-seconds", "0.02", timing=timing) as (supervisor, rig):
        (replica,) = supervisor.replicas
        await faults(replica, canary="wait")
        async with Phases(replica) as phases, rig.chat() as answer:
            assert answer.status == 200
        assert phases.seen == {"ready"}


async def test_who_takes_no_canary_is_believed_while_idle_and_watched_by_its_requests(folder: FleetFolder) -> None:
    async with served(folder, "--log", "no chat", timing=PATIENT) as (supervisor, rig):
        (replica,) = supervisor.replicas
        await faults(replica, canary="400")
        async with Phases(replica) as phases:
            await asyncio.sleep(1.0)
        assert phases.seen == {"ready"}
        await faults(replica, wedged=True)
        request = asyncio.create_task(rig.chat().__aenter__())
        await until(lambda: replica.phase is Phase.UNHEALTHY)
        await faults(replica, wedged=False)
        assert (await request).status == 200
        await until(lambda: replica.phase is Phase.READY)


async def test_an_engine_that_only_fails_is_replaced(folder: FleetFolder) -> None:
    async with served(folder) as (supervisor, _):
        (replica,) = supervisor.replicas
        await faults(replica, canary="500")
        await until(lambda: replica.restarts == 1 and replica.phase is Phase.READY)
        assert "no token for 2 s" in replica.error


async def test_nobody_is_blamed_for_what_the_supervisor_slept(folder: FleetFolder) -> None:
    async with served(folder) as (supervisor, _):
        (replica,) = supervisor.replicas
        async with Phases(replica) as phases:
            time.sleep(2.0)  # noqa: ASYNC251 - the whole process stands still, as on a machine that swaps
            await asyncio.sleep(0.1)
        assert phases.seen == {"ready"}


async def test_who_makes_tokens_may_answer_no_health(folder: FleetFolder) -> None:
    """An API server that is busy with large pictures."""
    async with served(folder, "--tokens", "60", "--token-seconds", "0.02") as (supervisor, rig):
        (replica,) = supervisor.replicas
        await faults(replica, health=0)
        async with Phases(replica) as phases, rig.chat(stream=True) as answer:
            assert (await answer.text()).endswith("[DONE]\n\n")
            await asyncio.sleep(0.5)
        assert phases.seen == {"ready"}


async def test_a_slow_engine_whose_health_is_silent_too_gets_no_patience(folder: FleetFolder) -> None:
    async with served(folder, "--prefill-seconds", "2", "--tokens", "2", timing=PATIENT) as (supervisor, rig):
        (replica,) = supervisor.replicas
        async with rig.chat() as answer:  # from now on silences of 3.4 s after a question are nothing new
            assert answer.status == 200
        os.kill(replica.pid, signal.SIGSTOP)
        stopped = time.monotonic()
        await until(lambda: replica.phase is Phase.UNHEALTHY and replica.stalled)
        assert time.monotonic() - stopped < 3.0
        os.kill(replica.pid, signal.SIGCONT)
        await until(lambda: replica.phase is Phase.READY)


async def test_an_adopted_replica_is_watched_too(folder: FleetFolder) -> None:
    async with fleet(folder, FakeEngine()) as first:
        await until(lambda: first.replicas[0].phase is Phase.READY)
        pid = first.replicas[0].pid
        await first.crash()
    async with fleet(folder, FakeEngine()) as second:
        (replica,) = second.replicas
        await until(lambda: replica.phase is Phase.READY)
        assert replica.pid == pid
        os.kill(pid, signal.SIGSTOP)
        await until(lambda: replica.restarts == 1 and replica.phase is Phase.READY)


@pytest.mark.timeout(180)
async def test_the_real_bounds_under_load(folder: FleetFolder) -> None:
    """One of three is stopped and one is wedged while 8 clients ask: both are out within 10 s, and nothing fails."""
    async with served(folder, "--token-seconds", "0.01", replicas=3, timing=Timing()) as (supervisor, rig):
        stopped, wedged, good = supervisor.replicas
        pids = [replica.pid for replica in supervisor.replicas]
        async with Load(rig, clients=8) as load:
            await asyncio.sleep(1.0)
            # A stream that has begun cannot be asked elsewhere: let it wait on the other two until they move again.
            await faults(wedged, wedged=True)
            os.kill(stopped.pid, signal.SIGSTOP)
            began = time.monotonic()
            out: dict[str, float] = {}
            while len(out) < 2:
                await asyncio.sleep(0.02)
                now = time.monotonic() - began
                assert now < 10.0, f"only {out} out of rotation"
                out = {each.name: now for each in (stopped, wedged) if each.phase is not Phase.READY} | out
            assert good.phase is Phase.READY
            os.kill(stopped.pid, signal.SIGCONT)
            await faults(wedged, wedged=False)
            back = time.monotonic()
            await until(lambda: all(replica.phase is Phase.READY for replica in supervisor.replicas))
            assert time.monotonic() - back < 6.0
        assert load.failed == []
        assert load.answered > 20
        assert [replica.pid for replica in supervisor.replicas] == pids
