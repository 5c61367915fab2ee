"""A smaller plan after running out of memory: in the promised order, and never a larger one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlfleet.checkpoint import CheckpointInfo, preflight
from vlfleet.demo import model_path
from vlfleet.engine.launch import EngineOptions, EngineSpec, Failure, FailureKind, Value
from vlfleet.engine.vllm.heal import SMALLEST_MAX_MODEL_LEN, SMALLEST_MAX_NUM_SEQS, heal

OUT_OF_MEMORY = Failure("no memory", kind=FailureKind.MEMORY, rule="cuda-out-of-memory")
SPEC = EngineSpec(Path("/models/x"), "x")


@pytest.fixture(scope="module")
def info() -> CheckpointInfo:
    found = preflight(model_path())
    return replace(found, config={**found.config, "max_position_embeddings": 128000}, max_pixels=16384 * 784)


def test_encoder_then_length_then_sequences(info: CheckpointInfo) -> None:
    first = heal(SPEC, info, OUT_OF_MEMORY, {"max_num_batched_tokens": 8192})
    assert first is not None
    spec, said = first
    assert said == "an encoder budget of 4,096 instead of 16,384 tokens (max_pixels 3,211,264)"
    assert (spec.options.max_pixels, spec.options.max_num_batched_tokens) == (4096 * 784, 4096)
    second = heal(spec, info, OUT_OF_MEMORY, {"max_num_batched_tokens": 4096, "max_model_len": 128000})
    assert second is not None
    spec, said = second
    assert said == "max_model_len 32,000 instead of 128,000"
    while (smaller := heal(spec, info, OUT_OF_MEMORY, {})) and "max_model_len" in smaller[1]:
        spec = smaller[0]
    assert smaller is not None
    assert smaller[1] == "max_num_seqs 64 instead of 256"
    while smaller:
        spec, smaller = smaller[0], heal(smaller[0], info, OUT_OF_MEMORY, {})
    assert spec.options.max_num_seqs == SMALLEST_MAX_NUM_SEQS
    assert (spec.options.max_model_len or 0) >= SMALLEST_MAX_MODEL_LEN


def test_a_failure_that_names_its_cure_is_heeded(info: CheckpointInfo) -> None:
    short = Failure("KV", kind=FailureKind.MEMORY, rule="kv", numbers={"estimated_max_model_len": 50512})
    healed = heal(SPEC, info, short, {})
    assert healed is not None
    assert healed[1] == "max_model_len 50,512 instead of 128,000"
    sampler = Failure("sampler", kind=FailureKind.MEMORY, rule="sampler-warmup-out-of-memory")
    healed = heal(SPEC, info, sampler, {"max_num_seqs": 1024})
    assert healed is not None
    assert healed[0].options.max_num_seqs == 256


def test_what_was_said_after_the_dashes_gives_way(info: CheckpointInfo) -> None:
    given_args = ("--max-num-batched-tokens=65536", "--seed", "1", "--mm-processor-kwargs", "{}")
    spec = replace(SPEC, engine_args=given_args)
    healed = heal(spec, info, OUT_OF_MEMORY, {"max_num_batched_tokens": 65536})
    assert healed is not None
    assert healed[0].engine_args == ("--seed", "1")
    assert healed[0].options.max_num_batched_tokens == 16384


def test_no_video_any_more(info: CheckpointInfo) -> None:
    spec = replace(SPEC, options=EngineOptions(limit_mm_per_prompt={"image": 2, "video": 1}))
    healed = heal(spec, info, OUT_OF_MEMORY, {})
    assert healed is not None
    assert healed[0].options.limit_mm_per_prompt == {"image": 2, "video": 0}
    assert "no video" in healed[1]


@given(
    pixels=st.integers(784, 16384 * 784),
    step=st.one_of(st.none(), st.integers(1, 1 << 17)),
    length=st.one_of(st.none(), st.integers(1, 128000)),
    sequences=st.one_of(st.none(), st.integers(1, 1024)),
    decisions=st.dictionaries(
        st.sampled_from(["max_num_batched_tokens", "max_model_len", "max_num_seqs"]), st.integers(1, 1 << 17)
    ),
    estimated=st.one_of(st.none(), st.integers(0, 200000)),
)
def test_a_plan_only_shrinks_and_comes_to_an_end(
    info: CheckpointInfo,
    pixels: int,
    step: int | None,
    length: int | None,
    sequences: int | None,
    decisions: dict[str, Value],
    estimated: int | None,
) -> None:
    options = EngineOptions(
        max_pixels=pixels, max_num_batched_tokens=step, max_model_len=length, max_num_seqs=sequences
    )
    spec = replace(SPEC, options=options)
    numbers = {} if estimated is None else {"estimated_max_model_len": float(estimated)}
    failure = replace(OUT_OF_MEMORY, numbers=numbers)
    for _ in range(40):
        healed = heal(spec, info, failure, decisions)
        if healed is None:
            return
        new, old = healed[0].options, spec.options
        assert new != old
        for name in ("max_pixels", "max_num_batched_tokens", "max_model_len", "max_num_seqs"):
            before, after = getattr(old, name), getattr(new, name)
            assert before is None or after <= before
        spec = healed[0]
    pytest.fail("it never ends")
