"""The KV cache against real logs: bytes a token, tokens, concurrency, and the errors word for word."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.checkpoints import DEMO_MODEL
from tests.plan.shapes import CONFIGS, config
from vlfleet.errors import VlfleetError
from vlfleet.plan import kv
from vlfleet.plan.shape import read_shape
from vlfleet.plan.terms import GIB

PER_RANK = {
    "Qwen2-VL-2B": (28_672, 14_336, 14_336, None),
    "Qwen2-VL-7B": (57_344, 28_672, 14_336, 14_336),
    "Qwen2-VL-72B": (327_680, 163_840, 81_920, 40_960),
    "Qwen2.5-VL-3B": (36_864, 18_432, 18_432, 18_432),
    "Qwen2.5-VL-7B": (57_344, 28_672, 14_336, 14_336),
    "Qwen2.5-VL-32B": (262_144, 131_072, 65_536, 32_768),
    "Qwen2.5-VL-72B": (327_680, 163_840, 81_920, 40_960),
    "Qwen3-VL-2B": (114_688, 57_344, 28_672, 14_336),
    "Qwen3-VL-4B": (147_456, 73_728, 36_864, 18_432),
    "Qwen3-VL-8B": (147_456, 73_728, 36_864, 18_432),
    "Qwen3-VL-32B": (262_144, 131_072, 65_536, 32_768),
    "Qwen3-VL-30B-A3B": (98_304, 49_152, 24_576, 24_576),
    "Qwen3-VL-235B-A22B": (192_512, 96_256, 48_128, 48_128),
}
"""Bytes of a token on each of 1, 2, 4 and 8 ranks: planner research 1.2."""


@pytest.mark.parametrize("model", CONFIGS)
def test_bytes_of_a_token(model: str) -> None:
    shape = read_shape(config(model))
    for tp, expected in zip((1, 2, 4, 8), PER_RANK[model], strict=True):
        if expected is not None:
            assert kv.token_bytes(shape, tp) == expected
            assert kv.token_bytes(shape, tp, dtype="fp8") * 2 == expected


def test_pipeline_stages_hold_their_own_layers() -> None:
    shape = read_shape(config("Qwen2.5-VL-7B"))
    assert kv.token_bytes(shape, layers=10) + kv.token_bytes(shape, layers=18) == kv.token_bytes(shape)


def test_heads_that_can_be_neither_cut_nor_copied_evenly() -> None:
    with pytest.raises(VlfleetError, match="cannot be cut into"):
        kv.token_bytes(read_shape(config("Qwen2.5-VL-7B")), 3)


@pytest.mark.parametrize(
    ("gib", "max_model_len", "tokens", "concurrency"),
    [
        (107.83, 8192, 2_019_056, "246.47"),  # H200, vllm-0.26-h200-tp1.log
        (111.65, 8192, 2_090_640, "255.21"),  # ...-serve.log
        (4.28, 32768, 80_144, None),
        (13.35, 32768, 249_936, None),
        (17.33, 32768, 324_496, None),
    ],
)
def test_tokens_that_a_log_printed_lie_within_its_rounding(
    gib: float, max_model_len: int, tokens: int, concurrency: str | None
) -> None:
    """Hundredths of a GiB are 93 tokens of a 7B either way; the block count of the log gives its tokens exactly."""
    each = kv.token_bytes(read_shape(config("Qwen2.5-VL-7B")))
    fewest, most = (
        kv.KvCache(kv.blocks(round((gib + edge) * GIB), each), max_model_len).tokens for edge in (-0.005, 0.005)
    )
    assert fewest <= tokens <= most
    exact = kv.KvCache(tokens // 16, max_model_len)
    assert exact.tokens == tokens
    if concurrency:
        assert f"{exact.max_concurrency:.2f}" == concurrency


@pytest.mark.parametrize(("tp", "tokens", "concurrency"), [(1, 8_192, "4.00"), (2, 16_384, "8.00")])
def test_the_demo_model_in_the_real_vllm_on_the_cpu(tp: int, tokens: int, concurrency: str) -> None:
    """float32, 64 MiB, blocks of 128: tests/doctor/healthy/vllm-0.32-cpu-api-key.log and -tp2.log."""
    demo = read_shape(json.loads((DEMO_MODEL / "config.json").read_text(encoding="utf-8")))
    each = kv.token_bytes(demo, tp, dtype="float32")
    found = kv.KvCache(kv.blocks(64 << 20, each, 128), 2048, 128)
    assert (found.tokens, f"{found.max_concurrency:.2f}") == (tokens, concurrency)


def test_the_length_that_an_error_of_qwen3_vl_estimated() -> None:
    """xinference #4926: 262144 tokens need 36.0 GiB, 6.94 GiB hold 50512."""
    each = kv.token_bytes(read_shape(config("Qwen3-VL-8B")))
    assert kv.needed_bytes(262144, each) == 36 * GIB
    bounds = [kv.longest(round(edge * GIB), each, 262144) for edge in (6.935, 6.945)]
    assert bounds[0] <= 50512 <= bounds[1]


