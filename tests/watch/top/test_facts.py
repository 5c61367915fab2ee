"""A glance may hold anything: nothing that comes over the wire breaks the screen."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from tests.watch.top.glances import AT, SICK
from vlfleet.watch.top.facts import Facts
from vlfleet.watch.top.frame import frame
from vlfleet.watch.top.keys import press
from vlfleet.watch.top.look import Look
from vlfleet.watch.top.once import once, printed
from vlfleet.watch.top.past import Past
from vlfleet.watch.top.scene import Scene
from vlfleet.watch.top.tail import Tail
from vlfleet.watch.top.view import View

ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)),
    max_leaves=6,
)


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a glance."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for name, each in inner for found in paths(each, (*path, name)))]


PATHS = [path for path in paths(SICK) if path]


def put(facts: Any, path: tuple[Any, ...], value: Any) -> None:
    """Replaces one place, if it is still there."""
    try:
        for name in path[:-1]:
            facts = facts[name]
        facts[path[-1]] = value
    except (LookupError, TypeError):
        return


@given(st.lists(st.tuples(st.sampled_from(PATHS), ANYTHING), max_size=12), st.sampled_from("ercdas"), st.integers(0, 3))
def test_no_glance_breaks_a_screen(changes: list[tuple[tuple[Any, ...], Any]], key: str, tabs: int) -> None:
    told = copy.deepcopy(SICK)
    for path, value in changes:
        put(told, path, value)
    facts, view, past = Facts(told), View(), Past()
    past.add(facts)
    for name in ["tab"] * tabs + ["j", key]:
        view = press(view, name, facts, Look(), "ann").view
    for width, height in ((80, 24), (140, 45)):
        lines = frame(Scene(facts, AT, Look(), view, past=past), width, height)
        assert [cell_len(line.text) for line in lines] == [width] * height
        assert all(line.text.isprintable() for line in lines)
    assert "\x1b" not in printed(once(facts, Look()))


@pytest.mark.parametrize("value", [None, "text", [], True, float("nan"), float("inf"), "12"])
def test_what_is_no_number_is_unknown(value: Any) -> None:
    assert Facts({"x": value}).number("x") is None
    assert Facts({"x": value}).count("x") == 0


def test_kinds() -> None:
    facts = Facts({"a": 3, "b": True, "c": {"d": 1}, "e": [{"f": 2}, 3, None], "g": "a\nb"})
    assert (facts.number("a"), facts.text("a"), facts.raw("a")) == (3, "3", "")
    assert (facts.true("b"), facts.true("a"), facts.number("b")) == (True, False, None)
    assert facts.part("c").number("d") == 1
    assert facts.pairs("c") == [("d", "1")]
    assert not facts.part("a")
    assert [each.number("f") for each in facts.parts("e")] == [2]
    assert facts.texts("e") == ["{'f': 2}", "3"]
    assert (facts.text("g"), facts.raw("g")) == ("a b", "a\nb")


@given(st.lists(st.text("ab\n", max_size=8), max_size=12))
def test_a_log_is_the_same_however_it_comes(pieces: list[str]) -> None:
    tail, whole = Tail(), Tail()
    counted = sum(tail.add(piece) for piece in pieces)
    whole.add("".join(pieces))
    assert tail.lines() == whole.lines()
    assert counted == "".join(pieces).count("\n")
