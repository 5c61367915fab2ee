"""The gateway's histograms say what prometheus_client's say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from vlfleet.gateway.durations import Durations
from vlfleet.watch.gateway_metrics import SECONDS

SOME = st.lists(st.tuples(st.sampled_from(["r0", "r1"]), st.sampled_from([0.0, 0.005, 0.02, 1, 3.5, 640, 1e4])))


def told(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {
        (each.name, frozenset(each.labels.items())): each.value
        for each in samples
        if not each.name.endswith("_created")
    }


@given(SOME)
def test_by_replica(observed: list[tuple[str, float]]) -> None:
    theirs = CollectorRegistry()
    mine = Durations("vlfleet:x_seconds", "Some.", SECONDS, label="replica")
    histogram = Histogram("vlfleet:x_seconds", "Some.", ("replica",), registry=theirs, buckets=SECONDS)
    for replica, seconds in observed:
        mine.observe(seconds, replica)
        histogram.labels(replica).observe(seconds)
    assert told(mine.text()) == told(generate_latest(theirs).decode())


@given(SOME)
def test_of_all_together(observed: list[tuple[str, float]]) -> None:
    theirs = CollectorRegistry()
    mine = Durations("vlfleet:x_seconds", "Some.", SECONDS)
    histogram = Histogram("vlfleet:x_seconds", "Some.", registry=theirs, buckets=SECONDS)
    for _, seconds in observed:
        mine.observe(seconds)
        histogram.observe(seconds)
    assert told(mine.text()) == told(generate_latest(theirs).decode())
    assert [each.type for each in text_string_to_metric_families(mine.text())] == ["histogram"]
