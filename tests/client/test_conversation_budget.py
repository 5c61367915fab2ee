"""What of a history stays: properties of the cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlfleet.client.conversation_budget import Budget, Meter, cut, steps, taken_apart
from vlfleet.client.conversation_history import History, Medium, Turn
from vlfleet.client.summary import SHORTEST, brief
from vlfleet.errors import VlfleetError

words = st.text("abc ", max_size=200)


def medium(number: int, tokens: int) -> Medium:
    return Medium({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{number}"}}, tokens)


media = st.lists(st.builds(medium, st.integers(0, 9), st.integers(1, 900)), max_size=2).map(tuple)
turns = st.builds(Turn, words, media, words)
histories = st.builds(History, words, words, media, st.lists(turns, max_size=8).map(tuple))
budgets = st.integers(200, 6000).map(Budget.of)
scales = st.floats(0.3, 5)


@given(histories, budgets, scales, words, media, st.integers(0, 5), st.integers(0, 3))
def test_what_stays_fits_with_its_summary(
    history: History, budget: Budget, scale: float, question: str, shown: tuple[Medium, ...], keep: int, images: int
) -> None:
    """Nothing is lost or doubled, what stays is the end of what was, and the question fits behind it."""
    meter = Meter(scale)
    alone = meter.prompt(History(history.system), question, shown)
    try:
        made = cut(history, meter, budget, question, shown, keep, images)
    except VlfleetError:
        assert alone > budget.prompt
        return
    if made is None:
        assert meter.prompt(history, question, shown) <= budget.prompt
        return
    assert made.old + made.recent == history.turns
    assert len(made.recent) <= keep
    after = History(history.system, " ", made.kept, made.recent)
    assert made.kept == () or made.kept == after.kept
    assert len(after.media) <= max(0, images - len(shown)) or not after.media
    before = (*history.kept, *(each for turn in made.old for each in turn.media))
    assert made.kept == before[len(before) - len(made.kept) :]
    if made.summary_tokens:
        assert meter.prompt(after, question, shown) + made.summary_tokens <= budget.prompt


@given(histories, st.integers(0, 9), st.integers(0, 9), st.integers(0, 3))
def test_media_that_stay_are_the_last_ones(history: History, keep: int, images: int, asked: int) -> None:
    made = taken_apart(history, keep, images, asked)
    stay = (*made.kept, *(each for turn in made.recent for each in turn.media))
    assert stay == history.media[len(history.media) - len(stay) :]
    assert len(stay) <= max(0, images - asked)


@given(st.integers(0, 40), st.integers(0, 40))
def test_steps_end_with_nothing_and_never_grow(keep: int, images: int) -> None:
    tried = list(steps(keep, images))
    assert tried[0] == (keep, images)
    assert tried[-1] == (0, 0)
    assert all(one[0] >= two[0] and one[1] >= two[1] for one, two in itertools.pairwise(tried))


@given(histories, scales, words, media)
def test_usage_corrects_the_estimate(history: History, scale: float, question: str, shown: tuple[Medium, ...]) -> None:
    """After one answer the same prompt is not estimated below what it was, nor far above."""
    visual = sum(each.tokens for each in (*history.media, *shown))
    counted = visual + 37
    meter = Meter(scale).corrected(history, question, shown, counted)
    assert counted <= meter.prompt(history, question, shown) <= visual + 37 * 1.05 + 2
    assert Meter(scale).corrected(history, question, shown, 0) == Meter(scale)


@given(histories, st.integers(SHORTEST, 2000))
def test_a_brief_is_as_short_as_it_must_be(history: History, most: int) -> None:
    assert len(brief(history, history.turns, most)) <= most


@pytest.mark.parametrize("total", [-5, 0, 1])
def test_a_budget_without_room(total: int) -> None:
    with pytest.raises(VlfleetError, match="leaves nothing"):
        Budget.of(total)
