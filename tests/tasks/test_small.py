"""The small readers: amounts, counts, final answers, and prompts as data."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.tasks.numbers import WORDS, read_count
from vlfleet.tasks.prompt import LANGUAGES, filled, load, prompts_for
from vlfleet.tasks.schemas import Invoice, read_money
from vlfleet.tasks.text_tasks import final_answer

AMOUNTS: list[tuple[Any, Any]] = [
    ("$1,234.50", 1234.5), ("1.234,50 EUR", 1234.5), ("1 234,50", 1234.5), ("1'234.50", 1234.5), ("(12.00)", -12.0),
    ("-3.00", -3.0), ("$-3", -3.0), ("12", 12.0), ("12,5", 12.5), ("1,234", 1234.0), ("1.234.567", 1234567.0),
    ("USD 225.50", 225.5), ("0.07", 0.07), (3, 3), (3.25, 3.25), (None, None), ("n/a", "n/a"), ("", ""),
]  # fmt: skip


@pytest.mark.parametrize(("printed", "value"), AMOUNTS)
def test_amounts(printed: Any, value: Any) -> None:
    assert read_money(printed) == value


@given(st.integers(0, 10**9), st.sampled_from([("{:,.2f}", None), ("{:.2f}", None), ("{:,.2f}", "swap")]))
def test_every_amount_in_cents_is_read_back(cents: int, form: tuple[str, str | None]) -> None:
    text = form[0].format(cents / 100)
    if form[1]:
        text = text.translate(str.maketrans(",.", ".,"))
    assert read_money(f"€ {text}") == pytest.approx(cents / 100)


def test_an_invoice_takes_what_models_write() -> None:
    invoice = Invoice.model_validate({"invoice_number": 2041, "date": "1 May 2026", "total": "$1,225.50", "tax": None})
    assert (invoice.invoice_number, invoice.total, invoice.tax) == ("2041", 1225.5, None)


COUNTS = [
    ("7", 7), ("There are 7 stars.", 7), ("1, 2, 3. So there are 3.", 3), ("Seven", 7), ("There are no stars.", 0),
    ("None.", 0), ("There aren't any.", 0), ("1,200", 1200),
    ("图中有三个苹果", 3), ("两个", 2), ("没有", 0), ("十", 10),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "number"), COUNTS)
def test_counts(answer: str, number: int) -> None:
    assert read_count(answer) == number


@given(st.integers(0, len(WORDS) - 1))
def test_counts_in_words(number: int) -> None:
    assert read_count(f"I see {WORDS[number]} of them.") == number


@pytest.mark.parametrize("answer", ["", "I cannot tell.", "about 3.5"])
def test_no_count(answer: str) -> None:
    assert read_count(answer) is None


ENDS = [
    (r"So \(x = 2\), and \boxed{\frac{1}{2}}.", r"\frac{1}{2}"), (r"\boxed{1} no: \boxed{42}", "42"),
    ("2 + 2 = 4\n**Answer:** 4.", "4"), ("The final answer is: $12$.", "12"), ("所以答案是：7。", "7"),
    (r"cut \boxed{\frac{1}", ""), ("I do not know", ""), ("", ""),
]  # fmt: skip


@pytest.mark.parametrize(("steps", "answer"), ENDS)
def test_final_answers(steps: str, answer: str) -> None:
    assert final_answer(steps) == answer


def test_both_languages_know_the_same_tasks_and_placeholders() -> None:
    english, chinese = (load(language) for language in LANGUAGES)
    assert list(english.tasks) == list(chinese.tasks)
    for task, prompt in english.tasks.items():
        for name in ("{thing}", "{skeleton}", "{problem}", "{notes}", "{question}"):
            other = chinese.tasks[task]
            assert (name in prompt.user) == (name in other.user), task
            assert (name in prompt.repair) == (name in other.repair), task
        assert prompt.source


def test_the_demo_model_has_wordings_of_its_own() -> None:
    demo = prompts_for("vlfleet-demo")
    assert demo.name == "demo"
    assert demo.of("count").counts == "number"
    with pytest.raises(VlfleetError) as caught:
        demo.of("parse")
    assert caught.value.exit_code == ExitCode.USAGE
    assert "the demo model reads printed text" in caught.value.cause


def test_languages() -> None:
    assert prompts_for("Qwen2.5-VL-7B", "zh").of("ocr").user == "请识别出图中所有的文字。"
    for model, language in (("Qwen2.5-VL-7B", "de"), ("vlfleet-demo", "zh")):
        with pytest.raises(VlfleetError):
            prompts_for(model, language)


def test_braces_of_json_stay() -> None:
    assert filled('{"a": ""} {thing}', thing="cup") == '{"a": ""} cup'
