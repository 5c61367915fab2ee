"""The choice of a replica is a function of its record."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tests.gateway.rig import replica
from vlfleet.fleet.replica import Phase, Replica
from vlfleet.gateway.retries import BURST, RetryBudget, Suspects
from vlfleet.gateway.routing import choose
from vlfleet.gateway.state import charge

fleets = st.lists(
    st.tuples(st.sampled_from(Phase), st.integers(0, 9), st.floats(0, 1e6)),
    max_size=8,
).map(lambda rows: [made(f"r{n}", *row) for n, row in enumerate(rows)])


def made(name: str, phase: Phase, in_flight: int, work: float) -> Replica:
    record = replica(name, phase=phase)
    record.in_flight, record.outstanding_work = in_flight, work
    return record


@given(fleets, st.sets(st.sampled_from([f"r{n}" for n in range(8)])), st.integers(0, 10**9))
def test_the_least_loaded_of_those_allowed(replicas: list[Replica], exclude: set[str], turn: int) -> None:
    chosen = choose(replicas, exclude, turn)
    allowed = [each for each in replicas if each.phase is Phase.READY and each.name not in exclude]
    if not allowed:
        assert chosen is None
    else:
        assert chosen in allowed
        load = (chosen.outstanding_work, chosen.in_flight)
        assert load == min((each.outstanding_work, each.in_flight) for each in allowed)


@given(st.integers(1, 8), st.lists(st.floats(1, 5000), min_size=1, max_size=200))
def test_work_is_balanced_to_within_one_request(count: int, works: list[float]) -> None:
    replicas = [replica(f"r{n}") for n in range(count)]
    for turn, work in enumerate(works):
        chosen = choose(replicas, (), turn)
        assert chosen
        chosen.outstanding_work += work
        chosen.in_flight += 1
    loads = [each.outstanding_work for each in replicas]
    assert max(loads) - min(loads) <= max(works) + 1e-6


@given(st.integers(1, 8), st.integers(0, 100))
def test_equals_take_turns(count: int, first: int) -> None:
    replicas = [replica(f"r{n}") for n in range(count)]
    taken = Counter(str(choose(replicas, (), turn)) for turn in range(first, first + 5 * count))
    assert set(taken.values()) == {5}


@given(st.lists(st.floats(0, 1e6), max_size=20))
def test_an_idle_replica_has_no_work(works: list[float]) -> None:
    record = replica("r0")
    held = [charge(record, work) for work in works]
    for each in held:
        each.__enter__()
    assert record.in_flight == len(works)
    for each in held:
        each.__exit__(None, None, None)
    assert (record.in_flight, record.outstanding_work) == (0, 0.0)


@given(st.lists(st.booleans(), max_size=2000))
def test_retries_are_a_tenth_of_the_requests_and_a_burst(wanted: list[bool]) -> None:
    budget, retries = RetryBudget(), 0
    for retry in wanted:
        budget.earn()
        retries += retry and budget.spend()
    assert retries <= BURST + 0.1 * len(wanted) + 1e-6


def test_a_suspect_is_forgotten() -> None:
    suspects = Suspects()
    suspects.add("r0", now=10.0)
    assert suspects.at(10.9) == {"r0"}
    assert suspects.at(11.1) == set()
