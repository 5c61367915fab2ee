"""What is counted on a replica, and when another one is asked."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.gateway.rig import replica
from vlfleet.gateway.retries import BURST, RetryBudget, Suspects
from vlfleet.gateway.state import charge


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
