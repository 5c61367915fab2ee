"""Boxes and points in answers of every form that these models use."""

from __future__ import annotations

from typing import Any

import pytest

from vlfleet.tasks.places import read_places

CAT = ("cat", (1.0, 2.0, 30.0, 40.0))
DOG = ("dog", (5.0, 6.0, 70.0, 80.0))
TWO_BOXES = [
    '[{"bbox_2d": [1, 2, 30, 40], "label": "cat"}, {"bbox_2d": [5, 6, 70, 80], "label": "dog"}]',
    '```json\n[\n\t{"bbox_2d": [1, 2, 30, 40], "label": "cat"},\n\t{"bbox_2d": [5, 6, 70, 80], "label": "dog"}\n]\n```',
    '{"bbox_2d": [1, 2, 30, 40], "label": "cat"}\n{"bbox_2d": [5, 6, 70, 80], "label": "dog"}',
    '{"objects": [{"bbox": [1, 2, 30, 40], "name": "cat"}, {"bbox": [5, 6, 70, 80], "name": "dog"}]}',
    '{"cat": [1, 2, 30, 40], "dog": [[5, 6, 70, 80]]}',
    '[{"bbox_2d": [[1, 2], [30, 40]], "text_content": "cat"}, {"bbox_2d": [5, 6, 70, 80], "text_content": "dog"}]',
    "<|object_ref_start|>cat<|object_ref_end|><|box_start|>(1,2),(30,40)<|box_end|>"
    "<|object_ref_start|>dog<|object_ref_end|><|box_start|>(5,6),(70,80)<|box_end|>",
    "cat(1,2),(30,40)\ndog(5,6),(70,80)",
    "- cat: (1, 2), (30, 40)\n- dog: (5, 6), (70, 80)",
]


@pytest.mark.parametrize("answer", TWO_BOXES)
def test_two_boxes(answer: str) -> None:
    found = read_places(answer)
    assert found.complete
    assert [(place.label, place.box) for place in found.places] == [CAT, DOG]


POINTS = [
    '[{"point_2d": [10, 20], "label": "cup"}, {"point_2d": [30, 40], "label": "cup"}]',
    '<points x1="10" y1="20" x2="30" y2="40" alt="cup">cup</points>',
    '<point x="10" y="20" alt="cup">cup</point><point x="30" y="40" alt="cup">cup</point>',
    '{"cup": [[10, 20], [30, 40]]}',
]


@pytest.mark.parametrize("answer", POINTS[:3])
def test_points(answer: str) -> None:
    assert [(place.label, place.point) for place in read_places(answer).places] == [
        ("cup", (10.0, 20.0)), ("cup", (30.0, 40.0)),
    ]  # fmt: skip


def test_two_pairs_of_numbers_without_a_word_are_a_box() -> None:
    (place,) = read_places(POINTS[3]).places
    assert place.box == (10.0, 20.0, 30.0, 40.0)


def test_what_stands_beside_a_box_is_kept() -> None:
    (place,) = read_places('{"bbox_2d": [1, 2, 3, 4], "label": "car", "type": "bus", "color": "red"}').places
    assert place.attributes == {"type": "bus", "color": "red"}


def test_a_list_that_was_cut_off_loses_its_last_place() -> None:
    found = read_places('[{"bbox_2d": [1, 2, 30, 40], "label": "cat"}, {"bbox_2d": [5, 6, 7')
    assert not found.complete
    assert [(place.label, place.box) for place in found.places] == [CAT]


NOTHING: list[Any] = [
    "", "There is no cat in the image.", "[]", "{}", "The cat is at (1, 2).", '[{"label": "cat"}]',
    '[{"bbox_2d": [1, 2, 3], "label": "cat"}]', '[{"bbox_2d": ["a", 2, 3, 4], "label": "cat"}]',
    '[{"bbox_2d": [true, 2, 3, 4]}]', '{"bbox_2d": [1e999, 2, 3, 4]}', '<points alt="x">x</points>',
]  # fmt: skip


@pytest.mark.parametrize("answer", NOTHING)
def test_answers_without_a_place(answer: str) -> None:
    assert read_places(answer).places == ()
