"""The simulated engine keeps vLLM's limits, loses nothing, and tells the same twice."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plan.measured_h200 import PICTURE, SERVED
from vlfleet.plan.demand import PRESETS, ImageSize, Picture, Workload, demand
from vlfleet.plan.simulate import poisson, share_of, simulate
from vlfleet.plan.simulate_engine import EngineState
from vlfleet.plan.simulate_replica import Replica
from vlfleet.plan.simulate_requests import Image, Request, draw
from vlfleet.plan.simulate_step import Limits, Step
from vlfleet.plan.speed import API_SERVER, GPU

SMALL = Picture(ImageSize(100, 100), 1.0, 16, 64)
LARGE = Picture(ImageSize(200, 200), 1.0, 49, 196)


def asks(number: int, *images: int, text: int = 20, answer: int = 5, picture: Picture = SMALL) -> Request:
    return Request(number, [Image(image, picture) for image in images], text, answer)


def run(engine: EngineState, requests: list[Request], most: int = 5000) -> list[Step]:
    """All of them at once, one step after the other."""
    engine.waiting.extend(requests)
    steps = []
    while (step := engine.schedule()) is not None:
        steps.append(step)
        engine.finish(step)
        assert len(steps) < most
    assert not engine.waiting
    assert not engine.running
    return steps


def test_one_request_step_by_step() -> None:
    engine = EngineState(Limits(64, 8, 64, 1600))
    steps = run(engine, [asks(1, 7, text=20, answer=3)])
    batches = [step.batch for step in steps]
    assert [(b.prompt_tokens, b.decodes, b.images, b.finished_prompts) for b in batches] == [
        (36, 0, (64,), 1),
        (0, 1, (), 0),
        (0, 1, (), 0),
    ]
    assert [b.decode_context for b in batches] == [0, 37, 38]
    assert batches[0].prompt_pairs == 36 * 37 / 2
    assert [step.tokens for step in steps] == [1, 1, 1]


def test_a_long_prompt_is_cut_into_steps_while_others_decode() -> None:
    engine = EngineState(Limits(32, 8, 64, 1600))
    steps = run(engine, [asks(1, text=10, answer=6), asks(2, text=70, answer=1)])
    assert [(step.batch.prompt_tokens, step.batch.decodes) for step in steps][:4] == [(32, 0), (31, 1), (17, 1), (0, 1)]


def test_a_picture_that_does_not_fit_the_step_is_waited_for() -> None:
    """Room for one large picture a step: the second prompt is computed up to it (4 tokens of the template)."""
    engine = EngineState(Limits(512, 8, 60, 1600))
    steps = run(engine, [asks(1, 1, picture=LARGE, answer=1), asks(2, 2, picture=LARGE, answer=1)])
    assert [(step.batch.prompt_tokens, step.batch.images) for step in steps] == [(69 + 4, (196,)), (65, (196,))]


def test_the_same_picture_is_looked_at_once() -> None:
    engine = EngineState(Limits(512, 8, 64, 1600))
    steps = run(engine, [asks(1, 7, text=30), asks(2, 7, text=30), asks(3, 7, 7, text=30)])
    assert sum(len(step.batch.images) for step in steps) == 1
    # 4 + 16 tokens: one block is shared; its last 4 tokens are in the next one, which is everybody's own.
    assert [step.batch.prompt_tokens for step in steps][:1] == [46 + 30 + (62 - 16)]


def test_an_output_that_was_thrown_out_is_computed_again_for_its_last_block() -> None:
    """Room for one output: the prefix is found, and the vision tower runs all the same."""
    engine = EngineState(Limits(512, 1, 16, 16000))
    run(engine, [asks(1, 1, answer=1), asks(2, 2, answer=1)])
    (step,) = run(engine, [asks(3, 1, answer=1)])
    assert (step.batch.prompt_tokens, step.batch.images) == (20, (64,))
    assert engine.found_tokens == 16


def test_a_picture_that_ends_with_a_block_needs_no_output_again() -> None:
    picture = Picture(ImageSize(1, 1), 1.0, 28, 112)  # 4 + 28 = 2 blocks
    engine = EngineState(Limits(512, 1, 28, 16000))
    run(engine, [asks(1, 1, answer=1, picture=picture), asks(2, 2, answer=1, picture=picture)])
    (step,) = run(engine, [asks(3, 1, answer=1, picture=picture)])
    assert (step.batch.prompt_tokens, step.batch.images) == (16, ())


def test_without_blocks_the_last_request_starts_again() -> None:
    engine = EngineState(Limits(64, 8, 64, 6 * 16))
    steps = run(engine, [asks(1, text=30, answer=40), asks(2, text=30, answer=40)])
    assert engine.preemptions > 0
    assert sum(step.tokens for step in steps) == 80
    assert engine.kv.held == 0


LIMITS = st.builds(
    Limits,
    max_num_batched_tokens=st.integers(16, 200),
    max_num_seqs=st.integers(1, 16),
    encoder_tokens=st.integers(49, 200),
    kv_cache_tokens=st.integers(400, 3000),
)
REQUESTS = st.lists(
    st.tuples(
        st.lists(st.integers(0, 6), max_size=3), st.integers(1, 90), st.integers(1, 60), st.sampled_from([SMALL, LARGE])
    ),
    min_size=1,
    max_size=25,
)


@settings(deadline=None, max_examples=150)
@given(LIMITS, REQUESTS, st.integers(1, 2))
def test_limits_hold_and_nothing_is_lost(
    limits: Limits, wanted: list[tuple[list[int], int, int, Picture]], ahead: int
) -> None:
    """Any requests under any limits, with one step or two decided ahead."""
    if limits.max_num_seqs > limits.max_num_batched_tokens:
        return  # vLLM refuses
    engine = EngineState(limits)
    # A picture is one number and one size.
    requests = [
        Request(n, [Image(100 * picture.tokens + i, picture) for i in images], text, answer)
        for n, (images, text, answer, picture) in enumerate(wanted)
    ]
    engine.waiting.extend(requests)
    done: list[int] = []
    flying: list[Step] = []
    tokens, firsts, rounds = 0, 0, 0
    while True:
        step = engine.schedule() if len(flying) < ahead else None
        if step is not None:
            batch = step.batch
            assert batch.prompt_tokens + batch.decodes <= limits.max_num_batched_tokens
            assert sum(patches // 4 for patches in batch.images) <= limits.encoder_tokens
            assert len(engine.running) <= limits.max_num_seqs
            assert engine.kv.held <= engine.kv.blocks
            assert 0 <= engine.encoder.free <= engine.encoder.freeable
            tokens += step.tokens
            firsts += len(step.firsts)
            flying.append(step)
        elif flying:
            done += [request.number for request in engine.finish(flying.pop(0))]
        else:
            break
        rounds += 1
        assert rounds < 50_000
    assert sorted(done) == list(range(len(requests)))
    assert tokens == sum(request.output_tokens for request in requests)
    assert firsts == len(requests)
    assert (engine.kv.held, engine.encoder.freeable) == (0, limits.encoder_tokens)


# Whole replicas


def test_the_same_seed_tells_the_same() -> None:
    workload = demand("chat", concurrency=8)
    assert simulate(SERVED, workload, 60, seed=3) == simulate(SERVED, workload, 60, seed=3)
    assert simulate(SERVED, workload, 60, seed=3) != simulate(SERVED, workload, 60, seed=4)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_request_is_answered_once(preset: str) -> None:
    replica, workload = Replica(SERVED), PRESETS[preset]
    source = draw(workload, SERVED.pictures(workload), 0)
    sent = [next(source) for _ in range(80)]
    measured = replica.run(sent, workload.concurrency)
    assert sorted(request.number for request in measured.requests) == list(range(80))
    assert all(0 <= request.arrived < request.first <= request.ended for request in sent)
    assert all(0 <= share <= 1 for share in measured.busy.values())


def test_no_more_are_in_flight_than_were_asked_for() -> None:
    workload = demand("batch", concurrency=12)
    replica = Replica(SERVED)
    source = draw(workload, SERVED.pictures(workload), 0)
    sent = [next(source) for _ in range(100)]
    replica.run(sent, 12)
    moments = sorted([(r.arrived, 1) for r in sent] + [(r.ended, -1) for r in sent])
    flying = most = 0
    for _, change in moments:
        flying += change
        most = max(most, flying)
    assert most == 12


def test_arrivals_are_those_of_the_rate() -> None:
    moments = poisson(5.0, seed=1)
    last = [next(moments) for _ in range(4000)][-1]
    assert 4000 / last == pytest.approx(5, rel=0.05)
    light = simulate(SERVED, demand("chat", request_rate=1.0), 300)
    assert light.requests_per_second == pytest.approx(1.0, rel=0.15)
    heavy = simulate(SERVED, demand("chat", request_rate=200.0), 300)
    assert heavy.requests_per_second < 40
    assert heavy.ttft.p95 > 5 * light.ttft.p95
    assert heavy.within_slo < light.within_slo


def test_replicas_share_the_load_and_the_pictures() -> None:
    workload = demand("chat", concurrency=9)
    share = share_of(workload, 4)
    assert (share.concurrency, share.working_set) == (2, 50)
    assert share_of(demand("chat", request_rate=2.0), 4).request_rate == 0.5
    many = demand("chat", concurrency=64)
    one, four = simulate(SERVED, many, 200), simulate(replace(SERVED, replicas=4), many, 200)
    assert four.requests_per_second > 2 * one.requests_per_second
    alone = demand("chat", concurrency=1, repeated_share=0.0)
    assert simulate(replace(SERVED, replicas=4), alone, 50).requests_per_second == pytest.approx(
        simulate(SERVED, alone, 50).requests_per_second, rel=0.1
    )


def test_the_api_server_is_named_when_it_is_the_bottleneck() -> None:
    """Short answers to many short questions: the event loop of one process."""
    speed = simulate(SERVED, Workload(images=(), output_tokens=2, concurrency=200), 400)
    assert speed.bottleneck == API_SERVER
    busier = simulate(replace(SERVED, api_server_count=4), Workload(images=(), output_tokens=2, concurrency=200), 400)
    assert busier.requests_per_second > 1.5 * speed.requests_per_second


def test_the_bottleneck_is_the_longest_operator_of_the_busiest_part() -> None:
    speed = simulate(SERVED, demand("batch"), 150)
    assert speed.busy[GPU] == max(speed.busy.values())
    assert speed.bottleneck == f"GPU: {max(speed.operators, key=lambda each: each.seconds).name}"


def test_a_request_longer_than_the_kv_cache_is_refused() -> None:
    with pytest.raises(ValueError, match="longer than the KV cache"):
        simulate(replace(SERVED, kv_cache_tokens=1000), demand("batch"), 10)


def test_little_memory_means_preemptions_not_loss() -> None:
    speed = simulate(replace(SERVED, kv_cache_tokens=8000), demand("ocr", prompt_tokens=20), 60)
    assert speed.preemptions > 0
    assert speed.requests_per_second > 0


def test_bigger_pictures_are_never_faster() -> None:
    found = [
        simulate(SERVED, demand("batch", images=(ImageSize(s, s),)), 150).requests_per_second for s in (224, 448, 980)
    ]
    assert found == sorted(found, reverse=True)


def test_pictures_of_the_working_set_come_again() -> None:
    workload = demand("agents", output_tokens=5)
    source = draw(workload, SERVED.pictures(workload), 0)
    numbers = [image.number for _ in range(500) for image in next(source).images]
    known = {number for number in numbers if number < workload.working_set}
    assert sum(number in known for number in numbers) / len(numbers) == pytest.approx(0.67, abs=0.03)
    assert len(known) <= workload.working_set
    fresh = [number for number in numbers if number not in known]
    assert len(fresh) == len(set(fresh))


def test_two_thousand_requests_take_less_than_two_seconds() -> None:
    begun = time.process_time()
    simulate(SERVED, Workload(output_tokens=128, concurrency=64, output_spread=0.5), 2000)
    assert time.process_time() - begun < 2


def test_one_picture_alone() -> None:
    """A chain of stages that can be added up by hand, within the measured 108 ms."""
    replica = Replica(SERVED)
    (request,) = replica.run([Request(0, [Image(0, PICTURE)], 18, 1)], 1).requests
    assert request.ttft_seconds == pytest.approx(0.108, rel=0.1)
    assert request.first == request.ended
