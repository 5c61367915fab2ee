"""Limits beyond the demand: generous where they cost nothing, and never the reason why something does not fit."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plan.questions import ask, with_memory
from vlfleet.plan.candidates import needs
from vlfleet.plan.demand import ImageSize, Workload, demand
from vlfleet.plan.judge import Bench, legal
from vlfleet.plan.limits import AT_ONCE, COST, LONGEST, lengths, roomy, tight, told
from vlfleet.plan.memory import memory
from vlfleet.plan.plan import Inputs, Judged
from vlfleet.plan.search import rank, search, weigh

MODELS = ("Qwen2-VL-2B", "Qwen2.5-VL-3B", "Qwen2.5-VL-7B", "Qwen2.5-VL-32B-Instruct-AWQ", "Qwen3-VL-8B")
RELEASES = ((0, 24, 0), (0, 26, 0), (0, 32, 0))
"""Of runner 1, of runner 2 without a look at the vision tower, of runner 2 with one."""
workloads = st.builds(
    Workload,
    images=st.sampled_from([(), (ImageSize(448, 448),), (ImageSize(1536, 2048, 3), ImageSize(800, 600))]),
    images_per_request=st.integers(1, 3),
    repeated_share=st.sampled_from([0.0, 0.5]),
    working_set=st.integers(1, 300),
    prompt_tokens=st.integers(10, 3000),
    output_tokens=st.integers(1, 600),
    output_spread=st.sampled_from([0.0, 0.8]),
    concurrency=st.integers(1, 200),
)
questions = st.builds(
    lambda model, gpus, gib, workload, release: with_memory(ask(model, gpus, workload, release=release), gib),
    st.sampled_from(MODELS),
    st.sampled_from(["1xH100", "2xH100"]),
    st.floats(8, 100),
    workloads,
    st.sampled_from(RELEASES),
)


def tokens(judged: Judged) -> int:
    assert judged.memory is not None
    return 16 * judged.memory.kv_cache.blocks


def chosen(inputs: Inputs) -> Judged:
    plan = search(inputs, finalists=0)
    assert plan.chosen is not None
    return plan.chosen


@given(inputs=questions)
@settings(max_examples=60, deadline=None)
def test_whatever_fits_fits_with_more_room(inputs: Inputs) -> None:
    bench, wanted = Bench.of(inputs), needs(inputs)
    for before in rank(weigh(bench)[0], inputs):
        after = roomy(bench, before)
        old, new = before.candidate.flags, after.candidate.flags
        assert after.refusal is None
        assert after.memory == memory(bench.request(after.candidate), inputs.calibration)
        assert after.memory.fits
        assert legal(bench, after.candidate)[1] is None
        assert tokens(after) >= (1 - COST) * tokens(before)
        assert after.goodput >= 0.99 * before.goodput
        assert after.in_time >= before.in_time
        assert new.max_num_seqs >= old.max_num_seqs  # type: ignore[operator]
        assert new.images_per_prompt >= old.images_per_prompt == inputs.workload.media
        length = new.max_model_len
        assert length is not None
        assert wanted.request_tokens <= length <= inputs.model.shape.max_position_embeddings
        if length != old.max_model_len:
            assert length.bit_count() == 1
            assert length <= max(LONGEST, 2 * wanted.request_tokens)
            assert tokens(after) >= (AT_ONCE if length >= 2 * wanted.request_tokens else 1) * length


@given(inputs=questions)
@settings(max_examples=40, deadline=None)
def test_a_length_that_nobody_said_makes_nothing_infeasible(inputs: Inputs) -> None:
    """Whatever is served with exactly the length of the demand is served without a word of it."""
    least = needs(inputs).request_tokens
    exact = replace(inputs, max_model_len=least)
    layouts = [
        {(each.candidate.layout, each.candidate.quantization) for each in weigh(Bench.of(asked), None)[0]}
        for asked in (inputs, exact)
    ]
    assert layouts[0] == layouts[1]


@given(inputs=questions, kv_tokens=st.integers(0, 400_000))
def test_lengths(inputs: Inputs, kv_tokens: int) -> None:
    least, found = needs(inputs).request_tokens, lengths(inputs, kv_tokens)
    assert list(found) == sorted(set(found), reverse=True)
    for length in found:
        assert least <= length <= kv_tokens
        assert length < 2 * least or length * AT_ONCE <= kv_tokens
    if kv_tokens >= AT_ONCE * LONGEST and least <= LONGEST:
        assert found[0] == LONGEST


def test_a_model_with_a_short_context_keeps_it() -> None:
    inputs = ask("Qwen2.5-VL-7B", "1xH200", "general")
    short = replace(inputs.model.shape, max_position_embeddings=20_000)
    assert lengths(replace(inputs, model=replace(inputs.model, shape=short)), 10**6)[:2] == (20_000, 16_384)


@pytest.mark.parametrize("release", RELEASES)
def test_general_use_of_a_large_gpu(release: tuple[int, int, int]) -> None:
    judged = chosen(ask("Qwen2.5-VL-7B", "2xH200", demand(), release=release))
    flags = judged.candidate.flags
    assert (flags.images_per_prompt, flags.max_model_len, flags.max_num_seqs) == (8, 32768, 64)
    assert flags.max_pixels is not None
    assert flags.max_pixels > 3_000_000, "pictures of phones as they are"


def test_of_a_small_one_the_length_is_what_four_requests_leave() -> None:
    judged = chosen(ask("Qwen2.5-VL-7B", "1xRTX4090", demand()))
    assert judged.candidate.flags.max_model_len == 16384
    assert 4 * 16384 <= tokens(judged) < 4 * 32768


def test_what_was_said_stays() -> None:
    said = {"max_num_seqs": 24, "images_per_prompt": 2}
    flags = chosen(ask("Qwen2.5-VL-7B", "1xH200", demand(), said=said, max_model_len=9000)).candidate.flags
    assert (flags.max_num_seqs, flags.images_per_prompt, flags.max_model_len) == (24, 2, 9000)


def test_text_alone_stays_text() -> None:
    judged = chosen(ask("Qwen2.5-VL-7B", "1xH200", demand(images=())))
    assert judged.candidate.flags.images_per_prompt == 0
    assert judged.candidate.flags.max_model_len == LONGEST
    assert "at most text only and 32,768 tokens" in told(ask(), judged.candidate)


def test_pictures_that_vllm_would_measure_with_are_not_free() -> None:
    """vLLM 0.24 measures with as many pictures as a step holds, if requests may have so many: eight of a phone's fill
    32,768 tokens, for which the 3B's vision tower takes 2 GiB more than its language model; four are free."""
    phone = Workload(images=(ImageSize(1536, 2048),), concurrency=1)
    said = {"max_num_batched_tokens": 32768, "max_num_seqs": 1}
    inputs = with_memory(ask("Qwen2.5-VL-3B", "1xH100", phone, release=(0, 24, 0), said=said), 24.0)
    assert chosen(inputs).candidate.flags.images_per_prompt == 8, "room for them is left anyway"
    tight_share = replace(inputs, said={**said, "gpu_memory_utilization": 0.7})
    assert chosen(tight_share).candidate.flags.images_per_prompt == 4
    assert chosen(replace(tight_share, release=(0, 26, 0))).candidate.flags.images_per_prompt == 8, "text alone"


