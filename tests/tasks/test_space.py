"""Coordinates of every family, to original pixels and back."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from vlfleet.families import KNOWN_FAMILIES, Family, PixelLimits, smart_resize
from vlfleet.families.resize import MAX_ASPECT_RATIO
from vlfleet.tasks.space import Space

families = st.sampled_from(list(KNOWN_FAMILIES.values()))
sides = st.integers(1, 9000)


def space(family: Family, width: int, height: int) -> Space:
    return Space.of(family, PixelLimits.of(family), width, height)


@given(families, sides, sides, st.data())
def test_round_trip(family: Family, width: int, height: int, data: st.DataObject) -> None:
    """Out to the model's whole numbers and back moves a place by at most half of one of its units."""
    assume(max(width, height) <= MAX_ASPECT_RATIO * min(width, height))
    there = space(family, width, height)
    x, y = data.draw(st.floats(0, width)), data.draw(st.floats(0, height))
    back_x, back_y = there.point(*there.to_model(x, y))
    assert abs(back_x - x) <= 0.5 * width / there.units_x + 1e-6
    assert abs(back_y - y) <= 0.5 * height / there.units_y + 1e-6


@given(families, sides, sides, st.tuples(*[st.floats(-3000, 20000)] * 4))
def test_boxes_are_ordered_and_inside(
    family: Family, width: int, height: int, corners: tuple[float, float, float, float]
) -> None:
    assume(max(width, height) <= MAX_ASPECT_RATIO * min(width, height))
    there = space(family, width, height)
    box = there.box(corners)
    if box is None:
        left, right = sorted((corners[0], corners[2]))
        top, bottom = sorted((corners[1], corners[3]))
        assert left >= there.units_x or right <= 0 or top >= there.units_y or bottom <= 0
        return
    x1, y1, x2, y2 = box
    assert 0 <= x1 <= x2 <= width
    assert 0 <= y1 <= y2 <= height


def test_qwen2_5_vl_speaks_in_pixels_of_the_resized_picture() -> None:
    """1260 x 2240 fits max_pixels as it is: 45 x 80 tokens; 1000 x 2240 becomes 1008 x 2240."""
    family = KNOWN_FAMILIES["qwen2_5_vl"]
    assert smart_resize(2240, 1000) == (2240, 1008)
    assert space(family, 1000, 2240).box((0, 0, 504, 1120)) == (0, 0, 500, 1120)


def test_the_limits_that_the_server_runs_with_count() -> None:
    """At most 1,003,520 pixels a 4000 x 3000 picture is seen as 1148 x 868 (41 x 31 tokens)."""
    family = KNOWN_FAMILIES["qwen2_5_vl"]
    there = Space.of(family, PixelLimits(3136, 1_003_520), 4000, 3000)
    assert (there.units_x, there.units_y) == (1148, 840) or (there.units_x, there.units_y) == (1148, 868)
    assert there.point(there.units_x, there.units_y) == (4000, 3000)


@pytest.mark.parametrize("model_type", ["qwen2_vl", "qwen3_vl", "qwen3_vl_moe"])
def test_the_others_speak_in_thousandths(model_type: str) -> None:
    assert space(KNOWN_FAMILIES[model_type], 640, 480).box((500, 250, 1000, 1000)) == (320, 120, 640, 480)
