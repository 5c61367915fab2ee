"""Defaults that vLLM fills in, by GPU memory and release, and the sizes that it captures CUDA graphs for."""

from __future__ import annotations

import pytest

from tests.plan.shapes import config
from vlfleet.engine.launch import EngineOptions
from vlfleet.plan.flags import Flags, Sizes, capture_sizes, graph_count, read_flags, sizes
from vlfleet.plan.releases import accounting
from vlfleet.plan.shape import read_shape
from vlfleet.plan.terms import GIB

SHAPE = read_shape(config("Qwen2.5-VL-7B"))


@pytest.mark.parametrize(
    ("gib", "name", "llm_class", "release", "tokens", "sequences"),
    [
        (23.56, "NVIDIA GeForce RTX 4090", False, (0, 26, 0), 2048, 256),
        (23.56, "NVIDIA GeForce RTX 4090", True, (0, 26, 0), 8192, 256),
        (79.25, "NVIDIA A100-SXM4-80GB", False, (0, 26, 0), 2048, 256),
        (79.2, "NVIDIA H100 80GB HBM3", False, (0, 26, 0), 8192, 1024),
        (139.8, "NVIDIA H200", True, (0, 26, 0), 16384, 1024),
        (178, "NVIDIA B200", False, (0, 26, 0), 8192, 1024),
        (178, "NVIDIA B200", False, (0, 32, 0), 16384, 1024),
    ],
)
def test_defaults_move_with_the_gpu(
    gib: float, name: str, llm_class: bool, release: tuple[int, int, int], tokens: int, sequences: int
) -> None:
    found = sizes(Flags(llm_class=llm_class), SHAPE, round(gib * GIB), name, release)
    assert found == Sizes(128_000, sequences, tokens)


def test_what_is_given_stays_and_what_is_not_follows() -> None:
    def settle(**given: int) -> Sizes:
        return sizes(Flags(**given), SHAPE, 24 * GIB, "", (0, 26, 0))  # type: ignore[arg-type]

    assert settle(max_num_batched_tokens=64).max_num_seqs == 64
    assert settle(max_model_len=16, max_num_seqs=4).max_num_batched_tokens == 64
    assert settle(max_num_batched_tokens=64, max_num_seqs=128) == Sizes(128_000, 128, 64), "vLLM refuses that itself"
    given = settle()
    assert sizes(Flags(**vars(given)), SHAPE, 200 * GIB, "", (0, 32, 0)) == given


def test_flags_from_the_options_of_an_engine() -> None:
    options = EngineOptions(max_num_seqs=16, max_pixels=1_003_520, limit_mm_per_prompt={"image": 8, "video": 0})
    assert read_flags(vars(options)) == Flags(
        max_num_seqs=16, max_pixels=1_003_520, images_per_prompt=8, videos_per_prompt=0
    )
    other = {"mm_processor_kwargs": {"max_pixels": 7}, "limit_mm_per_prompt": {"video": {"count": 2}}, "seed": 1}
    assert read_flags(other) == Flags(max_pixels=7, videos_per_prompt=2)
    assert read_flags({}) == Flags()


@pytest.mark.parametrize(
    ("sequences", "tokens", "piecewise", "graphs"),
    [
        (256, 2048, 51, 86),  # "PIECEWISE=51 (largest=512), FULL=35 (largest=256)"
        (128, 2048, 35, 54),  # 35 + 19
        (1024, 8192, 51, 102),
        (16, 2048, 7, 12),
        (1, 2048, 2, 3),
        (256, 100, 16, 32),
    ],
)
def test_sizes_and_graphs(sequences: int, tokens: int, piecewise: int, graphs: int) -> None:
    settled = Sizes(8192, sequences, tokens)
    assert len(capture_sizes(Flags(), settled)) == piecewise
    assert graph_count(Flags(), settled) == graphs


def test_graphs_can_be_named_or_left_out() -> None:
    settled = Sizes(8192, 64, 2048)
    assert graph_count(Flags(enforce_eager=True), settled) == 0
    assert capture_sizes(Flags(cudagraph_capture_sizes=(8, 1, 4096, 8)), settled) == (1, 8)


@pytest.mark.parametrize(
    ("release", "moe", "runner", "encoder", "graphs", "by_free"),
    [
        ((0, 20, 2), False, 1, True, True, False),
        ((0, 24, 0), False, 1, True, True, False),
        ((0, 25, 1), False, 2, False, False, False),
        ((0, 26, 0), False, 2, False, False, False),
        ((0, 26, 0), True, 1, True, True, False),
        ((0, 27, 0), False, 2, True, False, True),
        ((0, 28, 0), True, 1, True, True, True),
        ((0, 29, 0), True, 2, True, True, True),
        ((0, 33, 0), False, 2, True, True, True),
    ],
)
def test_what_each_release_measures(
    release: tuple[int, int, int], moe: bool, runner: int, encoder: bool, graphs: bool, by_free: bool
) -> None:
    found = accounting(release, moe=moe)
    assert (found.runner, found.profiles_encoder, found.estimates_graphs, found.by_free_memory) == (
        runner,
        encoder,
        graphs,
        by_free,
    )
    assert accounting(release, runner=1).profiles_encoder, "VLLM_USE_V2_MODEL_RUNNER=0 brings it back"