def test_errors_word_for_word() -> None:
    each = kv.token_bytes(read_shape(config("Qwen3-VL-8B")))
    available = 50512 * each
    assert kv.error([available], [each], 262144, (0, 26, 0)) == (
        "To serve at least one request with the model's max seq len (262144), (36.0 GiB KV cache is needed, which is "
        "larger than the available KV cache memory (6.94 GiB). Based on the available memory, the estimated maximum "
        "model length is 50512. Try increasing `gpu_memory_utilization` (which also controls CPU memory on the CPU "
        "backend) or decreasing `max_model_len` when initializing the engine. "
        "See https://docs.vllm.ai/en/latest/configuration/conserving_memory/ for more details."
    )
    assert kv.error([available], [each], 262144, (0, 20, 2)) == (
        "To serve at least one request with the models's max seq len (262144), (36.0 GiB KV cache is needed, which is "
        "larger than the available KV cache memory (6.94 GiB). Based on the available memory, the estimated maximum "
        "model length is 50512. Try increasing `gpu_memory_utilization` or decreasing `max_model_len` when "
        "initializing the engine. "
        "See https://docs.vllm.ai/en/latest/configuration/conserving_memory/ for more details."
    )
    assert kv.error([GIB, -1], [each, each], 4096, (0, 26, 0)) == (
        "No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing the "
        "engine (this flag also controls CPU memory reservation on the CPU backend, despite its name). "
        "See https://docs.vllm.ai/en/latest/configuration/conserving_memory/ for more details."
    )
    assert "estimated" not in kv.error([each], [each], 4096, (0, 26, 0)), "not one block fits"
    assert kv.error([GIB], [each], 4096, (0, 26, 0)) == ""


def test_too_little_free_at_the_start() -> None:
    said = kv.startup_error(round(20.13 * GIB), round(23.56 * GIB), round(21.68 * GIB), 0.92, "cuda:0")
    assert said == (
        "Free memory on device cuda:0 (20.13/23.56 GiB) on startup is less than desired GPU memory utilization "
        "(0.92, 21.68 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes."
    )
    assert kv.startup_error(5, 9, 5, 0.5, "cuda:0") == ""


@given(st.integers(0, 200 * GIB), st.integers(1, 10**6), st.sampled_from(tuple(CONFIGS)))
def test_the_estimated_length_is_the_longest_that_fits(available: int, limit: int, model: str) -> None:
    each = kv.token_bytes(read_shape(config(model)))
    length = kv.longest(available, each, limit)
    assert 0 <= length <= limit
    assert length == 0 or kv.needed_bytes(length, each) <= available
    assert length == limit or kv.needed_bytes(length + 1, each) > available


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(1, 300_000))
def test_more_memory_never_holds_fewer_tokens(one: int, other: int, max_model_len: int) -> None:
    less, more = sorted((one, other))
    few, many = (kv.KvCache(kv.blocks(size, 57_344), max_model_len) for size in (less, more))
    assert few.tokens <= many.tokens
    assert many.tokens <= many.blocks * 16
