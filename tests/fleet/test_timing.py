"""When a dead replica is started again, as a function of its deaths."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vlfleet.fleet.timing import Death, RestartPolicy

POLICY = RestartPolicy()


def deaths(*times: float, healthy: float = 0.0) -> list[Death]:
    return [Death(at, healthy) for at in times]


def test_backoff_doubles_up_to_a_minute() -> None:
    far_apart = deaths(*(200.0 * number for number in range(9)))
    waits = [POLICY.delay_seconds(far_apart[: number + 1]) for number in range(9)]
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_five_deaths_in_ten_minutes_end_it() -> None:
    assert POLICY.delay_seconds(deaths(0, 100, 200, 300)) == 8
    assert POLICY.delay_seconds(deaths(0, 100, 200, 300, 599)) is None
    assert POLICY.delay_seconds(deaths(0, 100, 200, 300, 600)) == 16


def test_ten_good_minutes_forget_what_was_before() -> None:
    assert POLICY.delay_seconds([*deaths(0, 200, 400), Death(1200, healthy_seconds=700)]) == 1
    assert POLICY.delay_seconds([*deaths(0, 200, 400), Death(1200, 700), Death(1300, 5)]) == 2


@given(
    gaps=st.lists(st.tuples(st.floats(0.0, 2000.0), st.floats(0.0, 1.0)), min_size=1, max_size=32),
    most=st.floats(1.0, 100.0),
)
def test_properties(gaps: list[tuple[float, float]], most: float) -> None:
    policy = RestartPolicy(most_seconds=most)
    now, history = 0.0, []
    for gap, health in gaps:
        now += gap
        history.append(Death(now, gap * health))
        delay = policy.delay_seconds(history)
        recent = sum(death.at > now - policy.window_seconds for death in history)
        assert (delay is None) == (recent >= policy.deaths)
        if delay is not None:
            assert policy.first_seconds <= delay <= most
        if history[-1].healthy_seconds >= policy.forget_after_seconds:
            assert delay in (policy.first_seconds, None)
        if delay is None:
            return  # given up: no further start, no further death
