"""What follows a death, without any process."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.fakes import FakeEngine
from vlfleet.engine.launch import EngineOptions, EngineSpec, Failure, FailureKind, Value
from vlfleet.fleet.recovery import MACHINE, MOST_PORTS, Recovery
from vlfleet.fleet.timing import RestartPolicy

SPEC = EngineSpec(Path("model"), "m")
POLICY = RestartPolicy()
MEMORY = Failure("CUDA out of memory", kind=FailureKind.MEMORY)
PORT = Failure("port 4000 is in use", kind=FailureKind.PORT)


def made(engine: FakeEngine | None = None) -> Recovery:
    return Recovery(engine or FakeEngine(), SPEC, POLICY)


def test_no_memory_at_the_start_makes_the_plan_smaller_twice() -> None:
    recovery = made()
    first, second, third = (recovery.after(MEMORY, now) for now in (0.0, 100.0, 200.0))
    assert (first.delay_seconds, first.said) == (0.0, "8,192 instead of 16,384 batched tokens")
    assert (second.delay_seconds, second.said) == (0.0, "4,096 instead of 8,192 batched tokens")
    assert (third.delay_seconds, third.said) == (POLICY.first_seconds, "")  # the first death that counts
    assert recovery.spec.options.max_num_batched_tokens == 4096


def test_no_memory_while_it_serves_is_a_death_as_any() -> None:
    recovery = made()
    step = recovery.after(MEMORY, 50.0, ready_at=10.0)
    assert (step.delay_seconds, step.said, recovery.spec) == (POLICY.first_seconds, "", SPEC)


def test_what_the_engine_decided_is_told_to_the_one_who_heals() -> None:
    class Curious(FakeEngine):
        def heal(self, spec: EngineSpec, failure: Failure, decisions: Mapping[str, Value]) -> tuple[EngineSpec, str]:
            options = EngineOptions(max_num_batched_tokens=int(decisions["encoder_budget_tokens"]) // 4)
            return dataclasses.replace(spec, options=options), "less"

    recovery = made(Curious())
    recovery.after(MEMORY, 0.0, decisions={"encoder_budget_tokens": 16384})
    assert recovery.spec.options.max_num_batched_tokens == 4096


@pytest.mark.parametrize("error", [None, RuntimeError("a fault of the engine's class")])
def test_who_cannot_be_healed_is_started_as_before(error: Exception | None) -> None:
    class Helpless(FakeEngine):
        def heal(self, spec: EngineSpec, failure: Failure, decisions: Mapping[str, Value]) -> None:
            if error:
                raise error

    recovery = made(Helpless())
    assert recovery.after(MEMORY, 0.0).delay_seconds == POLICY.first_seconds
    assert recovery.spec == SPEC


def test_a_taken_port_costs_no_pause_and_no_death() -> None:
    recovery = made()
    steps = [recovery.after(PORT, float(now)) for now in range(MOST_PORTS)]
    assert {step.delay_seconds for step in steps} == {0.0}
    assert recovery.after(PORT, 10.0).delay_seconds == POLICY.first_seconds  # one too many in a row
    assert recovery.after(PORT, 20.0).delay_seconds == 0.0  # and they count anew


def test_what_the_machine_refuses_is_tried_again_for_ever_and_is_no_death() -> None:
    recovery = made()
    full = Failure("it cannot be run: [Errno 28] No space left on device", rule=MACHINE)
    assert [recovery.after(full, float(at)).delay_seconds for at in range(9)] == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert recovery.after(Failure("it broke"), 10.0).delay_seconds == POLICY.first_seconds  # the first death
    assert recovery.after(full, 11.0).delay_seconds == POLICY.first_seconds  # and the pauses begin anew


def test_a_wrong_configuration_is_given_up_at_once() -> None:
    failure = Failure("--dtype fp7 is unknown", retry=False, kind=FailureKind.CONFIGURATION)
    step = made().after(failure, 0.0)
    assert (step.delay_seconds, step.failure) == (None, failure)


def test_a_crash_loop_ends_with_its_explanation() -> None:
    recovery = made()
    steps = [recovery.after(Failure("it broke"), 10.0 * at) for at in range(POLICY.deaths)]
    assert [step.delay_seconds for step in steps] == [1, 2, 4, 8, None]
    assert steps[-1].failure.cause == "it died 5 times in 10 minutes; the last time: it broke"
