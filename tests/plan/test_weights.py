"""Weights of each rank against what vLLM's logs said, what its own classes have, and the planner's table."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.plan.shapes import AWQ, CONFIGS, FP8_BLOCK, FP8_CHANNEL, config
from vlfleet.errors import VlfleetError
from vlfleet.plan.quantized import Quantized
from vlfleet.plan.shape import read_shape
from vlfleet.plan.split import padded_vocabulary, pipeline_layers
from vlfleet.plan.terms import GIB, gib, total
from vlfleet.plan.weights import Weights, ranks, weight_terms, weights

V26 = (0, 26, 0)
GPTQ_4 = {"quant_method": "gptq", "bits": 4, "group_size": 128}
ASYMMETRIC_8 = {
    "quant_method": "compressed-tensors",
    "ignore": ["re:.*visual.*"],
    "config_groups": {
        "group_0": {
            "weights": {"num_bits": 8, "type": "int", "strategy": "group", "group_size": 128, "symmetric": False}
        }
    },
}
"""The table's column GPTQ8, which counts zero points."""
QUANTISED = ("bf16", "int4", "int8", "fp8")
COLUMNS = (*(("bf16", tp) for tp in (1, 2, 4, 8)), *(("int4", tp) for tp in (1, 2, 4, 8)), ("int8", 1),
           *(("fp8", tp) for tp in (1, 2, 4)))  # fmt: skip
X = None
"""vLLM refuses to cut so."""
TABLE: dict[str, tuple[float | None, ...]] = {
    "Qwen2-VL-2B": (4.15, 2.09, 1.07, X, 2.34, 1.19, X, X, 2.95, 2.93, 1.48, 0.76),
    "Qwen2-VL-7B": (15.48, 7.76, 3.89, X, 6.48, 3.26, 1.65, X, 9.54, 9.40, 4.72, 2.38),
    "Qwen2-VL-72B": (136.76, 68.40, 34.22, 17.13, 40.07, 20.05, 10.05, 5.04, 73.14, 71.39, 35.72, 17.88),
    "Qwen2.5-VL-3B": (7.12, 3.62, 1.89, X, 3.29, 1.71, X, X, 4.59, 4.54, 2.33, 1.24),
    "Qwen2.5-VL-7B": (15.57, 7.85, 3.99, X, 6.57, 3.35, 1.74, X, 9.63, 9.50, 4.81, 2.47),
    "Qwen2.5-VL-32B": (62.43, 31.28, 15.70, 7.91, 19.41, 9.77, 4.95, 2.54, 34.05, 33.39, 16.76, 8.44),
    "Qwen2.5-VL-72B": (136.86, 68.49, 34.31, 17.22, 40.17, 20.15, 10.14, 5.13, 73.24, 71.50, 35.81, 17.97),
    "Qwen3-VL-2B": (4.21, 2.24, 1.25, 0.75, 2.27, 1.26, 0.76, 0.51, 2.93, 2.90, 1.58, 0.92),
    "Qwen3-VL-4B": (8.52, 4.39, 2.32, 1.29, 3.51, 1.88, 1.07, X, 5.21, 5.14, 2.70, 1.48),
    "Qwen3-VL-8B": (16.58, 8.42, 4.34, 2.30, 7.00, 3.63, 1.95, 1.10, 10.26, 10.12, 5.19, 2.72),
    "Qwen3-VL-32B": (62.38, 31.32, 15.79, 8.03, 19.36, 9.81, 5.03, 2.65, 34.00, 33.34, 16.80, 8.53),
    "Qwen3-VL-30B-A3B": (58.12, 29.20, 14.74, 7.54, 16.90, 8.59, 4.57, 2.56, 30.93, 30.36, 15.35, 7.84),
    "Qwen3-VL-235B-A22B": (439.22, 219.79, 110.07, 55.30, 116.86, 58.61, 29.48, 15.46, 226.58, 221.80, 111.17, 55.85),
}
"""GiB of tensors, planner research 1.7, without the vision tower's own table of 0.0006 GiB. Where vLLM refuses there is
an X, also in place of a number there (3420 over 8 ranks; AWQ groups of 128 that straddle two). Three numbers are
others: vLLM halves the groups of experts until they divide, the research did not (4.42, 2.34 and 14.88 there)."""


def held(model: str, quantization: dict[str, Any] | None = None, tp: int = 1, **options: Any) -> Weights:
    release = options.pop("release", V26)
    data_mode = options.pop("data_mode", False)
    shape = read_shape(config(model, quantization, **options))
    return weights(shape, ranks(shape, tp, data_mode=data_mode)[0], release)


