"""Cuts of a model: its config.json, and how deep they are."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.plan.shapes import CONFIGS
from vlfleet.calibrate.cuts import Depth, cut_config, cut_shape, depths
from vlfleet.plan.shape import read_shape
from vlfleet.plan.terms import GIB

MODELS = st.sampled_from(sorted(CONFIGS))


@given(MODELS, st.integers(2, 24), st.integers(3, 24))
def test_the_config_of_a_cut_has_the_shape_of_the_cut(model: str, layers: int, vision: int) -> None:
    config, depth = CONFIGS[model], Depth(layers, vision)
    cut = cut_config(config, depth)
    assert read_shape(cut) == cut_shape(read_shape(config), depth)
    assert max(cut["vision_config"].get("fullatt_block_indexes") or [0]) < vision
    taken = cut["vision_config"].get("deepstack_visual_indexes") or []
    assert len(set(taken)) == len(taken)
    assert all(index < vision for index in taken)
    assert read_shape(CONFIGS[model]) == read_shape(config), "the original is as it was"


@given(MODELS, st.integers(16, 288))
def test_cuts_differ_and_leave_half_of_the_memory(model: str, gib: int) -> None:
    shape = read_shape(CONFIGS[model])
    shallow, deep = depths(shape, gib * GIB)
    assert 2 <= shallow.layers <= deep.layers <= 28
    assert 1 <= shallow.vision < deep.vision <= 32
    assert deep.layers == 2 or 2 * cut_shape(shape, deep).parameters <= gib * GIB / 2


@pytest.mark.parametrize(
    ("model", "gib", "expected"),
    [
        ("Qwen2.5-VL-7B", 140, (Depth(9, 16), Depth(28, 32))),
        ("Qwen2.5-VL-7B", 24, (Depth(6, 16), Depth(20, 32))),
        ("Qwen2.5-VL-72B", 140, (Depth(9, 16), Depth(28, 32))),
        ("Qwen2.5-VL-72B", 24, (Depth(2, 16), Depth(3, 32))),
    ],
)
def test_depths(model: str, gib: int, expected: tuple[Depth, Depth]) -> None:
    assert depths(read_shape(CONFIGS[model]), gib * GIB) == expected


def test_what_speaks_of_each_layer_is_cut_too() -> None:
    text: dict[str, Any] = {"num_hidden_layers": 4, "layer_types": ["full_attention"] * 4, "max_window_layers": 4}
    cut = cut_config({"text_config": text, "vision_config": {"depth": 8}}, Depth(2, 4))
    assert cut["text_config"] == {"num_hidden_layers": 2, "layer_types": ["full_attention"] * 2, "max_window_layers": 2}
    assert cut_config({**text, "vision_config": {"depth": 8}}, Depth(2, 4))["max_window_layers"] == 2
