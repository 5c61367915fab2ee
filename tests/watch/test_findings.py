"""Each rule: a past on which it fires, and the nearest one on which it must not."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlfleet.watch.findings import MOST, RULES, Past, findings
from vlfleet.watch.setup import Planned, Setup

GIB = 1 << 30
SETUP = Setup("q", "vllm", "2 x TP1", max_visual_tokens=4096)
WELL = Past(
    requests=5000,
    images=4000,
    needed=1000,
    repeated=20,
    avoided=3000,
    gpu_utilization={"gpu0": 0.7, "gpu1": 0.66},
    held=frozenset({"gpu0", "gpu1"}),
    queued_idle_share=0.01,
    host_cpu=0.4,
    trust=0.98,
    kv_most=0.6,
    sizes={"0": 1000, "1-512": 1000, "513-2048": 2000, "2049-8192": 1000},
)
TEXT = replace(WELL, images=0.0, needed=0.0, repeated=0.0, avoided=0.0, trust=None, sizes={"0": 5000.0})
SMALL = {"0": 1000.0, "1-512": 3000.0}


@dataclass(frozen=True)
class Case:
    code: str
    fires: Past
    quiet: Past
    why_quiet: str
    setup: Setup = SETUP
    quiet_setup: Setup | None = None


CASES = [
    Case(
        "idle_gpu",
        replace(WELL, gpu_utilization={"gpu0": 0.7, "gpu1": 0.01}),
        replace(WELL, gpu_utilization={"gpu0": 0.06, "gpu1": 0.01}),
        "none works",
    ),
    Case(
        "idle_gpu",
        replace(WELL, gpu_utilization={"gpu0": 0.7, "gpu1": 0.01}, held=frozenset({"gpu0"})),
        replace(WELL, gpu_utilization={"gpu0": 0.7, "gpu1": 0.06}),
        "it works a little",
    ),
    Case(
        "queue_while_idle", replace(WELL, queued_idle_share=0.2), replace(WELL, queued_idle_share=0.04), "now and then"
    ),
    Case("queue_while_idle", replace(WELL, queued_idle_share=0.2), replace(WELL, queued_idle_share=None), "no GPU"),
    Case("looked_at_twice", replace(WELL, repeated=300), replace(WELL, repeated=100), "one in eleven"),
    Case(
        "looked_at_twice",
        replace(WELL, repeated=300),
        replace(WELL, needed=30, repeated=9, avoided=10),
        "too few",
    ),
    Case("mm_cache_small", replace(WELL, trust=0.5), replace(WELL, trust=0.85), "a few"),
    Case("mm_cache_small", replace(WELL, trust=0.5), replace(WELL, trust=None), "nobody knows"),
    Case("encoder_unused", TEXT, replace(TEXT, images=1.0), "there was one"),
    Case(
        "encoder_unused",
        TEXT,
        TEXT,
        "this engine keeps no memory for them",
        quiet_setup=replace(SETUP, engine="embedded"),
    ),
    Case("max_pixels_unused", replace(WELL, sizes=SMALL), replace(WELL, sizes=SMALL | {"2049-8192": 1.0}), "one did"),
    Case(
        "max_pixels_unused",
        replace(WELL, sizes=SMALL),
        replace(WELL, sizes=SMALL),
        "it allows less than twice of what came",
        quiet_setup=replace(SETUP, max_visual_tokens=1023),
    ),
    Case(
        "max_pixels_unused",
        replace(WELL, sizes=SMALL),
        replace(WELL, sizes=SMALL),
        "it is not known",
        quiet_setup=replace(SETUP, max_visual_tokens=None),
    ),
    Case("kv_unused", replace(WELL, kv_most=0.12), replace(WELL, kv_most=0.2), "a fifth"),
    Case("kv_unused", replace(WELL, kv_most=0.12), replace(WELL, kv_most=0.12, requests=50), "too few requests"),
    Case(
        "kv_unused",
        replace(WELL, kv_most=0.12),
        replace(WELL, kv_most=0.12),
        "this engine takes memory as it goes",
        quiet_setup=replace(SETUP, engine="embedded"),
    ),
]


def codes(past: Past, setup: Setup = SETUP) -> list[str]:
    return [each.code for each in findings(past, setup)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.code}: {case.why_quiet}")
def test_it_is_told_there_and_only_there(case: Case) -> None:
    assert codes(case.fires, case.setup) == [case.code]
    assert codes(case.quiet, case.quiet_setup or case.setup) == []


def test_every_rule_has_its_cases() -> None:
    assert len({case.code for case in CASES}) == len(RULES)


def test_a_fleet_that_is_well_needs_no_change() -> None:
    assert codes(WELL) == []
    assert codes(Past()) == []


def test_each_has_its_number_and_says_what_to_do() -> None:
    for case in CASES:
        (found,) = findings(case.fires, case.setup)
        assert any(letter.isdigit() for letter in found.text)
        assert 20 < len(found.advice) < 130
        assert found.value is not None


def test_texts() -> None:
    (found,) = findings(replace(WELL, repeated=300), SETUP)
    assert found.text == "300 of 1,300 pictures (23%) were encoded again on another replica"
    (found,) = findings(replace(WELL, sizes=SMALL), SETUP)
    assert found.text == "--max-pixels allows 4,096 visual tokens a picture, no request had more than 512"
    assert f"--max-pixels {512 * 784}" in found.advice
    (found,) = findings(TEXT, replace(SETUP, planned=Planned(encoder_bytes=3 * GIB)))
    assert "frees 3.0 GiB" in found.advice
    (found,) = findings(replace(WELL, gpu_utilization={"gpu0": 0.7, "gpu1": 0.0, "gpu2": 0.0}, held=frozenset()), SETUP)
    assert found.text == "2 GPUs (gpu1, gpu2) worked 0% of the time, the busiest GPU 70%"
    (found,) = findings(replace(WELL, queued_idle_share=0.3, host_cpu=0.97), SETUP)
    assert "97%" in found.advice


def test_at_most_five() -> None:
    worst = replace(
        WELL,
        gpu_utilization={"gpu0": 0.7, "gpu1": 0.0},
        queued_idle_share=0.5,
        repeated=900,
        trust=0.1,
        kv_most=0.01,
        sizes=SMALL,
    )
    assert codes(worst) == ["idle_gpu", "queue_while_idle", "looked_at_twice", "mm_cache_small", "max_pixels_unused"]
    assert len(RULES) > MOST


shares = st.none() | st.floats(0, 1)
numbers = st.floats(0, 1e9)


@given(
    st.builds(
        Past,
        requests=numbers,
        images=numbers,
        needed=numbers,
        repeated=numbers,
        avoided=numbers,
        gpu_utilization=st.dictionaries(st.sampled_from(["gpu0", "gpu1", "gpu2"]), st.floats(0, 1)),
        queued_idle_share=shares,
        host_cpu=shares,
        trust=shares,
        kv_most=shares,
        sizes=st.dictionaries(st.sampled_from(["0", "1-512", "8193+"]), numbers),
    )
)
def test_no_past_is_too_strange(past: Past) -> None:
    assert len(findings(past, SETUP)) <= MOST
    assert {each.name for each in fields(Past)} >= {"requests", "kv_most"}
