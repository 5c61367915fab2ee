"""The JSON in an answer: whatever the model wrote around it, or forgot."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlfleet.tasks.json_text import NoJsonError, read_json

TOTAL = {"invoice_number": "INV-7", "total": 12.5}
CORPUS: list[tuple[str, Any]] = [
    ('{"invoice_number": "INV-7", "total": 12.5}', TOTAL),
    ('```json\n{"invoice_number": "INV-7", "total": 12.5}\n```', TOTAL),
    ('```\n{"invoice_number": "INV-7", "total": 12.5}\n```', TOTAL),
    ('```json\n{"invoice_number": "INV-7", "total": 12.5}', TOTAL),
    ('Here is the JSON:\n```json\n{"invoice_number": "INV-7", "total": 12.5}\n```\nLet me know [1].', TOTAL),
    ('Sure! {"invoice_number": "INV-7", "total": 12.5} I hope that helps.', TOTAL),
    ('<think>the format is {"a": 1}?</think>\n{"invoice_number": "INV-7", "total": 12.5}', TOTAL),
    ('{"invoice_number": "INV-7", "total": 12.5,}', TOTAL),
    ('{"invoice_number": "INV-7" "total": 12.5}', TOTAL),
    ('{\n  "invoice_number": "INV-7",, // as printed\n  "total": 12.5 /* paid */\n}', TOTAL),
    ("{'invoice_number': 'INV-7', 'total': 12.5}", TOTAL),
    ('{invoice_number: "INV-7", total: 12.5}', TOTAL),
    ('{"invoice_number": "INV-7", "total": +12.50}', TOTAL),
    ('{"a": True, "b": None, "c": .5, "d": 1.}', {"a": True, "b": None, "c": 0.5, "d": 1.0}),
    ('{"size": "a 19" monitor", "n": 1}', {"size": 'a 19" monitor', "n": 1}),
    ('{"text": "two\nlines"}', {"text": "two\nlines"}),
    ('{"text": "it\'s"}', {"text": "it's"}),
    ("{'text': 'it\\'s', 'u': '\\u00e9'}", {"text": "it's", "u": "é"}),
    ('{"text": "smile \\ud83d\\ude00", "x": 1,}', {"text": "smile 😀", "x": 1}),
    ('[{"a": 1},\n{"a": 2},\n]', [{"a": 1}, {"a": 2}]),
    ('{"a": 1}\n{"a": 2}', [{"a": 1}, {"a": 2}]),
    ('{"a": 1},\n{"a": 2}', [{"a": 1}, {"a": 2}]),
    ('[{"bbox_2d": (1, 2, 3, 4)}]', [{"bbox_2d": [1, 2, 3, 4]}]),
    ("[]", []),
    ("There is nothing: []", []),
    ("see [1] and [2]: {'k': 'v'}", {"k": "v"}),
    ('{"invoice": {"number": "7",}, "pages": [1, 2,],}', {"invoice": {"number": "7"}, "pages": [1, 2]}),
]


@pytest.mark.parametrize(("answer", "value"), CORPUS)
def test_real_looking_answers(answer: str, value: Any) -> None:
    read = read_json(answer)
    assert read.value == value
    assert read.complete


CUT_OFF: list[tuple[str, Any]] = [
    ('```json\n[\n\t{"bbox_2d": [1, 2, 3, 4], "label": "cat"},\n\t{"bbox_2d": [5, 6', [
        {"bbox_2d": [1, 2, 3, 4], "label": "cat"}, {"bbox_2d": [5]}]),
    ('{"number": "INV-7", "total": "12', {"number": "INV-7"}),
    ('{"number": "INV-7", "total": 12', {"number": "INV-7"}),
    ('{"number": "INV-7", "total":', {"number": "INV-7"}),
    ('{"number": "INV-7", "tot', {"number": "INV-7"}),
    ('{"number": "INV-7", "paid": tru', {"number": "INV-7"}),
    ('{"items": [{"n": 1}, {"n": 2}', {"items": [{"n": 1}, {"n": 2}]}),
    ('{"text": "a \\', {}),
    ("[", []),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "value"), CUT_OFF)
def test_an_answer_that_was_cut_off_says_so(answer: str, value: Any) -> None:
    read = read_json(answer)
    assert read.value == value
    assert not read.complete


@pytest.mark.parametrize(
    "answer", ["", "no", "The total is 12.50.", "12", '"text"', "null", "{ not json }", "```\n```"]
)
def test_answers_without_json(answer: str) -> None:
    with pytest.raises(NoJsonError):
        read_json(answer)


def test_brackets_without_end_are_no_data_and_take_no_time() -> None:
    assert not read_json("[" * 100_000).complete
    with pytest.raises(NoJsonError):
        read_json("[{" * 50_000 + "!")


plain = st.text(st.characters(codec="utf-8", exclude_characters="`"), max_size=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False) | plain,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(plain, inner, max_size=4),
    max_leaves=12,
)
containers = st.lists(values, min_size=1, max_size=4) | st.dictionaries(plain, values, min_size=1, max_size=4)


@given(containers, st.sampled_from([None, 2]), st.booleans())
def test_json_is_read_as_it_is(value: Any, indent: int | None, ascii_only: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    assert read_json(text).value == value
    assert read_json(f"```json\n{text}\n```").value == value
    fenced = read_json(f"Here you are:\n```json\n{text}\n```\nAnything else?")
    assert (fenced.value, fenced.complete) == (value, True)


@given(containers, st.data())
def test_a_cut_never_raises_and_never_invents(value: Any, data: st.DataObject) -> None:
    """What is read of a beginning is a beginning of what would have come."""
    text = json.dumps(value)
    cut = data.draw(st.integers(1, len(text) - 1))
    read = read_json(text[:cut])
    assert not read.complete
    assert is_beginning(read.value, value)


def is_beginning(part: Any, whole: Any) -> bool:
    if isinstance(part, list) and isinstance(whole, list):
        return len(part) <= len(whole) and all(map(is_beginning, part, whole))
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(name in whole and is_beginning(inner, whole[name]) for name, inner in part.items())
    return bool(part == whole)


@given(st.text(alphabet="{}[]\",:'\\ \nab1.-`/*tn", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        read = read_json(text)
    except NoJsonError:
        return
    json.dumps(read.value)
