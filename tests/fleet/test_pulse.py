"""What a replica's silence means, as a function of its signs of life."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vlfleet.fleet.pulse import Pulse, Verdict
from vlfleet.fleet.timing import Timing

TIMING = Timing()
OUT = TIMING.quiet_seconds + TIMING.answer_seconds

events = st.lists(st.tuples(st.sampled_from(["heard", "asked", "nothing"]), st.floats(0.01, 60.0)), max_size=30)


def lived(history: list[tuple[str, float]]) -> tuple[Pulse, float]:
    """A pulse after `history`, and the time at its end."""
    now = 100.0
    pulse = Pulse(now)
    for event, gap in history:
        now += gap
        if event == "heard":
            pulse.heard(now)
        elif event == "asked":
            pulse.asked(now)
    return pulse, now


def slow(wait: float) -> tuple[Pulse, float]:
    """An engine that once was silent for `wait` seconds after a question, and then went on."""
    return lived([("asked", TIMING.quiet_seconds), ("heard", wait)])


def test_an_engine_that_always_answered_is_out_after_8_and_a_half_seconds_and_ended_after_30() -> None:
    pulse, now = lived([("heard", 1.0)])
    pulse.asked(now + TIMING.quiet_seconds)
    assert pulse.verdict(now + OUT - 0.01, TIMING) is Verdict.MOVING
    assert pulse.verdict(now + OUT, TIMING) is Verdict.STALLED
    assert pulse.verdict(now + 29.9, TIMING) is Verdict.STALLED
    assert pulse.verdict(now + 30.0, TIMING) is Verdict.HUNG


def test_a_slow_one_gets_twice_the_time_that_it_once_needed() -> None:
    pulse, now = slow(20.0)
    asked = now + TIMING.quiet_seconds
    pulse.asked(asked)
    assert pulse.verdict(asked + 3.5, TIMING) is Verdict.SILENT  # elsewhere, if there is an elsewhere
    assert pulse.verdict(asked + 39.9, TIMING) is Verdict.SILENT
    assert pulse.verdict(asked + 40.0, TIMING) is Verdict.HUNG


def test_who_computes_without_a_gpu_has_ten_minutes() -> None:
    pulse, asked = lived([("heard", 1.0), ("asked", TIMING.quiet_seconds)])
    assert pulse.verdict(asked + 599.9, TIMING, computing=True) is Verdict.MOVING
    assert pulse.verdict(asked + 599.9, TIMING) is Verdict.HUNG
    assert pulse.verdict(asked + 600.0, TIMING, computing=True) is Verdict.HUNG


def test_patience_has_an_end() -> None:
    pulse, now = slow(1000.0)
    asked = now + TIMING.quiet_seconds
    pulse.asked(asked)
    assert pulse.verdict(asked + 119.9, TIMING) is Verdict.SILENT
    assert pulse.verdict(asked + 120.0, TIMING) is Verdict.HUNG


def test_one_slow_answer_is_forgotten() -> None:
    pulse, now = slow(20.0)
    for _ in range(1000):
        pulse.asked(now + 5.0)
        now += 5.05
        pulse.heard(now)
    pulse.asked(now + 5.0)
    assert pulse.verdict(now + OUT, TIMING) is Verdict.STALLED


def test_the_first_token_may_take_as_long_as_any() -> None:
    pulse = Pulse(100.0)
    pulse.asked(100.0)  # asked at once, not after a silence
    assert pulse.verdict(100.0 + OUT - 0.01, TIMING) is Verdict.MOVING


def test_time_that_the_watcher_slept_does_not_count() -> None:
    pulse, now = lived([("asked", 5.0)])
    pulse.excuse(60.0, now + 62.0)
    assert pulse.verdict(now + 62.0, TIMING) is Verdict.MOVING
    assert (pulse.silence(now + 62.0), pulse.waited(now + 62.0)) == (7.0, 2.0)
    pulse.heard(now + 62.0)
    pulse.excuse(60.0, now + 62.5)
    assert pulse.silence(now + 62.5) == 0.0  # and never less


def test_old_news_are_no_sign_of_life() -> None:
    pulse, now = lived([("heard", 10.0), ("asked", 5.0)])
    pulse.heard(now - 5.0)
    assert pulse.asked_at == now


@given(events)
def test_any_sign_of_life_clears_it(history: list[tuple[str, float]]) -> None:
    pulse, now = lived(history)
    pulse.heard(now + 1.0)
    assert pulse.verdict(now + 1000.0, TIMING) is Verdict.MOVING  # nobody has asked since
    assert pulse.waited(now + 1000.0) == 0.0


@given(events, st.lists(st.floats(0.0, 300.0), min_size=2, max_size=8))
def test_silence_only_makes_it_worse(history: list[tuple[str, float]], later: list[float]) -> None:
    pulse, now = lived(history)
    verdicts = [pulse.verdict(now + each, TIMING) for each in sorted(later)]
    assert verdicts == sorted(verdicts)


@given(events, st.floats(0.0, 300.0))
def test_bounds_hold_whatever_was_before(history: list[tuple[str, float]], wait: float) -> None:
    pulse, asked = lived([*history, ("heard", 1.0), ("asked", TIMING.quiet_seconds)])
    now = asked + wait
    verdict = pulse.verdict(now, TIMING)
    assert (verdict is Verdict.MOVING) == (wait < TIMING.answer_seconds)
    if wait >= TIMING.most_patience_seconds:
        assert verdict is Verdict.HUNG
    if verdict is Verdict.HUNG:
        assert pulse.silence(now) >= TIMING.hung_seconds
        assert wait >= min(2 * pulse.longest_wait, TIMING.most_patience_seconds)


def test_the_bounds_add_up_to_the_10_seconds_of_the_promise() -> None:
    assert OUT + TIMING.watch_seconds < 10
    assert TIMING.probe_ready_seconds + TIMING.probe_timeout_seconds < OUT  # /health is known to be silent by then
