"""Phases and decisions of a start, as a record."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vlfleet.engine.launch import Observation
from vlfleet.fleet import startup
from vlfleet.fleet.life import new_replica
from vlfleet.fleet.replica import Replica


def begun(at: float = 100.0) -> Replica:
    replica = new_replica("r0", "fake")
    startup.begin(replica, at)
    return replica


def test_phases_in_their_order_with_the_first_that_no_line_names() -> None:
    replica = begun()
    assert startup.note(replica, Observation("load"), 114.0)
    assert startup.note(replica, Observation("compile", {"weights_gib": 15.6}), 119.0)
    assert startup.so_far(replica, 125.0) == {"start": 14.0, "load": 5.0, "compile": 6.0}
    startup.end(replica, 130.0)
    assert replica.phases == {"start": 14.0, "load": 5.0, "compile": 11.0}
    assert list(replica.phases) == ["start", "load", "compile"]
    assert (replica.phase_at, replica.detail, replica.decisions) == (0.0, "", {"weights_gib": 15.6})


def test_a_phase_that_comes_again_adds() -> None:
    replica = begun()
    for at, phase in ((101.0, "profile"), (103.0, "compile"), (110.0, "profile")):
        startup.note(replica, Observation(phase), at)
    startup.end(replica, 111.0)
    assert replica.phases == {"start": 1.0, "profile": 3.0, "compile": 7.0}


def test_every_rank_logs_the_same_and_only_the_first_time_is_news() -> None:
    replica = begun()
    seen = Observation("load", {"kv_cache_tokens": 8192})
    assert startup.note(replica, seen, 101.0)
    assert not startup.note(replica, seen, 102.0)
    assert startup.note(replica, Observation(decisions={"kv_cache_tokens": 8000}), 103.0)


def test_after_the_start_only_decisions_are_news() -> None:
    replica = begun()
    startup.end(replica, 105.0)
    assert not startup.note(replica, Observation("load"), 106.0)
    assert startup.note(replica, Observation("load", {"graphs_gib": 0.4}), 106.0)
    assert (replica.phases, replica.detail) == ({"start": 5.0}, "")


def test_the_next_start_begins_anew() -> None:
    replica = begun()
    startup.note(replica, Observation("load", {"version": "0.32.0"}), 101.0)
    startup.begin(replica, 200.0)
    assert (replica.phases, replica.decisions, replica.detail) == ({}, {}, "")


@given(st.lists(st.tuples(st.sampled_from(["load", "profile", "compile", "warm-up"]), st.floats(0, 60)), max_size=12))
def test_the_phases_add_up_to_the_start(lines: list[tuple[str, float]]) -> None:
    replica, now = begun(), 100.0
    for phase, gap in lines:
        now += gap
        startup.note(replica, Observation(phase), now)
    startup.end(replica, now + 1.0)
    assert abs(sum(replica.phases.values()) - (now + 1.0 - 100.0)) < 0.001 * (len(lines) + 1)
    assert all(seconds >= 0 for seconds in replica.phases.values())
