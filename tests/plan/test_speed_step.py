"""What one rank computes, against the models' own sizes, and what a step of it takes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.plan.measured_h200 import SERVED
from tests.plan.shapes import CONFIGS
from vlfleet.hardware.catalogue import find_model
from vlfleet.hardware.machine import Link
from vlfleet.plan.legality import Mode
from vlfleet.plan.operators import Gemm, total
from vlfleet.plan.shape import ModelShape, read_shape
from vlfleet.plan.speed_step import Batch, StepClock
from vlfleet.plan.speed_work import WINDOW_PATCHES, Cut, Work

SHAPES = {name: read_shape(config) for name, config in CONFIGS.items()}


def numbers(gemms: tuple[Gemm, ...]) -> int:
    return sum(gemm.n * gemm.k * gemm.count for gemm in gemms)


@pytest.mark.parametrize("name", SHAPES)
def test_products_hold_all_weights_of_the_language_model(name: str) -> None:
    shape = SHAPES[name]
    work = Work(shape, Cut())
    found = (numbers(work.language) + numbers(work.experts)) / shape.num_hidden_layers
    assert found == pytest.approx(shape.layer_parameters, rel=0.002)  # without norms, biases and the router
    assert numbers((work.head,)) == shape.vocab_size * shape.hidden_size


@pytest.mark.parametrize("name", SHAPES)
def test_products_hold_all_weights_of_the_vision_tower(name: str) -> None:
    shape = SHAPES[name]
    work = Work(shape, Cut())
    table = shape.vision.num_position_embeddings * shape.vision.hidden_size
    assert numbers(work.vision) + numbers(work.merger) == pytest.approx(shape.vision_parameters - table, rel=0.005)


@pytest.mark.parametrize(
    ("name", "tokens", "vision_gemm", "vision_attention", "language"),
    [  # TFLOP, counted by another script from the same papers
        ("Qwen2-VL-7B", 1280, 6.57, 4.29, 16.71),
        ("Qwen2-VL-2B", 16384, 83.78, 703.69, 42.93),
        ("Qwen2.5-VL-3B", 256, 1.31, 0.03, 1.42),
        ("Qwen2.5-VL-7B", 1280, 6.58, 0.58, 16.71),
        ("Qwen2.5-VL-72B", 4096, 21.40, 5.65, 575.19),
        ("Qwen3-VL-8B", 1280, 4.64, 3.26, 17.78),
        ("Qwen3-VL-30B-A3B", 1280, 4.54, 3.26, 6.99),
    ],
)
def test_work_of_one_picture(
    name: str, tokens: int, vision_gemm: float, vision_attention: float, language: float
) -> None:
    shape = SHAPES[name]
    work = Work(shape, Cut())
    patches, v = 4 * tokens, shape.vision
    gemm = 2 * patches * numbers(work.vision) + 2 * tokens * numbers(work.merger)
    windowed = (v.depth - work.full_layers) * patches * WINDOW_PATCHES
    attention = 4 * (work.full_layers * patches**2 + windowed) * v.hidden_size
    active = numbers(work.language) + numbers(work.experts) * shape.num_experts_per_tok / max(1, shape.num_experts)
    assert gemm / 1e12 == pytest.approx(vision_gemm, rel=0.02)
    assert attention / 1e12 == pytest.approx(vision_attention, rel=0.02, abs=0.01)
    assert 2 * tokens * active / 1e12 == pytest.approx(language, rel=0.02)


@pytest.mark.parametrize(
    ("name", "tp", "kv_bytes"),
    [("Qwen2.5-VL-7B", 1, 57344), ("Qwen2.5-VL-7B", 8, 14336), ("Qwen2.5-VL-3B", 4, 18432), ("Qwen3-VL-8B", 2, 73728)],
)
def test_a_token_in_the_kv_cache(name: str, tp: int, kv_bytes: int) -> None:
    assert Work(SHAPES[name], Cut(tp)).kv_bytes_per_token == kv_bytes
    assert Work(SHAPES[name], Cut(tp, kv_cache_dtype="fp8")).kv_bytes_per_token == kv_bytes / 2


@pytest.mark.parametrize("mode", ["weights", "data"])
def test_a_cut_divides_the_work(mode: Mode) -> None:
    whole, half = Work(SHAPES["Qwen2.5-VL-72B"], Cut()), Work(SHAPES["Qwen2.5-VL-72B"], Cut(2, mm_encoder_tp_mode=mode))
    assert numbers(half.language) == numbers(whole.language) / 2
    divided = numbers(half.vision[1:]) / numbers(whole.vision[1:])
    assert divided == (0.5 if mode == "weights" else 1.0)


def test_experts_are_read_as_tokens_need_them() -> None:
    work = Work(SHAPES["Qwen3-VL-30B-A3B"], Cut())
    assert work.read_share(1) == pytest.approx(8 / 128)
    assert work.read_share(64) == pytest.approx(1 - (120 / 128) ** 64)
    assert Work(SHAPES["Qwen3-VL-8B"], Cut()).read_share(1) == 1


@pytest.mark.parametrize(
    ("method", "language_bytes", "arithmetic"),
    [(None, 2.0, "fp16"), ("fp8", 1.0, "fp8"), ("bitsandbytes", 0.5 + 4 / 64, "fp16")],
)
def test_quantised_weights(method: str | None, language_bytes: float, arithmetic: str) -> None:
    work = Work(read_shape(CONFIGS["Qwen2.5-VL-7B"], method), Cut())
    assert {gemm.arithmetic for gemm in work.language} == {arithmetic}
    assert work.language[0].weight_bytes == pytest.approx(language_bytes, rel=0.01)
    assert work.head.weight_bytes == 2


def test_a_vision_tower_that_the_checkpoint_left_alone() -> None:
    scheme = {"quant_method": "awq", "bits": 4, "group_size": 128, "modules_to_not_convert": ["visual"]}
    work = Work(read_shape(CONFIGS["Qwen2.5-VL-7B"] | {"quantization_config": scheme}), Cut())
    assert work.language[0].weight_bytes == pytest.approx(0.5 + 2.5 / 128)
    assert {gemm.weight_bytes for gemm in work.vision} == {2.0}


# Steps


def clock(shape: ModelShape | None = None, gpu: str = "H200", link: Link = Link.NVLINK, **cut: Any) -> StepClock:
    setup = replace(SERVED, gpu=find_model(gpu), link=link, cut=replace(Cut(), **cut))
    return (replace(setup, shape=shape) if shape else setup).step_clock()


BATCHES = st.builds(
    Batch,
    prompt_tokens=st.integers(0, 8192),
    prompt_pairs=st.floats(0, 1e8),
    decodes=st.integers(0, 512),
    decode_context=st.floats(0, 1e6),
    finished_prompts=st.integers(0, 8),
    images=st.lists(st.sampled_from([16, 1024, 4900, 65536]), max_size=4).map(tuple),
)


@given(BATCHES, st.sampled_from([1, 2, 4]), st.sampled_from([1, 2]), st.sampled_from(["weights", "data"]))
def test_a_step_is_the_sum_of_its_operators(batch: Batch, tp: int, pp: int, mode: str) -> None:
    step = clock(tensor_parallel_size=tp, pipeline_parallel_size=pp, mm_encoder_tp_mode=mode)
    parts = step.operators(batch)
    assert total(parts) == pytest.approx(step.seconds(batch))
    assert all(seconds > 0 for _, seconds in parts)
    assert [seconds for _, seconds in parts] == sorted((seconds for _, seconds in parts), reverse=True)


@given(BATCHES, st.sampled_from(["prompt_tokens", "prompt_pairs", "decodes", "decode_context", "finished_prompts"]))
def test_more_in_a_step_never_makes_it_shorter(batch: Batch, field: str) -> None:
    step = clock()
    more = replace(batch, **{field: getattr(batch, field) * 2 + 1})
    least = (1 - 1e-12) * step.seconds(batch)  # sums of other parts are rounded in another place
    assert step.seconds(more) >= least
    assert step.seconds(replace(batch, images=(*batch.images, 1024))) >= least


@pytest.mark.parametrize("name", SHAPES)
def test_a_bigger_picture_is_never_quicker(name: str) -> None:
    step = clock(SHAPES[name])
    times = [round(total(step.vision((patches,))), 9) for patches in range(4, 70_000, 1111)]
    assert times == sorted(times)


def test_windows_make_large_pictures_cheap() -> None:
    """Qwen2.5-VL looks through windows in 28 of 32 layers; for a picture of 16,384 tokens attention is an eighth."""
    windowed, full = (
        dict(clock(SHAPES[name]).vision((65536,)))["vision attention"] for name in ("Qwen2.5-VL-7B", "Qwen2-VL-7B")
    )
    assert full / windowed == pytest.approx(703.69 / 88.56, rel=0.01)


def test_a_small_picture_waits_for_its_kernels_to_be_launched() -> None:
    eager, compiled = clock(), clock(compile_mm_encoder=True)
    assert eager.operators(Batch(images=(16,)))[0].name == "vision tower waiting for the CPU"
    assert total(compiled.vision((16,))) < 0.6 * total(eager.vision((16,)))


def test_tensor_parallelism_over_pcie_is_a_trap() -> None:
    """A picture of 16,384 tokens in weights mode on four L40S: about 4 s of all-reduce."""
    trapped = dict(clock(gpu="L40S", link=Link.BRIDGE, tensor_parallel_size=4).vision((65536,)))
    free = dict(clock(gpu="L40S", link=Link.BRIDGE, tensor_parallel_size=4, mm_encoder_tp_mode="data").vision((65536,)))
    assert 3 < trapped["vision all-reduce"] < 4.5
    assert free["vision all-reduce"] < 0.03


def test_a_picture_stays_on_one_rank_in_data_mode() -> None:
    one, two = (dict(clock(tensor_parallel_size=2, mm_encoder_tp_mode="data").vision((4900,) * n)) for n in (1, 2))
    assert two["vision GEMM"] == pytest.approx(one["vision GEMM"], rel=1e-6)


def test_pixels_of_new_requests_are_sent_to_ranks_that_are_processes() -> None:
    one, two = clock(), clock(tensor_parallel_size=2)
    assert one.feed_seconds([4900]) == two.feed_seconds([4900]) > 0
    assert one.broadcast_seconds(4900) == 0
    assert two.broadcast_seconds(4900) > two.feed_seconds([4900])


def test_a_rank_of_its_own_launches_faster() -> None:
    """64 patches: the tower's arithmetic takes no time."""
    one, two = (dict(clock(tensor_parallel_size=ranks).vision((64,))) for ranks in (1, 2))
    assert two["vision tower waiting for the CPU"] < 0.8 * one["vision tower waiting for the CPU"]
