"""Cuts of the 7B as `vlfleet calibrate` started them on an H200: the uncalibrated planner against their logs."""

from __future__ import annotations

import pytest

from tests.plan.shapes import CONFIGS
from tests.plan.test_memory import H200, V26
from vlfleet.calibrate.asked import MAX_PIXELS
from vlfleet.calibrate.cuts import Depth, cut_shape
from vlfleet.plan.flags import Flags
from vlfleet.plan.memory import Request, memory
from vlfleet.plan.shape import read_shape
from vlfleet.plan.terms import GIB, MIB

FLAGS = Flags(
    max_model_len=32768,
    images_per_prompt=1,
    videos_per_prompt=0,
    max_pixels=MAX_PIXELS,
    gpu_memory_utilization=0.8,
)
TOKENS = {Depth(4, 8): 13_927_984, Depth(12, 16): 4_476_848}
"""Of the KV cache, by vLLM 0.26.0 with Qwen2.5-VL-7B cut to so many layers (2026-11-21): 106.26 and 102.47 GiB."""


@pytest.mark.parametrize("depth", TOKENS)
def test_available_kv_memory_of_cuts_which_nothing_was_fitted_to(depth: Depth) -> None:
    """Plans without a calibration are to be within 0.25 GiB; these were off by 1.1 MiB."""
    plan = memory(Request(cut_shape(read_shape(CONFIGS["Qwen2.5-VL-7B"]), depth), H200, V26, FLAGS))
    assert plan.ranks[0].kv_bytes_per_token == 2048 * depth.layers
    off = plan.available_kv_bytes - TOKENS[depth] * plan.ranks[0].kv_bytes_per_token
    assert abs(off) < 8 * MIB < 0.25 * GIB
    assert abs(plan.kv_tokens - TOKENS[depth]) <= 16 * 16
