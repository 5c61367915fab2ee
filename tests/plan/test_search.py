"""The search: what it chooses, and what must hold whatever it is asked."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plan.questions import ask, with_memory
from vlfleet.hardware.catalogue import imagined_machine, parse_gpus
from vlfleet.hardware.machine import Link
from vlfleet.plan.candidates import needs, processor_cache_gb, sequences
from vlfleet.plan.demand import PRESETS, ImageSize, Workload, demand
from vlfleet.plan.fleets import fleets
from vlfleet.plan.judge import Bench, judge, legal
from vlfleet.plan.kinds import Kind
from vlfleet.plan.memory import memory
from vlfleet.plan.memory_calibration import Calibration
from vlfleet.plan.plan import Inputs, Judged
from vlfleet.plan.published import MODELS
from vlfleet.plan.search import search, weigh
from vlfleet.plan.speed_coefficients import coefficients_of

GPUS = ("T4", "RTX4090", "L40S", "A100-80GB", "H100", "H200")
models = st.sampled_from(["Qwen2-VL-2B", "Qwen2.5-VL-3B", "Qwen2.5-VL-7B", "Qwen2.5-VL-32B", "Qwen2.5-VL-72B"])
workloads = st.builds(
    Workload,
    images=st.sampled_from([(), (ImageSize(1024, 1024),), (ImageSize(1920, 1080, 2), ImageSize(640, 480))]),
    images_per_request=st.integers(1, 3),
    repeated_share=st.sampled_from([0.0, 0.5, 0.9]),
    working_set=st.integers(1, 300),
    prompt_tokens=st.integers(10, 2000),
    output_tokens=st.integers(1, 400),
    concurrency=st.integers(1, 200),
    ttft_p95_seconds=st.sampled_from([None, 0.5, 3.0]),
)


def quick(inputs: Inputs) -> list[Judged]:
    return weigh(Bench.of(inputs))[0]


def best_goodput(inputs: Inputs) -> float:
    return max((judged.goodput for judged in quick(inputs)), default=0.0)


# What is chosen


def test_replicas_before_tensor_parallelism() -> None:
    plan = search(ask("Qwen2.5-VL-7B", "2xH200", "batch"))
    assert plan.chosen is not None
    assert plan.chosen.candidate.layout == "2 x TP1"
    assert plan.placement == ((0,), (1,))
    others = {judged.candidate.layout: judged for judged in plan.runners_up}
    assert others["TP2"].goodput < plan.chosen.goodput


def test_memory_forces_tensor_parallelism() -> None:
    plan = search(ask("Qwen2.5-VL-72B", "8xH100", "batch"))
    assert plan.chosen is not None
    assert plan.chosen.candidate.tensor_parallel_size in (2, 4)
    assert plan.chosen.candidate.gpus == 8
    one = next(judged for judged in plan.refused if judged.candidate.layout == "TP1")
    assert one.refusal is not None
    assert one.refusal.kind == "memory"
    assert one.refusal.error == "torch.OutOfMemoryError: CUDA out of memory."


def test_one_request_at_a_time_wants_tensor_parallelism_over_nvlink_and_not_over_pcie() -> None:
    """32B of 62 GiB: a step reads all weights, which two GPUs do faster, if their link is fast."""
    alone = demand(None, concurrency=1, output_tokens=300)
    nvlink = search(ask("Qwen2.5-VL-32B", "4xH100", alone, optimise="latency"))
    assert nvlink.chosen is not None
    assert nvlink.chosen.candidate.tensor_parallel_size == 4


def test_fp8_is_not_taken_unasked() -> None:
    assert {judged.candidate.quantization for judged in quick(ask("Qwen2.5-VL-7B", "2xH100"))} == {None}
    any_ = quick(ask("Qwen2.5-VL-7B", "2xH100", quantise="any"))
    assert {judged.candidate.quantization for judged in any_} == {None, "fp8"}


def test_fp8_is_taken_where_nothing_else_fits_and_says_so() -> None:
    plan = search(ask("Qwen2.5-VL-7B", "1xRTX4080"))
    assert plan.chosen is not None
    assert plan.chosen.candidate.quantization == "fp8"
    assert any("changes the numbers" in note for note in plan.notes)


def test_padding_or_data_mode_is_proposed_where_it_makes_a_size_legal() -> None:
    plan = search(ask("Qwen2.5-VL-3B", "8xH100"), only=[(8, 1, 1)])
    assert plan.chosen is not None
    assert plan.chosen.candidate.mode == "data"
    (refused,) = plan.refused
    assert refused.refusal is not None
    assert refused.refusal.change == "--mm-encoder-tp-mode data"


def test_first_awq_upload_of_the_72b_is_told_to_pad() -> None:
    from vlfleet.plan.model import of_config
    from vlfleet.plan.oracle.weight_formats import WeightFormat
    from vlfleet.plan.published import config_of

    config = {**config_of("Qwen2.5-VL-72B", WeightFormat.AWQ), "intermediate_size": 29568}
    plan = search(ask(of_config("first", config, "a test"), "2xH100"))
    two = next(judged for judged in plan.refused if judged.candidate.tensor_parallel_size == 2)
    assert two.refusal is not None
    assert "vlfleet checkpoint pad SRC DST --tp 2" in two.refusal.change


def test_v100_is_refused_in_a_line() -> None:
    plan = search(ask("Qwen2.5-VL-7B", "4xV100-32GB"))
    assert plan.chosen is None
    (refused,) = plan.refused
    assert refused.refusal is not None
    assert "7.0" in refused.refusal.reason
    assert "--engine embedded" in plan.changes[0]


def test_the_encoder_cache_is_sized_for_the_working_set() -> None:
    """40 -> 95 requests/s on H200 came from this one number."""
    measured = Workload(
        images=(ImageSize(1024, 1024),), repeated_share=1.0, working_set=20, output_tokens=64, concurrency=64
    )
    plan = search(ask("Qwen2.5-VL-7B", "1xH200", measured, max_pixels=1_003_520))
    assert plan.chosen is not None
    assert plan.chosen.candidate.flags.max_num_batched_tokens >= 20 * 1225  # type: ignore[operator]
    (gain,) = [gain for gain in plan.gains if gain.option.startswith("--max-num-batched-tokens")]
    assert "requests/s" in gain.why
    assert "of the pictures" in gain.why


def test_slow_links_make_stages_worth_a_look() -> None:
    slow = quick(ask("Qwen2.5-VL-72B", "8xL40S", "ocr", link=Link.SYSTEM))
    assert any(judged.candidate.pipeline_parallel_size > 1 for judged in slow)


@pytest.mark.parametrize("goal", ["throughput", "latency", "memory"])
def test_goals(goal: str) -> None:
    inputs = ask("Qwen2.5-VL-7B", "4xH100", optimise=goal)
    plan = search(inputs)
    assert plan.chosen is not None
    if goal == "memory":
        assert plan.chosen.candidate.gpus == min(j.candidate.gpus for j in quick(inputs) if j.in_time)


def test_only_named_layouts_are_compared() -> None:
    plan = search(ask("Qwen2.5-VL-7B", "4xH100"), only=[(4, 1, 1), (1, 1, 4), (2, 2, 1)])
    assert plan.chosen is not None
    names = {judged.candidate.layout for judged in (plan.chosen, *plan.runners_up)}
    assert names == {"TP4", "4 x TP1", "TP2 x PP2"}
    assert all(judged.speed and judged.speed.simulated for judged in (plan.chosen, *plan.runners_up))


def test_kinds_of_gpus_become_fleets() -> None:
    models = parse_gpus("2xA100-80GB,2xL40S")
    machine = imagined_machine(models)
    inputs = replace(ask("Qwen2.5-VL-7B", "2xA100-80GB"), machine=machine)
    kinds = [Kind(model, Calibration(gpu=model.name), coefficients_of(model)) for model in models]
    plans = fleets(inputs, machine, dict(enumerate(kinds)), finalists=0)
    used = [{index for replica in plan.placement for index in replica} for plan in plans]
    assert used == [{0, 1}, {2, 3}]
    assert sum(plan.inputs.workload.concurrency or 0 for plan in plans) == inputs.workload.concurrency
    assert [plan.inputs.gpu.capability for plan in plans] == [(8, 0), (8, 9)]
    for plan, kind in zip(plans, kinds[::2], strict=True):
        assert (plan.inputs.calibration, plan.inputs.coefficients) == (kind.calibration, kind.coefficients)


# What must hold


@given(model=models, gpu=st.sampled_from(GPUS), count=st.integers(1, 4), workload=workloads)
@settings(max_examples=25, deadline=None)
def test_more_gpus_never_lower_the_best_goodput(model: str, gpu: str, count: int, workload: Workload) -> None:
    fewer, more = (best_goodput(ask(model, f"{n}x{gpu}", workload)) for n in (count, count + 1))
    assert more >= fewer


@given(model=models, gib=st.floats(8, 150), extra=st.floats(0.1, 60), count=st.integers(1, 4), workload=workloads)
@settings(max_examples=40, deadline=None)
def test_more_memory_never_makes_a_plan_infeasible(
    model: str, gib: float, extra: float, count: int, workload: Workload
) -> None:
    inputs = ask(model, f"{count}xH100", workload)
    small, large = (
        {
            (j.candidate.tensor_parallel_size, j.candidate.pipeline_parallel_size, j.candidate.quantization)
            for j in weigh(Bench.of(with_memory(inputs, size)), predict=None, only=_all(count))[0]
        }
        for size in (gib, gib + extra)
    )
    assert {key for key in small if key[2] is None} <= large
    assert bool(large) >= bool(small)


def _all(count: int) -> list[tuple[int, int, int]]:
    """Every layout of one replica."""
    return [(tp, pp, 1) for tp in range(1, count + 1) for pp in range(1, count // tp + 1)]


@given(model=models, gpu=st.sampled_from(GPUS), count=st.integers(1, 8), workload=workloads)
@settings(max_examples=25, deadline=None)
def test_what_is_chosen_is_legal_fits_and_adds_up(model: str, gpu: str, count: int, workload: Workload) -> None:
    inputs = ask(model, f"{count}x{gpu}", workload)
    plan = search(inputs, finalists=0)
    if plan.chosen is None:
        assert len(plan.changes) >= 1
        return
    candidate, bench = plan.chosen.candidate, Bench.of(inputs)
    assert legal(bench, candidate)[1] is None
    found = memory(bench.request(candidate), inputs.calibration)
    assert found == plan.chosen.memory
    assert found.fits
    for rank in found.ranks:
        assert sum(term.bytes for term in rank.terms) == inputs.device.total_bytes
        assert rank.free_bytes >= 0
    taken = [index for replica in plan.placement for index in replica]
    assert len(taken) == len(set(taken)) == candidate.gpus <= count
    assert found.kv_tokens >= candidate.flags.max_model_len  # type: ignore[operator]


@given(model=models, gpu=st.sampled_from(GPUS), count=st.integers(1, 4), workload=workloads)
@settings(max_examples=15, deadline=None)
def test_the_order_is_by_merit(model: str, gpu: str, count: int, workload: Workload) -> None:
    """No runner-up that is in time is clearly better than the choice."""
    plan = search(ask(model, f"{count}x{gpu}", workload), finalists=0)
    if plan.chosen is None:
        return
    in_time = [judged for judged in plan.runners_up if judged.in_time]
    assert plan.chosen.in_time or not in_time
    rivals = in_time if plan.chosen.in_time else plan.runners_up
    assert all(plan.chosen.goodput >= 0.97 * judged.goodput for judged in rivals)


@given(workload=workloads, replicas=st.integers(1, 8), host=st.sampled_from([0, 16, 64, 512]))
def test_options_follow_from_the_demand(workload: Workload, replicas: int, host: int) -> None:
    inputs = ask("Qwen2.5-VL-7B", "8xH100", workload, host_memory_bytes=host << 30)
    wanted = needs(inputs)
    largest = wanted.max_pixels // inputs.model.family.factor**2
    most = workload.prompt_tokens + workload.output_tokens + workload.media * largest
    assert most <= wanted.max_model_len <= inputs.model.shape.max_position_embeddings
    assert 8 <= sequences(inputs, replicas) <= 1024
    assert sequences(inputs, replicas) >= min(1024, (workload.concurrency or 0) / replicas)
    cache = processor_cache_gb(inputs, wanted, replicas)
    assert cache >= 0
    if host and cache > 0.5 and workload.repeated_share:
        assert 2 * cache * replicas <= max(host / 2, 2 * 0.5 * replicas)


@pytest.mark.parametrize("name", MODELS)
def test_every_published_model_has_a_plan_on_eight_large_gpus(name: str) -> None:
    plan = search(ask(name, "8xH200"), finalists=0)
    assert plan.chosen is not None


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_has_a_plan(preset: str) -> None:
    plan = search(ask("Qwen2.5-VL-7B", "4xRTX4090", preset))
    assert plan.chosen is not None
    assert plan.chosen.speed is not None
    assert plan.chosen.speed.simulated


def test_nothing_is_said_of_speed_that_was_not_predicted() -> None:
    bench = Bench.of(ask())
    candidate = search(ask(), finalists=0).chosen
    assert candidate is not None
    judged = judge(bench, candidate.candidate, None)
    assert judged.speed is None
    assert judged.goodput == 0
    assert not judged.in_time
