"""The one fleet of `vlfleet up`: what was said stays, no GPU twice, and its place is the one that the engine takes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plan.questions import ask
from vlfleet.hardware.catalogue import find_model, imagined_machine
from vlfleet.hardware.machine import Link, Machine
from vlfleet.plan.choose import Wish, choose
from vlfleet.plan.kinds import Kind
from vlfleet.plan.memory_calibration import Calibration
from vlfleet.plan.plan import Plan
from vlfleet.plan.search import search
from vlfleet.plan.select import place
from vlfleet.plan.terms import GIB

SIZES = st.one_of(st.none(), st.sampled_from((1, 2, 4)))
SAID = st.fixed_dictionaries(
    {},
    optional={
        "max_num_seqs": st.sampled_from((4, 64, 4096)),
        "max_num_batched_tokens": st.sampled_from((1024, 16384)),
        "gpu_memory_utilization": st.sampled_from((0.7, 0.9)),
        "mm_encoder_tp_mode": st.sampled_from(("weights", "data")),
        "images_per_prompt": st.integers(1, 8),
        "enforce_eager": st.booleans(),
    },
)


ANY = Wish()


def chosen(machine: Machine, wish: Wish = ANY, workload: str = "batch", **more: Any) -> Plan | None:
    names = {gpu.index: gpu.name for gpu in machine.gpus}
    kinds = {index: Kind(find_model(name), Calibration()) for index, name in names.items()}
    inputs = replace(ask(gpus=f"1x{machine.gpus[0].name}", workload=workload), **more)
    return choose(inputs, machine, kinds, wish)


def cards(*names: str, link: Link | None = None) -> Machine:
    return imagined_machine([find_model(name) for name in names], link)


def layout_of(found: Plan | None) -> tuple[int, int, int]:
    assert found is not None
    assert found.chosen is not None
    c = found.chosen.candidate
    return c.tensor_parallel_size, c.pipeline_parallel_size, c.replicas


def test_without_a_wish_it_is_the_plan_of_vlfleet_plan() -> None:
    inputs = ask(gpus="4xRTX4090")
    found = chosen(inputs.machine, workload="chat")
    assert found is not None
    assert found == replace(search(inputs), inputs=found.inputs)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(("RTX4090", "H200")),
    st.integers(1, 4),
    SIZES,
    SIZES,
    SIZES,
    SAID,
    st.lists(st.floats(0.5, 1), min_size=4, max_size=4),
)
def test_what_was_said_stays_and_the_place_is_the_one_of_the_engine(
    name: str, count: int, tp: int | None, pp: int | None, replicas: int | None, said: dict[str, Any], free: list[float]
) -> None:
    machine = cards(*[name] * count)
    gpus = tuple(replace(gpu, free_bytes=int(gpu.memory_bytes * free[gpu.index])) for gpu in machine.gpus)
    machine = replace(machine, gpus=gpus)
    wish = Wish(tp, pp, replicas)
    found = chosen(machine, wish, said=said)
    assert (found is None) == (wish.least_gpus > count)
    if found is None or found.chosen is None:
        assert found is None or found.changes or any(judged.refusal for judged in found.refused)
        return
    layout, sizes = found.chosen.candidate, layout_of(found)
    assert wish.admits(sizes)
    flags = vars(layout.flags)
    assert {field: flags[field] for field in said if field != "max_num_seqs"} == {
        field: value for field, value in said.items() if field != "max_num_seqs"
    }
    both_said = {"max_num_seqs", "max_num_batched_tokens"} <= set(said)
    assert both_said or flags["max_num_seqs"] <= flags["max_num_batched_tokens"]
    used = [index for indices in found.placement for index in indices]
    assert len(used) == len(set(used)) == layout.gpus
    assert found.chosen.memory is not None
    assert found.chosen.memory.fits
    visible = ",".join(map(str, sorted(used)))
    share = layout.flags.gpu_memory_utilization
    placements, _ = place(machine, visible, sizes[2], sizes[0], sizes[1], share)
    assert tuple(placement.gpus for placement in placements) == found.placement


def test_the_faster_kind_serves() -> None:
    found = chosen(cards("RTX4090", "H200", "RTX4090"))
    assert found is not None
    assert found.placement == ((1,),)
    both = chosen(cards("RTX4090", "H200", "RTX4090"), Wish(replicas=2))
    assert both is not None
    assert both.placement == ((0,), (2,)), "two of the other kind are not there"
    assert chosen(cards("RTX4090", "H200", "RTX4090"), Wish(replicas=3)) is None


def test_a_gpu_that_is_half_busy_is_not_the_measure_of_all() -> None:
    machine = cards(*["RTX4090"] * 3)
    busy = replace(machine.gpus[1], free_bytes=12 * GIB)
    found = chosen(replace(machine, gpus=(machine.gpus[0], busy, machine.gpus[2])))
    assert found is not None
    assert found.placement == ((0,), (2,))


def test_stages_only_where_nothing_else_fits() -> None:
    four, one = cards(*["RTX4090"] * 4), Wish(tensor_parallel_size=1)
    assert layout_of(chosen(four, one))[1] == 1
    assert layout_of(chosen(four, one, model=ask("Qwen2.5-VL-32B").model, quantise="none")) == (1, 4, 1)
