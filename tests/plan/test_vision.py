"""The encoder's budget as vLLM's own `MultiModalBudget` printed it, and what the vision tower needs."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.checkpoints import DEMO_MODEL
from tests.plan.shapes import CONFIGS, config
from vlfleet.families import KNOWN_FAMILIES
from vlfleet.families.resize import smart_resize
from vlfleet.plan import vision
from vlfleet.plan.flags import Flags, Sizes, sizes
from vlfleet.plan.shape import read_shape
from vlfleet.plan.terms import GIB

SMALL_GPU = round(23.56 * GIB)
PIXELS = 1_003_520


def budget(model: str, **flags: object) -> vision.Budget:
    shape, settled = read_shape(config(model)), Flags(**flags)  # type: ignore[arg-type]
    most = KNOWN_FAMILIES[shape.model_type].max_pixels
    return vision.budget(shape, settled, sizes(settled, shape, SMALL_GPU, "RTX 4090", (0, 32, 0)), most)


@pytest.mark.parametrize(
    ("model", "flags", "tokens", "items", "modality"),
    [
        ("Qwen2.5-VL-7B", {}, 114_688, 1, "video"),
        ("Qwen2.5-VL-7B", {"max_model_len": 32768}, 32_768, 1, "video"),
        ("Qwen2.5-VL-7B", {"videos_per_prompt": 0}, 16_384, 1, "image"),
        (
            "Qwen2.5-VL-7B",
            {"max_pixels": PIXELS, "max_num_batched_tokens": 8192, "max_model_len": 8192, "videos_per_prompt": 0},
            8_192,
            6,
            "image",
        ),
        (
            "Qwen2.5-VL-7B",
            {"max_pixels": PIXELS, "max_num_batched_tokens": 2048, "max_model_len": 8192, "videos_per_prompt": 0},
            2_048,
            1,
            "image",
        ),
        ("Qwen2-VL-7B", {}, 32_768, 1, "video"),
        ("Qwen2-VL-7B", {"max_model_len": 4096}, 16_384, 1, "video"),
        ("Qwen3-VL-8B", {}, 16_384, 1, "image"),
    ],
)
def test_budgets_that_vllm_itself_computed(
    model: str, flags: dict[str, object], tokens: int, items: int, modality: str
) -> None:
    """Planner research 1.4: `MultiModalBudget` of 0.32.0, executed."""
    found = budget(model, **flags)
    assert (found.tokens, found.items, found.modality) == (tokens, items, modality)
    assert found.cache_tokens == tokens


def test_the_budget_in_a_log_of_the_real_vllm_on_the_cpu() -> None:
    """tests/doctor/healthy/vllm-0.32-cpu-compiled.log: 2048 tokens, 8 image items."""
    shape = read_shape(json.loads((DEMO_MODEL / "config.json").read_text(encoding="utf-8")))
    processor = json.loads((DEMO_MODEL / "preprocessor_config.json").read_text(encoding="utf-8"))
    flags = Flags(images_per_prompt=4, videos_per_prompt=0)
    found = vision.budget(shape, flags, Sizes(2048, 128, 2048), processor["max_pixels"])
    assert (found.tokens, found.items, found.modality) == (2048, 8, "image")


def test_without_media_there_is_no_encoder() -> None:
    assert budget("Qwen2.5-VL-7B", images_per_prompt=0, videos_per_prompt=0) == vision.Budget(0, 0, "", 0, 0)


def test_a_video_of_qwen3_vl_is_two_frames_of_12288_tokens() -> None:
    found = budget("Qwen3-VL-8B", images_per_prompt=0)
    assert (found.modality, found.tokens_per_item) == ("video", 12_288)
    assert budget("Qwen3-VL-8B", images_per_prompt=0, max_pixels=1 << 20).tokens_per_item == 512


@pytest.mark.parametrize("model", ["Qwen2-VL-7B", "Qwen2.5-VL-7B", "Qwen3-VL-8B"])
@given(pixels=st.integers(784 * 4, 2_000_000))
def test_the_largest_picture_is_one_that_the_processor_would_make(model: str, pixels: int) -> None:
    shape = read_shape(config(model))
    side = shape.vision.token_side_pixels
    tokens = vision.image_tokens(shape, pixels)
    assert tokens * side**2 <= pixels
    rows = next(rows for rows in range(int(tokens**0.5), 0, -1) if tokens % rows == 0)
    high, wide = smart_resize(rows * side, tokens // rows * side, side, 4 * side**2, max(pixels, 4 * side**2))
    assert (high // side) * (wide // side) == max(tokens, 4) or tokens < 4


def test_bytes_of_a_patch() -> None:
    """Numbers: 1280 wide towers with 16 heads of 80, MLPs of 5120, 3420 gated, 4304 over 1152; pixels 1176 or 1536."""
    of = {model: read_shape(config(model)) for model in ("Qwen2-VL-7B", "Qwen2.5-VL-7B", "Qwen3-VL-8B")}
    assert vision.patch_bytes(of["Qwen2-VL-7B"]) == (15 * 1280 + 80 + 1176) * 2
    assert vision.patch_bytes(of["Qwen2-VL-7B"], compiled=False) == (11 * 1280 + 80 + 1176) * 2
    assert vision.patch_bytes(of["Qwen2.5-VL-7B"]) == (5 * 1280 + 3 * 3420 + 80 + 1176) * 2
    assert vision.patch_bytes(of["Qwen2.5-VL-7B"], compiled=False) == (3 * 1280 + 3 * 3420 + 80 + 1176) * 2
    assert vision.patch_bytes(of["Qwen3-VL-8B"]) == (12 * 1152 + 3 * 1024 + 72 + 1536) * 2


@pytest.mark.parametrize("model", CONFIGS)
def test_a_tower_that_is_cut_needs_less_on_each_rank(model: str) -> None:
    shape, flags = read_shape(config(model)), Flags()
    peaks = [vision.peak_bytes(shape, 16_384, 1, flags, tp) for tp in (1, 2, 4, 8)]
    assert peaks == sorted(peaks, reverse=True)


def test_in_data_mode_a_rank_has_whole_pictures_to_itself() -> None:
    shape, flags = read_shape(config("Qwen2.5-VL-7B")), Flags(mm_encoder_tp_mode="data")
    one = vision.peak_bytes(shape, 16_384, 1, flags, 1)
    assert vision.peak_bytes(shape, 16_384, 1, flags, 4) == one, "one picture cannot be shared"
    assert vision.peak_bytes(shape, 16_384, 8, flags, 4) == one // 4


def test_the_encoder_cache_of_qwen3_vl_is_four_times_as_wide() -> None:
    assert vision.cache_bytes(read_shape(config("Qwen3-VL-8B")), 16_384) == 16_384 * 4096 * 4 * 2
    assert vision.cache_bytes(read_shape(config("Qwen2.5-VL-7B")), 114_688) == 114_688 * 3584 * 2
