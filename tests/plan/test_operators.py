"""Times of single operators: limits that physics sets, and what was fitted."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlfleet.hardware.catalogue import find_model
from vlfleet.hardware.catalogue_table import MODELS
from vlfleet.hardware.machine import Link
from vlfleet.plan.operators import Clock, Gemm, Operator, merged, total, wire_of
from vlfleet.plan.speed_coefficients import coefficients_of

H200 = find_model("H200")
CLOCK = Clock(H200, coefficients_of(H200))
SIZES = st.integers(1, 20_000).map(lambda size: size * 8)


@pytest.mark.parametrize(
    ("m", "n", "k", "memory"), [(1, 18944 * 2, 3584, True), (16, 3584, 3584, True), (8192, 18944 * 2, 3584, False)]
)
def test_a_gemm_is_as_slow_as_what_it_waits_for(m: int, n: int, k: int, memory: bool) -> None:
    """Never faster than either peak allows, and within 20 % of the slower one when it is far from the corner."""
    seconds, waits = CLOCK.gemm(m, Gemm(n, k))
    compute, read = 2 * m * n * k / 989e12, 2 * (n * k + m * (n + k)) / 4.8e12
    assert waits is memory
    assert seconds > max(compute, read)
    bound = read / 0.82 if memory else compute / 0.80
    assert bound < seconds < 1.2 * bound + 4e-6


@given(m=st.integers(1, 40_000), n=SIZES, k=SIZES, more=st.integers(1, 3))
def test_more_work_never_takes_less_time(m: int, n: int, k: int, more: int) -> None:
    least = CLOCK.gemm(m, Gemm(n, k))[0]
    assert CLOCK.gemm(m * more, Gemm(n, k))[0] >= least
    assert CLOCK.gemm(m, Gemm(n * more, k))[0] >= least
    assert CLOCK.gemm(m, Gemm(n, k * more))[0] >= least
    assert CLOCK.gemm(m, Gemm(n, k, 3))[0] == pytest.approx(3 * least)


def test_rows_that_are_not_aligned_are_slow_until_a_compiler_pads_them() -> None:
    aligned, crooked = CLOCK.gemm(4900, Gemm(1280, 3424))[0], CLOCK.gemm(4900, Gemm(1280, 3420))[0]
    assert crooked > 5 * aligned
    assert CLOCK.gemm(4900, Gemm(1280, 3420), padded=True)[0] == pytest.approx(aligned, rel=0.01)


def test_eight_bits_help_where_the_gpu_can_compute_with_them() -> None:
    wide, narrow = Gemm(37888, 3584), Gemm(37888, 3584, weight_bytes=1.0, arithmetic="fp8")
    assert CLOCK.gemm(4096, narrow)[0] < 0.7 * CLOCK.gemm(4096, wide)[0]
    a100 = Clock(find_model("A100"), coefficients_of(find_model("A100")))
    assert a100.gemm(4096, narrow)[0] == pytest.approx(a100.gemm(4096, wide)[0], rel=0.01)  # compute is as for fp16
    assert a100.gemm(4, narrow)[0] < 0.6 * a100.gemm(4, wide)[0]  # but half the bytes are read


def test_experts_that_nobody_asks_for_are_not_read() -> None:
    experts = Gemm(128 * 1536, 2048)
    assert CLOCK.gemm(1, experts, read_share=0.1)[0] < 0.2 * CLOCK.gemm(1, experts)[0]
    assert CLOCK.gemm(0, experts) == (0.0, False)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_every_gpu_has_coefficients_that_are_shares(model: object) -> None:
    assert isinstance(model, type(H200))
    c = coefficients_of(model)
    assert 0.5 < c.gemm_efficiency < 0.9
    assert 0.7 < c.memory_efficiency < 0.95


def test_coefficients_by_generation() -> None:
    found = {name: coefficients_of(find_model(name)).gemm_efficiency for name in ("A100", "L40S", "RTX4090", "B200")}
    assert found == {"A100": 0.84, "L40S": 0.63, "RTX4090": 0.80, "B200": 0.71}
    assert coefficients_of(find_model("T4")).gemm_efficiency == 0.84  # the nearest that was measured


@pytest.mark.parametrize(
    ("name", "ranks", "link", "mebibytes", "milliseconds"),
    [
        ("H200", 2, Link.NVLINK, 8.5, 0.038),  # 4.3 us + 263 GB/s
        ("H100", 8, Link.NVLINK, 8.5, 0.0505),
        ("L40S", 4, Link.BRIDGE, 160, 56.0),  # a 16,384-token picture, one of 64 all-reduces of 4 s
        ("RTX-PRO-6000", 2, Link.BRIDGE, 8.5, 0.2328),
    ],
)
def test_collectives_as_measured(name: str, ranks: int, link: Link, mebibytes: float, milliseconds: float) -> None:
    wire = wire_of(find_model(name), ranks, link)
    assert wire.all_reduce(mebibytes * 2**20) * 1000 == pytest.approx(milliseconds, rel=0.02)


@given(st.sampled_from(MODELS), st.integers(2, 16), st.sampled_from(Link), st.floats(1, 1e10))
def test_collectives_only_cost_more(model: object, ranks: int, link: Link, size: float) -> None:
    assert isinstance(model, type(H200))
    wire = wire_of(model, ranks, link)
    assert 0 < wire.all_gather(size) <= wire.all_reduce(size) <= wire.all_reduce(2 * size)
    assert wire.all_reduce(size) <= wire_of(model, 2 * ranks, link).all_reduce(size)
    assert wire_of(model, ranks, Link.NVLINK).all_reduce(1e9) <= wire_of(model, ranks, Link.SYSTEM).all_reduce(1e9)


def test_one_rank_says_nothing() -> None:
    assert wire_of(H200, 1, Link.SYSTEM).all_reduce(1e12) == 0


def test_cards_that_cannot_read_each_other_are_slower() -> None:
    card = find_model("RTX4090")
    blind, seeing = (wire_of(replace(card, peer_to_peer=sees), 2, Link.BRIDGE) for sees in (False, True))
    assert blind.all_reduce(1e8) > 1.5 * seeing.all_reduce(1e8)


def test_operators_are_added_up_by_name() -> None:
    parts = [Operator("a", 1.0), Operator("b", 2.5), Operator("a", 2.0), Operator("c", 0.0)]
    assert merged(parts) == (Operator("a", 3.0), Operator("b", 2.5))
    assert total(merged(parts)) == total(parts) == 5.5
