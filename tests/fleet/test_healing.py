"""Starts that fail are mended within bounds, with real processes: a smaller plan, another port, an end."""

from __future__ import annotations

import json
from pathlib import Path

import psutil

from tests.fakes import FakeEngine
from tests.fleet.rig import fleet, until
from vlfleet.engine.launch import EngineSpec, Launch, Placement
from vlfleet.errors import ExitCode
from vlfleet.fleet.folder import FleetFolder
from vlfleet.fleet.replica import Phase, Replica
from vlfleet.fleet.state import load

DECIDED = {"kv_cache_tokens": 8192, "max_concurrency": 4.0}


def all_ready(replicas: list[Replica]) -> bool:
    return all(replica.phase is Phase.READY for replica in replicas)


def append(file: Path, text: str) -> None:
    with file.open("a") as log:
        log.write(text)


async def test_too_little_memory_is_healed_and_said_plainly(folder: FleetFolder) -> None:
    async with fleet(folder, FakeEngine("--fitting-tokens", "4096")) as supervisor:
        (replica,) = supervisor.replicas
        await until(lambda: all_ready(supervisor.replicas))
        first, second = "8,192 instead of 16,384 batched tokens", "4,096 instead of 8,192 batched tokens"
        assert supervisor.said == [
            f"r0 ran out of GPU memory; starting again with {first}",
            f"r0 ran out of GPU memory; starting again with {second}",
        ]
        assert (replica.adjusted, replica.restarts) == (f"{first}; {second}", 2)
        assert "--max-num-batched-tokens 4096" in " ".join(psutil.Process(replica.pid).cmdline())
        assert replica.error == "CUDA out of memory (vlfleet logs r0 shows more)"


async def test_twice_is_the_most_and_then_it_is_a_crash_loop(folder: FleetFolder) -> None:
    async with fleet(folder, FakeEngine("--fitting-tokens", "64")) as supervisor:
        error = await supervisor.failed()
        assert error.cause.endswith("it died 5 times in 10 minutes; the last time: CUDA out of memory")
        assert error.exit_code is ExitCode.FAILED
        assert len(supervisor.said) == 2
        assert supervisor.replicas[0].restarts == 2 + 4


async def test_an_adopted_fleet_keeps_the_smaller_plan(folder: FleetFolder) -> None:
    """One replica lives on, the other has died with its supervisor: neither starts with the plan that does not fit."""
    engine = FakeEngine("--fitting-tokens", "8192")
    async with fleet(folder, engine, replicas=2) as first:
        await until(lambda: all_ready(first.replicas))
        adjusted = [replica.adjusted for replica in first.replicas]
        await first.crash()
    state = load(folder)
    assert state
    assert {name: spec.options.max_num_batched_tokens for name, spec in state.healed.items()} == {
        "r0": 8192,
        "r1": 8192,
    }
    psutil.Process(first.replicas[1].pid).kill()
    await until(lambda: not state.processes["r1"].alive())
    async with fleet(folder, engine, replicas=2) as second:
        await until(lambda: all_ready(second.replicas))
        assert second.said == ["adopting r0, which still run"]
        assert [replica.adjusted for replica in second.replicas] == adjusted
        psutil.Process(second.replicas[0].pid).kill()
        await until(lambda: second.replicas[0].restarts == 2 and all_ready(second.replicas))
        assert len(second.said) == 1  # nothing had to be healed again


async def test_a_new_fleet_tries_the_whole_plan_again(folder: FleetFolder) -> None:
    async with fleet(folder, FakeEngine("--fitting-tokens", "8192")) as first:
        await until(lambda: all_ready(first.replicas))
    async with fleet(folder, FakeEngine()) as second:
        await until(lambda: all_ready(second.replicas))
        assert "--max-num-batched-tokens 16384" in " ".join(psutil.Process(second.replicas[0].pid).cmdline())
        assert second.replicas[0].adjusted == ""


async def test_a_port_clash_takes_another_port_at_once(folder: FleetFolder) -> None:
    ports: list[int] = []

    class Clashing(FakeEngine):
        def launch(self, spec: EngineSpec, placement: Placement, port: int, api_key: str) -> Launch:
            ports.append(port)
            crash = ("--crash-at-start", f"port {port} is in use", "--kind", "port")
            self.options = crash if len(ports) < 4 else ()
            return super().launch(spec, placement, port, api_key)

    async with fleet(folder, Clashing()) as supervisor:
        (replica,) = supervisor.replicas
        await until(lambda: all_ready(supervisor.replicas))
        assert len(set(ports)) == 4
        assert replica.port == ports[-1]
        assert supervisor.said == ["r0: its port was taken; starting again on another"] * 3


async def test_a_wrong_configuration_is_given_up_while_neighbours_serve(folder: FleetFolder) -> None:
    class OneWrong(FakeEngine):
        launched = 0

        def launch(self, spec: EngineSpec, placement: Placement, port: int, api_key: str) -> Launch:
            self.launched += 1
            wrong = ("--crash-at-start", "no such dtype | choose another", "--fatal", "--kind", "configuration")
            self.options = wrong if self.launched == 2 else ()
            return super().launch(spec, placement, port, api_key)

    async with fleet(folder, OneWrong(), replicas=2) as supervisor:
        good, bad = supervisor.replicas
        await until(lambda: bad.phase is Phase.FAILED and good.phase is Phase.READY)
        assert bad.error == "no such dtype (choose another)"
        assert bad.restarts == 0


async def test_phases_and_decisions_are_kept_in_the_record_and_survive_adoption(folder: FleetFolder) -> None:
    log = ("--log", "phase: compile", "--log", f"decided: {json.dumps(DECIDED)}")
    async with fleet(folder, FakeEngine("--startup-seconds", "0.3", *log)) as first:
        (replica,) = first.replicas
        await until(lambda: all_ready(first.replicas))
        assert list(replica.phases) == ["start", "load", "compile", "first picture"]
        assert replica.phases["start"] > 0.05
        assert 0.25 < replica.phases["load"] < 5
        assert abs(sum(replica.phases.values()) - (replica.ready_at - replica.started_at)) < 0.1
        assert (replica.decisions, replica.phase_at) == (DECIDED, 0.0)
        kept = dict(replica.phases)
        await first.crash()
    async with fleet(folder, FakeEngine(*log)) as second:
        await until(lambda: all_ready(second.replicas))
        assert (second.replicas[0].phases, second.replicas[0].decisions) == (kept, DECIDED)


async def test_what_the_log_says_after_ready_still_counts(folder: FleetFolder) -> None:
    async with fleet(folder, FakeEngine()) as supervisor:
        (replica,) = supervisor.replicas
        await until(lambda: all_ready(supervisor.replicas))
        append(folder.log("r0"), 'decided: {"graphs_gib": 0.4}\nphase: load\n')
        phases = dict(replica.phases)
        await until(lambda: replica.decisions == {"graphs_gib": 0.4})
        assert (replica.phases, replica.phase) == (phases, Phase.READY)


async def test_a_start_that_is_adopted_goes_on_with_its_times(folder: FleetFolder) -> None:
    engine = FakeEngine("--startup-seconds", "1.5")
    async with fleet(folder, engine) as first:
        await until(lambda: first.replicas[0].detail == "load")
        started = first.replicas[0].started_at
        await first.crash()
    async with fleet(folder, engine) as second:
        await until(lambda: all_ready(second.replicas))
        (replica,) = second.replicas
        assert replica.started_at == started
        assert list(replica.phases) == ["start", "load", "first picture"]
        assert abs(sum(replica.phases.values()) - (replica.ready_at - started)) < 0.1
