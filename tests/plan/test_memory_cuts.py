"""Starts on an H200 that nothing was fitted to: the cuts of `vlfleet calibrate`, and a 3B that `vlfleet up` planned."""

from __future__ import annotations

import pytest

from tests.plan.shapes import CONFIGS
from tests.plan.test_memory import H200, V26
from vlfleet.calibrate.asked import MAX_PIXELS
from vlfleet.calibrate.cuts import Depth, cut_shape
from vlfleet.plan.flags import Flags
from vlfleet.plan.memory import Device, Request, memory
from vlfleet.plan.memory_calibration import Calibration
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
BY_PLAN = Flags(
    max_model_len=32768,
    images_per_prompt=8,
    videos_per_prompt=0,
    max_pixels=3_147_760,
    max_num_batched_tokens=65536,
    max_num_seqs=128,
    gpu_memory_utilization=0.94,
)
"""What `vlfleet up` chose for Qwen2.5-VL-3B on one H200, with vLLM 0.26.0."""
BY_PLAN_TOKENS = 3_472_432
"""Of the KV cache, by the log of that start (2026-11-21): 119.22 GiB."""
CALIBRATED = Calibration(
    context_bytes=round(0.51 * GIB), non_torch_bytes=227 * MIB, graph_bytes=310_000, activation_scale=1.002
)
"""Of that machine, as docs/measurements.md prints it: rounded, so a plan with it is 1.8 MiB beside what was planned."""


@pytest.mark.parametrize("depth", TOKENS)
def test_available_kv_memory_of_cuts_which_nothing_was_fitted_to(depth: Depth) -> None:
    """Plans without a calibration are to be within 0.25 GiB; these were off by 1.1 MiB."""
    plan = memory(Request(cut_shape(read_shape(CONFIGS["Qwen2.5-VL-7B"]), depth), H200, V26, FLAGS))
    assert plan.ranks[0].kv_bytes_per_token == 2048 * depth.layers
    off = plan.available_kv_bytes - TOKENS[depth] * plan.ranks[0].kv_bytes_per_token
    assert abs(off) < 8 * MIB < 0.25 * GIB
    assert abs(plan.kv_tokens - TOKENS[depth]) <= 16 * 16


@pytest.mark.parametrize(
    ("calibration", "gib", "tokens", "most_off"),
    [(Calibration(), 119.213, 3_472_320, 4 * MIB), (CALIBRATED, 119.206, 3_472_128, 16 * MIB)],
    ids=["uncalibrated", "calibrated"],
)
def test_a_3b_by_plan(calibration: Calibration, gib: float, tokens: int, most_off: int) -> None:
    """`gib` and `tokens` as they were planned before that start; a calibrated plan is to be within 64 MiB of it."""
    catalogued = Device(round(139.8 * GIB), round(139.8 * GIB), "NVIDIA H200", (9, 0))
    plan = memory(Request(read_shape(CONFIGS["Qwen2.5-VL-3B"]), catalogued, V26, BY_PLAN), calibration)
    assert plan.available_kv_bytes / GIB == pytest.approx(gib, abs=0.002)
    assert abs(plan.kv_tokens - tokens) <= 3 * 16
    off = plan.available_kv_bytes - BY_PLAN_TOKENS * plan.ranks[0].kv_bytes_per_token
    assert abs(off) < most_off < 64 * MIB
