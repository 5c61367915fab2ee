"""Text as it comes: no half characters, no stop string, and in the end exactly what the whole answer decodes to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlfleet.engine.embedded.detokenize import REPLACEMENT, Detokenizer

TEXTS = st.text(alphabet=st.sampled_from("abc \n.é你好😀🏳️‍🌈ß\u0301"), max_size=25)


def decode(tokens: list[int]) -> str:
    """A tokenizer of single bytes: every character beyond ASCII is split over tokens."""
    return bytes(tokens).decode("utf-8", "replace")


def run(text: str, stop: tuple[str, ...] = ()) -> tuple[list[str], Detokenizer]:
    one = Detokenizer(decode, stop)
    pieces = []
    for token in text.encode():
        pieces.append(one.push(token))
        if one.stopped:
            break
    pieces.append(one.finish())
    return pieces, one


@given(text=TEXTS)
def test_pieces_join_to_the_text(text: str) -> None:
    pieces, one = run(text)
    assert "".join(pieces) == text
    assert all(REPLACEMENT not in piece for piece in pieces)
    assert not one.stopped


@given(text=st.text(alphabet=st.characters(codec="utf-8", exclude_characters=REPLACEMENT), max_size=40))
def test_any_unicode_joins_to_the_text(text: str) -> None:
    assert "".join(run(text)[0]) == text


@given(
    text=st.text(alphabet="ab\n你", max_size=30),
    stop=st.lists(st.text(alphabet="ab\n你", min_size=1, max_size=4), max_size=3),
)
def test_a_stop_string_never_shows_nor_does_its_beginning(text: str, stop: list[str]) -> None:
    pieces, one = run(text, tuple(stop))
    shown = "".join(pieces)
    ends = [at for one_stop in stop if (at := text.find(one_stop)) >= 0]
    assert one.stopped == bool(ends)
    if not ends:
        assert shown == text
        return
    # the first to be complete ends the answer; of those complete with the same character, the one that began first
    complete = min(text.find(one_stop) + len(one_stop) for one_stop in stop if one_stop in text)
    begun = min(text[:complete].find(one_stop) for one_stop in stop if one_stop in text[:complete])
    assert shown == text[:begun]


@given(text=st.text(alphabet="ab", max_size=30), stop=st.text(alphabet="ab", min_size=1, max_size=5))
def test_nothing_is_held_back_longer_than_needed(text: str, stop: str) -> None:
    """After each token everything is shown but an end of the text that may yet become the stop string."""
    one = Detokenizer(decode, (stop,))
    shown = ""
    for number, token in enumerate(text.encode(), 1):
        shown += one.push(token)
        if one.stopped:
            return
        held = text[len(shown) : number]
        assert text.startswith(shown)
        assert stop.startswith(held)
        assert len(held) < len(stop)


@pytest.mark.parametrize("end", [b"\xe4", b"\xe4\xbd", b"\xf0\x9f\x98"])
def test_half_a_character_at_the_end_is_left_out(end: bytes) -> None:
    one = Detokenizer(decode)
    assert "".join([*(one.push(token) for token in b"ab" + end), one.finish()]) == "ab"


@given(tokens=st.lists(st.integers(0, 255), max_size=40))
def test_bytes_that_are_no_text_raise_nothing(tokens: list[int]) -> None:
    one = Detokenizer(decode, ("ab",))
    shown = "".join([*(one.push(token) for token in tokens), one.finish()])
    assert "ab" not in shown


def test_the_end_of_an_answer_gives_back_what_was_held() -> None:
    one = Detokenizer(decode, ("STOP",))
    assert "".join(one.push(token) for token in b"a ST") == "a "
    assert one.finish() == "ST"
