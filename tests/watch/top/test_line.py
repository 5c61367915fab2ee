"""Text in cells: nothing is wider than it may be, and nothing in it is obeyed by a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from tests.watch.top.glances import NASTY
from vlfleet.watch.top.line import Line, Span, Tone, clean, cut, fit, flow, join, line, pad, wrap

TEXTS = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), max_size=40).map(clean)
ANY = st.text(max_size=60)


@given(ANY)
def test_nothing_is_left_that_a_terminal_obeys(text: str) -> None:
    assert clean(text).isprintable()
    assert len(clean(text)) == len(text)


def test_words_and_markup_stay_as_they_are() -> None:
    assert clean("图片 [red]x[/red] {name} ok") == "图片 [red]x[/red] {name} ok"
    assert "\x1b" not in clean(NASTY)
    assert "\u202e" not in clean(NASTY)
    assert clean("a\tb\r\nc") == "a b  c"


@given(TEXTS, st.integers(0, 50), st.booleans(), st.sampled_from(["…", "~"]))
def test_fit_is_exact(text: str, cells: int, right: bool, ellipsis: str) -> None:
    fitted = fit(text, cells, right, ellipsis)
    assert cell_len(fitted) == cells
    if cell_len(text) <= cells:
        assert fitted.strip() == text.strip()


@given(TEXTS, st.integers(0, 50))
def test_cut_is_a_beginning(text: str, cells: int) -> None:
    assert text.startswith(cut(text, cells))
    assert cell_len(cut(text, cells)) <= cells
    assert cell_len(cut(text, cells)) >= min(cells, cell_len(text)) - 1


def test_a_wide_character_is_not_halved() -> None:
    assert cut("图片", 3) == "图"
    assert fit("图片", 3) == "图…"
    assert fit("图片", 3, ellipsis="") == "图 "
    assert pad(line("图片"), 3).text == "图 "


@given(TEXTS, st.integers(2, 30))
def test_wrap_loses_no_word(text: str, cells: int) -> None:
    lines = wrap(text, cells)
    assert all(cell_len(each) <= cells for each in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


@pytest.mark.parametrize(
    ("text", "cells", "lines"),
    [
        ("lower the number of pixels", 12, ["lower the", "number of", "pixels"]),
        ("调低像素，或增加副本。", 10, ["调低像素，", "或增加副", "本。"]),
        ("abcdefghij", 4, ["abcd", "efgh", "ij"]),
        ("", 10, [""]),
    ],
)
def test_wrap(text: str, cells: int, lines: list[str]) -> None:
    assert wrap(text, cells) == lines


@given(st.lists(st.tuples(TEXTS, st.sampled_from(Tone)), max_size=6), st.integers(0, 60))
def test_pad_is_exact(spans: list[tuple[str, Tone]], cells: int) -> None:
    assert cell_len(pad(Line(tuple(Span(*each) for each in spans)), cells).text) == cells


def test_what_stands_out_does_so_to_the_end_of_its_line() -> None:
    assert pad(line("a", Tone.CHOSEN), 3).spans == (Span("a", Tone.CHOSEN), Span("  ", Tone.CHOSEN))
    assert pad(line("a", Tone.BAD), 3).spans == (Span("a", Tone.BAD), Span("  ", Tone.PLAIN))


def test_flow_leaves_out_what_does_not_fit() -> None:
    assert flow([line("one"), line("two"), line("three")], 9).text == "one  two"
    assert join([line("one"), line("two")], " | ").text == "one | two"
