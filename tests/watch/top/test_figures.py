"""Numbers, bars and curves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlfleet.watch.top import figures
from vlfleet.watch.top.facts import Facts
from vlfleet.watch.top.past import FIGURES, SECONDS, Past
from vlfleet.watch.top.signs import ASCII, BLOCKS, signs_of

NUMBERS = st.floats(0, 1e15)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0"),
        (0.04, "<0.1"),
        (3.0, "3"),
        (3.25, "3.2"),
        (9.96, "10"),
        (120.4, "120"),
        (999.6, "1k"),
        (2100.0, "2.1k"),
        (52480, "52k"),
        (466_032, "466k"),
        (1.3e6, "1.3M"),
        (7e12, "7T"),
    ],
)
def test_number(value: float | None, text: str) -> None:
    assert figures.number(value) == text


@given(NUMBERS)
def test_a_number_is_short(value: float) -> None:
    assert len(figures.number(value)) <= 5


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0ms"),
        (0.0354, "35ms"),
        (0.9996, "1.0s"),
        (9.94, "9.9s"),
        (9.96, "10s"),
        (75, "75s"),
        (99.6, "2min"),
        (600, "10min"),
        (11520, "3.2h"),
        (216_000, "2.5d"),
        (-1, "0ms"),
    ],
)
def test_seconds(value: float | None, text: str) -> None:
    assert figures.seconds(value) == text


def test_others() -> None:
    assert figures.age(0.21) == "0.2s"
    assert figures.age(-3) == "0.0s"
    assert figures.age(None) == "-"
    assert figures.pair(0.21, 0.9) == "210ms/900ms"
    assert figures.pair(None, None) == "-"
    assert figures.share(0.613) == "61%"
    assert figures.ratio(1.054) == "1.05x"
    assert figures.gib(1 << 29) == "0.5"
    assert figures.gib(140 << 30) == "140"
    assert figures.size(12e6) == "12MB"
    assert figures.of(1, 0) is None
    assert figures.of(None, 2) is None
    assert figures.of(1, 2) == 0.5


@given(st.one_of(st.none(), st.floats(-1, 2)), st.integers(0, 30), st.sampled_from([BLOCKS, ASCII]))
def test_a_bar_has_its_cells(share: float | None, cells: int, signs: object) -> None:
    assert isinstance(signs, type(BLOCKS))
    assert len(signs.bar(share, cells)) == cells


def test_bars_and_curves() -> None:
    assert BLOCKS.bar(0.5, 4) == "██░░"
    assert BLOCKS.bar(0.53, 4) == "██▏░"
    assert BLOCKS.bar(1, 4) == "████"
    assert BLOCKS.bar(0, 4) == "░░░░"
    assert BLOCKS.bar(None, 4) == "    "
    assert ASCII.bar(0.5, 4) == "##.."
    assert BLOCKS.curve([None, 0, 0.01, 5, 10]) == " ▁▂▅█"
    assert BLOCKS.curve([0, 0]) == "▁▁"


@pytest.mark.parametrize(
    ("environ", "signs"),
    [
        ({"LANG": "en_US.UTF-8", "TERM": "xterm-256color"}, BLOCKS),
        ({"LC_ALL": "C.utf8", "LANG": "C", "TERM": "screen"}, BLOCKS),
        ({"LANG": "en_US.UTF-8", "TERM": "vt100"}, ASCII),
        ({"LANG": "en_US.UTF-8", "TERM": "dumb"}, ASCII),
        ({"LANG": "C", "TERM": "xterm"}, ASCII),
        ({"LANG": "zh_CN.GB18030", "TERM": "xterm"}, ASCII),
        ({}, ASCII),
    ],
)
def test_signs_follow_the_terminal(environ: dict[str, str], signs: object) -> None:
    assert signs_of(environ) is signs


def told(at: float, rate: float | None) -> Facts:
    return Facts({"at": at, "rates": {"requests_per_second": rate}, "queue": {"requests": 2}})


def test_the_past_is_two_minutes() -> None:
    past = Past()
    for second in range(300):
        past.add(told(1000.0 + second, float(second)))
    curve = past.curve("requests_per_second", 12)
    assert curve[-1] == 299
    assert curve[0] == pytest.approx(299 - SECONDS + SECONDS / 12, abs=1)
    assert past.curve("queue", 3) == [2, 2, 2]
    assert past.curve("images_per_second", 3) == [None, None, None]


def test_the_past_of_a_fleet_that_was_just_begun_is_empty_on_the_left() -> None:
    past = Past()
    for second in range(0, 20, 5):
        past.add(told(1000.0 + second, 1.0))
    assert past.curve("requests_per_second", 24) == [None] * 21 + [1.0] * 3


def test_a_clock_that_is_put_back_begins_anew() -> None:
    past = Past()
    past.add(told(2000.0, 5.0))
    past.add(told(1000.0, 1.0))
    past.add(Facts({"at": None}))
    assert [each for each in past.curve("requests_per_second", 10) if each] == [1.0]


@given(st.lists(st.tuples(st.floats(0, 1e9), st.one_of(st.none(), st.floats(0, 1e6)))), st.integers(0, 50))
def test_a_curve_has_its_cells(glances: list[tuple[float, float | None]], cells: int) -> None:
    past = Past()
    for at, rate in glances:
        past.add(told(at, rate))
    for figure in FIGURES:
        assert len(BLOCKS.curve(past.curve(figure, cells))) == cells
