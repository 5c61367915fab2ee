"""S13, the arithmetic: no minute holds more than was allowed, and whoever waits as long as told gets in."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from vlfleet.gateway.keys import KeyLimits
from vlfleet.gateway.limits import WINDOW_SECONDS, Usage, Window

steps = st.lists(st.tuples(st.floats(0, 40), st.floats(0.1, 12)), max_size=60)


@given(steps, st.floats(1, 20))
def test_no_minute_holds_more_than_was_allowed(steps: list[tuple[float, float]], most: float) -> None:
    window, now = Window(), 0.0
    taken: list[tuple[float, float]] = []
    for pause, amount in steps:
        now += pause
        if not window.wait_seconds(amount, most, now):
            window.take(amount, now)
            taken.append((now, amount))
    for end, _ in taken:
        inside = sum(amount for when, amount in taken if end - WINDOW_SECONDS < when <= end)
        assert inside <= most + 1e-6


@given(steps, st.floats(1, 20))
def test_the_wait_that_is_told_is_enough_and_not_too_long(steps: list[tuple[float, float]], most: float) -> None:
    window, now = Window(), 0.0
    for pause, amount in steps:
        now += pause
        wait = window.wait_seconds(amount, most, now)
        if math.isinf(wait):
            assert amount > most
            continue
        assert 0 <= wait <= WINDOW_SECONDS
        if wait > 1e-3:
            assert window.wait_seconds(amount, most, now + wait - 1e-4) > 0
        now += wait + 1e-6
        assert window.wait_seconds(amount, most, now) == 0
        window.take(amount, now)


def test_a_request_counts_once_and_leaves() -> None:
    limits, usage = KeyLimits(requests_per_minute=3, concurrent_requests=2), Usage()
    assert usage.enter(limits, 0.0) is None
    assert usage.enter(limits, 1.0) is None
    refused = usage.enter(limits, 2.0)
    assert refused
    assert refused.limit == "concurrent requests"
    usage.leave()
    assert usage.enter(limits, 3.0) is None
    usage.leave()
    refused = usage.enter(limits, 4.0)
    assert refused
    assert (refused.limit, refused.wait_seconds) == ("requests per minute", 56.0)
    assert usage.enter(limits, 60.0) is None


def test_pictures_are_counted_in_pixels() -> None:
    limits, usage = KeyLimits(megapixels_per_minute=2.0), Usage()
    assert usage.show(1_500_000, limits, 0.0) is None
    refused = usage.show(600_000, limits, 10.0)
    assert refused
    assert refused.wait_seconds == 50.0
    assert usage.show(500_000, limits, 10.0) is None
    never = usage.show(2_100_000, limits, 500.0)
    assert never
    assert math.isinf(never.wait_seconds)


def test_without_limits_nothing_is_kept() -> None:
    usage = Usage()
    for n in range(100):
        assert usage.enter(KeyLimits(), float(n)) is None
    assert not usage.requests.taken
    assert usage.show(10**12, KeyLimits(), 0.0) is None
