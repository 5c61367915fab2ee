"""A fleet of a thousand replicas: a look takes less than a second of the loop, and looks become fewer."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.watch.rig import WELL, FakeGpus, engine_pages
from tests.watch.test_readers import recorded
from tests.watch.test_sampler import replica
from vlfleet.fleet.replica import Phase
from vlfleet.watch import watcher as module
from vlfleet.watch.alert import Book, step
from vlfleet.watch.alerts import all_rules
from vlfleet.watch.engine_metrics import read_engine
from vlfleet.watch.gateway_metrics import read_gateway
from vlfleet.watch.measures_replica import _medians_of_others
from vlfleet.watch.model import ReplicaSample, Sample, Traffic
from vlfleet.watch.point import point
from vlfleet.watch.report import build
from vlfleet.watch.watcher import Watcher
from vlfleet.watch.window import Trail

MANY = 1000


def page() -> str:
    """The recorded page of the gateway, with as many replicas."""
    lines = recorded("gateway").splitlines()
    mine = [line for line in lines if 'replica="r0"' in line]
    others = [line for line in lines if 'replica="' not in line]
    return "\n".join([*others, *(line.replace('"r0"', f'"r{n}"') for n in range(MANY) for line in mine), ""])


def test_what_a_look_costs() -> None:
    """Of each part the least of three, as this machine may have other work."""
    text, engine = page(), recorded("vllm-0.32")
    gateway = read_gateway(text)
    assert len(gateway.traffic) == MANY
    one = replace(WELL.replicas[0], gpus=(), engine=read_engine(engine))
    trail, book, rules = Trail(), Book(), all_rules()
    costs: list[list[float]] = []
    for second in range(90):
        replicas = tuple(replace(one, name=f"r{n}", traffic=gateway.traffic[f"r{n}"]) for n in range(MANY))
        sample = replace(WELL, at=WELL.at + second, monotonic=second, gateway=gateway, replicas=replicas)
        before = trail.add(sample) if second < 87 else None
        if before:
            continue
        marks = [time.thread_time()]
        for _ in range(MANY // 50):
            read_engine(engine)
        marks.append(time.thread_time())
        window = trail.add(sample)
        book, _ = step(book, rules, window)
        marks.append(time.thread_time())
        found = point(sample, window.samples[-2])
        marks.append(time.thread_time())
        costs.append([(marks[1] - marks[0]) * 50, marks[2] - marks[1], marks[3] - marks[2]])
    pages, ruled, kept = (min(each) for each in zip(*costs, strict=True))
    print(f"{MANY} replicas: engines' pages {pages:.2f} s, rules {ruled:.2f} s, {len(found)} numbers {kept:.2f} s")
    assert len(found) < 64 * 20 + 100
    assert ruled + kept < 0.5, "these are at one go"
    assert pages + ruled + kept < 2, "others' work goes between the pages"


async def test_looks_become_fewer_and_the_loop_goes_on(tmp_path: Path) -> None:
    replicas = [replica(f"r{number}", 1) for number in range(MANY)]
    for each in replicas:
        each.phase = Phase.BACKOFF
    text, looks = page().encode(), 0

    def gateway() -> bytes:
        nonlocal looks
        looks += 1
        return text

    longest, last = 0.0, time.monotonic()
    async with (
        engine_pages(replicas) as pages,
        Watcher(replicas, gateway, lambda: pages, tmp_path, sinks=[], gpus=FakeGpus(), say=print) as watch,
    ):
        until = time.monotonic() + 4
        while (now := time.monotonic()) < until:
            longest, last = max(longest, now - last), now
            await asyncio.sleep(0.01)
        assert watch.latest
        assert len(watch.latest.replicas) == MANY
    print(f"the loop stood still for {longest:.2f} s at most")
    assert looks == 1, f"one in {module.SECONDS_A_REPLICA * MANY:g} s"
    assert longest < 1


def test_history_keeps_the_first_ones_and_the_rest_as_one() -> None:
    def state(second: int) -> Sample:
        def replica_of(number: int) -> ReplicaSample:
            return replace(
                WELL.replicas[0], name=f"r{number}", in_flight=4, traffic=Traffic(answered=second, images=3 * second)
            )

        return replace(WELL, monotonic=second, replicas=tuple(replica_of(number) for number in range(MANY)))

    found = point(state(2), state(1))
    assert len(found) < 64 * 20 + 100
    assert (found["r63|images+"], "r64|images+" in found) == (3, False)
    assert (found["others|answered+"], found["others|images+"]) == (936, 936 * 3)
    assert found["others|in_flight"] == 4
    assert found["others|kv"] == pytest.approx(0.3)
    assert not [name for name in found if name.endswith("^")]
    report = build("f", 0, 60, 1, [(1, found)], [])
    assert report.figures["requests"] == MANY
    assert next(iter(report.replicas)) == "others"


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1e6), min_size=2, max_size=9))
def test_the_median_of_the_others(values: dict[str, float]) -> None:
    found = _medians_of_others(values)
    for name in values:
        others = median(value for other, value in values.items() if other != name)
        assert abs(found[name] - others) <= 1e-9 * max(1.0, others)
