"""The chat's buttons say what the tasks themselves ask."""

from __future__ import annotations

import json

import pytest

from vlfleet.tasks.buttons import TASKS, buttons
from vlfleet.tasks.prompt import LANGUAGES, prompts_for


def test_a_large_model_has_every_task_in_both_languages() -> None:
    found = buttons("Qwen2.5-VL-7B-Instruct")
    assert [each["name"] for each in found] == list(TASKS)
    assert all(set(each["title"]) == set(each["prompt"]) == set(LANGUAGES) for each in found)
    by_name = {each["name"]: each for each in found}
    assert by_name["ocr"]["prompt"]["zh"] == prompts_for("q", "zh").of("ocr").user
    assert by_name["parse"]["system"] == prompts_for("q").of("parse").system
    assert by_name["solve"]["fields"] == {"temperature": 0.1, "max_tokens": 8192}
    assert by_name["solve"]["prompt"]["en"].startswith("Solve the problem in the image.\n")


def test_the_demo_model_has_what_it_was_taught_and_is_asked_in_english() -> None:
    found = {each["name"]: each for each in buttons("vlfleet-demo")}
    assert set(found) == set(prompts_for("vlfleet-demo").tasks)
    assert found["ocr"]["prompt"]["zh"] == found["ocr"]["prompt"]["en"]
    assert found["count"]["answer"] == "text"  # it was taught to say the number


@pytest.mark.parametrize("model", ["Qwen2-VL-2B", "vlfleet-demo"])
def test_only_what_the_person_says_is_left_to_fill_in(model: str) -> None:
    for button in buttons(model):
        for text in button["prompt"].values():
            rest = text.replace("{what}", "")
            assert ("{what}" in text) == bool(button["needs"])
            assert not any(mark in rest for mark in ("{thing}", "{question}", "{notes}", "{skeleton}"))


def test_the_list_is_json() -> None:
    found = buttons("Qwen2.5-VL-7B-Instruct")
    assert json.loads(json.dumps(found)) == found