def test_a_gpu_that_holds_few_requests_keeps_few_sequences() -> None:
    """128 sequences take 2.9 GiB of a 4090 that runs 32 B in int4: that is more than its KV cache has then."""
    inputs = ask("Qwen2.5-VL-32B-Instruct-AWQ", "1xRTX4090", demand(images=(ImageSize(1024, 1024),)))
    judged, bench, wanted = chosen(inputs), Bench.of(inputs), needs(inputs)
    few = judged.candidate.flags.max_num_seqs
    assert few is not None
    assert few <= 32
    flags = replace(judged.candidate.flags, max_num_seqs=128)
    many = tight(Bench.of(replace(inputs, said={"max_num_seqs": 128})), replace(judged.candidate, flags=flags), wanted)
    assert many.candidate.flags.max_num_seqs == 128
    assert tokens(judged) > 1.3 * tokens(many)
    assert judged.goodput > 1.2 * many.goodput
    assert tight(bench, replace(judged.candidate, flags=flags), wanted).goodput > many.goodput


def test_limits_are_told() -> None:
    inputs = ask("Qwen2.5-VL-7B", "2xH200", demand())
    told_of = told(inputs, chosen(inputs).candidate)
    assert told_of == "a request has at most 8 images of 3.1 MP (larger ones are scaled down) and 32,768 tokens"
    whole = replace(inputs, max_pixels=inputs.model.max_pixels)
    assert "8 images of 12.8 MP and " in told(whole, chosen(whole).candidate)