@pytest.mark.parametrize("model", CONFIGS)
def test_the_table_of_all_models_to_hundredths_of_a_gib(model: str) -> None:
    schemes = dict(zip(QUANTISED, (None, AWQ, ASYMMETRIC_8, FP8_CHANNEL), strict=True))
    tower = read_shape(config(model)).vision
    own_table = 8192 * (tower.head_dim // 2) * 2
    for (kind, tp), expected in zip(COLUMNS, TABLE[model], strict=True):
        padded = {"intermediate_size": 29696} if model.endswith("72B") and kind in ("int4", "int8") else {}
        if expected is None:
            with pytest.raises(VlfleetError):
                held(model, schemes[kind], tp, **padded)
        else:
            found = held(model, schemes[kind], tp, **padded).tensors_bytes - own_table
            assert f"{found / GIB:.2f}" == f"{expected:.2f}", (kind, tp)


@pytest.mark.parametrize(
    ("model", "quantization", "tp", "release", "printed"),
    [
        ("Qwen2.5-VL-7B", None, 1, (0, 26, 0), 15.67),  # H200, tests/doctor/healthy/vllm-0.26-h200-tp1.log
        ("Qwen2.5-VL-7B", None, 2, (0, 26, 0), 7.9),  # ...-servetp2.log
        ("Qwen2.5-VL-72B", None, 2, (0, 26, 0), 68.59),  # H200, docs/measurements.md
        ("Qwen2-VL-7B", None, 1, (0, 20, 0), 15.5320),
        ("Qwen2-VL-7B", GPTQ_4, 1, (0, 20, 0), 6.4643),
        ("Qwen2.5-VL-72B", None, 4, (0, 20, 0), 34.4340),  # vLLM #16570
    ],
)
def test_model_loading_took(
    model: str, quantization: dict[str, Any] | None, tp: int, release: tuple[int, int, int], printed: float
) -> None:
    """The allocator's rounding is what earlier estimates lacked: 0.10 GiB of the 7B's 15.67.

    Hundredths of a GiB in the first two. TP 2 misses the edge of its hundredth by 0.5 MiB (7.9055, printed 7.9).
    """
    found = held(model, quantization, tp, release=release).allocated_bytes / GIB
    assert found == pytest.approx(printed, abs=0.006 if release == V26 else 0.002)


def test_the_7b_of_the_log_to_the_last_digit() -> None:
    found = held("Qwen2.5-VL-7B")
    assert gib(found.allocated_bytes) == "15.67"
    assert gib(found.tensors_bytes) == "15.57"
    assert 0.10 < found.rounding_bytes / GIB < 0.11


@pytest.mark.parametrize(
    ("model", "quantization", "tp", "options", "tensors"),
    [
        ("Qwen2.5-VL-7B", None, 1, {}, 15.5680),
        ("Qwen2.5-VL-7B", None, 2, {}, 7.8471),
        ("Qwen2.5-VL-7B", None, 4, {}, 3.9866),
        ("Qwen2.5-VL-7B", None, 2, {"data_mode": True}, 8.4756),
        ("Qwen2.5-VL-72B", None, 8, {}, 17.2198),
        ("Qwen2.5-VL-72B", AWQ, 1, {"intermediate_size": 29696}, 40.1739),
        ("Qwen2.5-VL-72B", AWQ, 2, {"intermediate_size": 29696}, 20.1511),
        ("Qwen2.5-VL-72B", AWQ, 8, {"intermediate_size": 29696}, 5.1340),
        ("Qwen2.5-VL-32B", AWQ, 1, {}, 19.4071),
        ("Qwen2.5-VL-7B", AWQ, 1, {}, 6.5710),
        ("Qwen3-VL-30B-A3B", None, 1, {"release": (0, 32, 0)}, 57.94),
        ("Qwen3-VL-30B-A3B", FP8_BLOCK, 1, {"release": (0, 32, 0)}, 30.10),
        ("Qwen3-VL-30B-A3B", FP8_BLOCK, 2, {"release": (0, 32, 0)}, 15.10),
        ("Qwen3-VL-235B-A22B", None, 8, {"release": (0, 32, 0)}, 55.12),
    ],
)
def test_tensors_of_vllms_own_classes_on_the_meta_device(
    model: str, quantization: dict[str, Any] | None, tp: int, options: dict[str, Any], tensors: float
) -> None:
    """Printed to the last digit given (planner research 3.3), so half of it is the tolerance."""
    found = held(model, quantization, tp, **options).tensors_bytes / GIB
    assert found == pytest.approx(tensors, abs=0.0051 if tensors == round(tensors, 2) else 0.0006)


def test_qwen3_vl_allocates_its_deepstack_buffers_with_the_model() -> None:
    shape = read_shape(config("Qwen3-VL-8B"))
    rank = ranks(shape)[0]
    more = weights(shape, rank, V26, 8192).tables_bytes - weights(shape, rank, V26, 0).tables_bytes
    assert more == 3 * 8192 * 4096 * 2


def test_experts_have_embedding_and_head_on_every_stage() -> None:
    """As vLLM 0.32's Qwen3VLMoe classes on the meta device (tests/vllm_cpu/test_oracle.py); dense models share them."""
    for model, every in (("Qwen3-VL-30B-A3B", True), ("Qwen3-VL-8B", False)):
        shape = read_shape(config(model))
        first, last = (weights(shape, rank, (0, 32, 0)) for rank in ranks(shape, pipeline_parallel_size=2))
        vocabulary = 151936 * shape.hidden_size * 2
        assert (first.embedding_bytes, last.head_bytes) == (vocabulary, vocabulary)
        assert (first.head_bytes, last.embedding_bytes) == ((vocabulary, vocabulary) if every else (0, 0))


def test_pipeline_stages_as_vllm_deals_them_out() -> None:
    assert [len(stage) for stage in pipeline_layers(28, 3)] == [9, 10, 9]
    assert [len(stage) for stage in pipeline_layers(80, 3)] == [27, 27, 26]
    assert [len(stage) for stage in pipeline_layers(94, 8)] == [11, 12, 12, 12, 12, 12, 12, 11]
    assert pipeline_layers(28, 2, (10, 18)) == (range(10), range(10, 28))
    for partition in ((10, 17), (28,), (28, 0)):
        with pytest.raises(VlfleetError, match="28 layers cannot be dealt out"):
            pipeline_layers(28, 2, partition)
    with pytest.raises(VlfleetError, match="cannot be dealt out"):
        pipeline_layers(2, 3)


def test_what_each_stage_holds() -> None:
    shape = read_shape(config("Qwen2.5-VL-7B"))
    first, last = (weights(shape, rank, V26) for rank in ranks(shape, 1, 2))
    assert first.embedding_bytes
    assert not first.head_bytes
    assert last.head_bytes
    assert not last.embedding_bytes
    assert first.vision_bytes == last.vision_bytes > 0, "the tower is built on every stage"
    tied = read_shape(config("Qwen2.5-VL-3B"))
    both = [weights(tied, rank, V26) for rank in ranks(tied, 1, 2)]
    assert both[0].embedding_bytes == both[1].embedding_bytes > 0
    assert not both[1].head_bytes
    three = [weights(tied, rank, V26) for rank in ranks(tied, 1, 3)]
    assert not three[1].embedding_bytes


def test_terms_name_every_byte_once() -> None:
    found = held("Qwen2.5-VL-7B")
    assert total(weight_terms(found)) == found.allocated_bytes
    assert all(term.source and term.formula for term in weight_terms(found))


@pytest.mark.parametrize("model", CONFIGS)
def test_ranks_together_hold_at_least_the_model(model: str) -> None:
    shape = read_shape(config(model))
    for tp, pp in product((1, 2, 4, 8), (1, 2, 3)):
        try:
            each = [weights(shape, rank, V26) for rank in ranks(shape, tp, pp)]
        except VlfleetError:
            continue
        assert sum(stage.tensors_bytes for stage in each) * tp >= shape.parameters * 2
        assert all(stage.allocated_bytes >= stage.tensors_bytes for stage in each)


@pytest.mark.parametrize("model", CONFIGS)
def test_more_ranks_never_hold_more_each(model: str) -> None:
    shape = read_shape(config(model))
    sizes = []
    for tp in (1, 2, 4, 8, 16):
        try:
            sizes.append(weights(shape, ranks(shape, tp)[0], V26).tensors_bytes)
        except VlfleetError:
            continue
    assert len(sizes) >= 3
    assert sizes == sorted(sizes, reverse=True)


def test_experts_are_cut_or_dealt_out() -> None:
    shape = read_shape(config("Qwen3-VL-30B-A3B", FP8_BLOCK))
    cut, whole = (weights(shape, ranks(shape, 4, expert_parallel=dealt)[0], V26) for dealt in (False, True))
    halved = 128 * 48 * ((32 * 6 + 3 * 32) - (16 * 12 + 6 * 16) // 4) * 4
    assert cut.layers_bytes - whole.layers_bytes == halved, "blocks of 64 instead of 128 where 192 is the part"


@given(
    inputs=st.integers(1, 64).map(lambda n: n * 128),
    outputs=st.integers(1, 64).map(lambda n: n * 128),
    kind=st.sampled_from(("awq", "gptq", "fp8", "block", "bnb4")),
)
def test_a_quantised_layer_is_smaller_than_in_16_bits_but_not_than_its_bits(
    inputs: int, outputs: int, kind: str
) -> None:
    scheme = {
        "awq": Quantized("awq", 4, 128, symmetric=False),
        "gptq": Quantized("gptq", 4, 128),
        "fp8": Quantized("fp8", 8),
        "block": Quantized("fp8", 8, block=(128, 128)),
        "bnb4": Quantized("bnb4", 4),
    }[kind]
    size = sum(scheme.linear(inputs, outputs))
    assert inputs * outputs * scheme.bits // 8 <= size < inputs * outputs * 2


@given(st.integers(1, 400_000), st.sampled_from((1, 2, 4, 8, 16)))
def test_a_vocabulary_is_padded_to_64_and_cut_exactly(vocab_size: int, tp: int) -> None:
    rows = padded_vocabulary(vocab_size)
    assert vocab_size <= rows < vocab_size + 64
    assert rows % 64 == 0
    assert rows % tp == 0
