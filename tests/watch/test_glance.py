from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.watch.rig import BOUNDS, WELL, times, with_engine, with_gpu, with_traffic
from vlfleet.watch.alert import Alert, Book, Severity, Silence, _State
from vlfleet.watch.glance import MOST_REQUESTS, Flight, InHand, glance
from vlfleet.watch.histogram import Histogram
from vlfleet.watch.model import GatewaySample, HostSample, Sample
from vlfleet.watch.rates import counted, engine_counted, merged, share, span
from vlfleet.watch.window import Window

AT = 1_800_000_100.0
FLIGHT = Flight("abc", "r0", "streaming", 1.2, 1, 1280, 1, 0.4, 33, "holds it")


def told(*names: str, **facts: Any) -> dict[str, Any]:
    """What `facts_of` says of replicas of these names."""
    replicas = [
        {
            "name": name,
            "phase": "ready",
            "cordoned": False,
            "detail": "",
            "error": "",
            "adjusted": "",
            "engine": "vllm",
            "gpus": [index],
            "pid": 7,
            "port": 4001,
            "up_seconds": 812.0,
            "start_seconds": 44.1,
            "phases": {"load": 10.1},
            "decisions": {"kv_cache_tokens": 466032},
            "restarts": 0,
            "in_flight": 4,
            "served": 1290,
            **facts,
        }
        for index, name in enumerate(names)
    ]
    return {
        "fleet": "default",
        "status": "serving",
        "model": "/models/q",
        "served_model_name": "q",
        "engine": "vllm",
        "url": "http://127.0.0.1:8000/v1",
        "admin_url": "http://127.0.0.1:8001",
        "version": "0.1.0",
        "policy": "predicted",
        "started_at": 1.0,
        "ready": len(names),
        "replicas": replicas,
    }


def later(sample: Sample, seconds: float) -> Sample:
    return replace(sample, at=sample.at + seconds, monotonic=sample.monotonic + seconds)


def seen(*samples: Sample, book: Book | None = None, hand: InHand | None = None, facts: Any = None) -> dict[str, Any]:
    """The glance over these samples, as JSON has it."""
    window = Window(samples) if samples else None
    made = glance(facts or told("r0", "r1", "r2", "r3"), window, book or Book(), hand or InHand(), AT)
    return orjson.loads(orjson.dumps(made))  # type: ignore[no-any-return]


def test_before_anything_was_seen_nothing_is_made_up() -> None:
    made = seen()
    assert set(made["rates"].values()) == {None}
    assert set(made["queue"].values()) == set(made["host"].values()) == {None}
    assert (made["gpus"], made["requests"], made["alerts"]) == ([], [], [])
    (r0, *_) = made["replicas"]
    assert (r0["phase"], r0["served"], r0["kv_usage"], r0["requests_per_second"]) == ("ready", 1290, None, None)
    assert made["fleet"]["size"] == 4
    one = seen(WELL)
    assert set(one["rates"].values()) == {None}
    assert one["replicas"][0]["kv_usage"] == 0.3
    assert one["gpus"][0]["pcie_bytes_per_second"] is None


def test_rates_are_of_ten_seconds_and_percentiles_of_sixty() -> None:
    old = with_traffic(later(WELL, -60), "r0", answered=0, first_token=times(0, 0, 0, 0))
    mid = with_traffic(later(WELL, -10), "r0", answered=600, images=600, first_token=times(0, 100, 0))
    now = with_traffic(WELL, "r0", answered=632, images=630, saved_bytes=1000.0, first_token=times(0, 100, 10))
    now = with_engine(now, "r0", generation_tokens=5100)
    made = seen(old, mid, now)
    rates, r0 = made["rates"], made["replicas"][0]
    assert rates["seconds"] == 10
    assert rates["requests_per_second"] == r0["requests_per_second"] == 3.2
    assert rates["images_per_second"] == 3.0
    assert rates["bytes_not_sent_per_second"] == 100.0
    assert rates["generation_tokens_per_second"] == r0["generation_tokens_per_second"] == 410.0
    # 110 observations of a minute, 100 of them between 0.1 and 0.5 s
    assert rates["first_token_p50_seconds"] == pytest.approx(0.1 + 0.4 * 55 / 100)
    assert rates["first_token_p95_seconds"] == pytest.approx(0.5 + 0.5 * 4.5 / 10)
    assert made["replicas"][1]["requests_per_second"] == 0


def test_percentiles_come_from_merged_buckets() -> None:
    before, now = later(WELL, -60), WELL
    now = with_traffic(now, "r0", duration=times(90), looks_needed=3, looks_repeated=1, looks_avoided=6)
    now = with_traffic(now, "r1", duration=times(0, 0, 0, 0, 10), looks_avoided=0)
    rates = seen(before, now)["rates"]
    assert rates["duration_p50_seconds"] == pytest.approx(0.1 * 50 / 90)
    assert rates["duration_p95_seconds"] == pytest.approx(7.5)
    assert (rates["looks_avoided_share"], rates["looks_repeated_share"]) == (0.6, 0.1)


def test_a_new_process_counts_from_zero_and_one_that_was_not_seen_is_unknown() -> None:
    before, now = later(WELL, -10), with_engine(WELL, "r0", generation_tokens=50, mm_queries=10, mm_hits=4)
    r0 = seen(before, now)["replicas"][0]
    assert r0["generation_tokens_per_second"] == 5.0
    assert r0["mm_hit_share"] == 0.4
    gone = replace(WELL, replicas=tuple(replace(each, engine=None) for each in WELL.replicas))
    made = seen(before, gone)
    assert made["rates"]["generation_tokens_per_second"] is None
    assert made["replicas"][0]["running"] is None
    assert made["replicas"][0]["mm_hit_share"] is None


@pytest.mark.parametrize(("detail", "expected"), [("load", 0.4), ("adopted", None)])
def test_an_engine_that_was_starting_had_counted_nothing(detail: str, expected: float | None) -> None:
    starting = replace(later(WELL, -50).replicas[0], phase="starting", detail=detail, engine=None)
    before = replace(later(WELL, -50), replicas=(starting, *WELL.replicas[1:]))
    now = with_engine(WELL, "r0", mm_queries=10, mm_hits=4)
    assert seen(before, now)["replicas"][0]["mm_hit_share"] == expected


def test_prediction_is_compared_with_what_came() -> None:
    before = later(WELL, -60)
    now = with_traffic(WELL, "r0", predicted_first_token_seconds=5.25, first_token=times(0, 10, total=5.0))
    assert seen(before, now)["replicas"][0]["predicted_times_real"] == 1.05


def test_gpus_say_who_uses_them_and_what_a_driver_does_not_tell_is_null() -> None:
    facts = told("r0", "r1")
    facts["replicas"][0]["gpus"], facts["replicas"][1]["gpus"] = [0, 1], [1]
    before = with_gpu(later(WELL, -10), 0, pcie_sent_bytes=100, pcie_received_bytes=0)
    now = with_gpu(WELL, 0, pcie_sent_bytes=1100, pcie_received_bytes=500, throttle=frozenset({"hw_slowdown"}))
    now = with_gpu(now, 3, utilization=None, throttle=None, memory_bytes=None, fault="GPU is lost", mig=True)
    gpus = seen(before, now, facts=facts)["gpus"]
    assert [gpu["replicas"] for gpu in gpus] == [["r0"], ["r0", "r1"], [], []]
    assert (gpus[0]["pcie_bytes_per_second"], gpus[0]["nvlink_bytes_per_second"]) == (150.0, None)
    assert (gpus[0]["throttle"], gpus[1]["throttle"], gpus[3]["throttle"]) == (["hw_slowdown"], [], None)
    assert (gpus[3]["utilization"], gpus[3]["fault"], gpus[3]["mig"]) == (None, "GPU is lost", True)


def test_a_host_that_says_nothing_is_unknown() -> None:
    before = replace(later(WELL, -10), host=HostSample(0.2, 10, 5, 0, 0, 0, 100))
    now = replace(WELL, host=HostSample(0.5, 10, 6, 0, 0, 1000, 50))
    host = seen(before, now)["host"]
    assert (host["cpu"], host["used_bytes"], host["disk_free_bytes"]) == (0.5, 6, None)
    assert (host["sent_bytes_per_second"], host["received_bytes_per_second"]) == (100.0, 5.0)


def test_queue_requests_alerts_and_silences() -> None:
    alert = Alert("gpu_hot", "gpu0", Severity.WARNING, "88 C", "fans", 88.0, 86.0, AT - 9, "jo")
    silences = (Silence("gpu_*", "gpu0", AT + 60), Silence("old", "*", AT - 1), Silence("for_ever"))
    book = Book({alert.key: _State(alert=alert)}, silences)
    hand = InHand(120, [FLIGHT] * 120, {"r0": 5120}, {"r0": 210})
    now = replace(WELL, gateway=GatewaySample(3.0, 1.5, 2.0))
    made = seen(now, book=book, hand=hand)
    assert made["queue"] == {"requests": 3.0, "work_seconds": 1.5, "refused": 2.0}
    assert (len(made["requests"]), made["requests_total"]) == (MOST_REQUESTS, 120)
    assert made["requests"][0] == vars(FLIGHT)
    assert made["alerts"][0]["severity"] == "warning"
    assert (made["alerts"][0]["silenced"], made["alerts"][0]["acknowledged_by"]) == (True, "jo")
    assert [(each["code"], each["until"]) for each in made["silences"]] == [("gpu_*", AT + 60), ("for_ever", None)]
    r0, r1, *_ = made["replicas"]
    assert (r0["visual_tokens_in_flight"], r0["media_resident"]) == (5120, 210)
    assert (r1["visual_tokens_in_flight"], r1["media_resident"]) == (0, None)


def test_names_from_outside_are_only_data() -> None:
    hostile = '</script><img src=x onerror=alert(1)>\n\ndata: {"at":0}\u2028'
    facts = told(hostile, error=hostile, detail=hostile)
    facts["served_model_name"] = hostile
    text = orjson.dumps(glance(facts, Window((WELL,)), Book(), InHand(), AT))
    assert b"\n" not in text
    made = json.loads(text)
    assert made["replicas"][0]["name"] == made["fleet"]["served_model_name"] == hostile


@given(st.floats(0, 1e9), st.floats(0, 1e9), st.floats(0.01, 60))
def test_no_counter_makes_a_rate_negative(before: float, now: float, seconds: float) -> None:
    old = with_traffic(later(WELL, -seconds), "r0", answered=before)
    new = with_engine(with_traffic(WELL, "r0", answered=now), "r0", generation_tokens=now)
    made = span(Window((old, new)), 60)
    assert made
    r0 = new.replicas[0]
    assert counted(made, r0, "answered") >= 0
    assert (engine_counted(made, r0, "generation_tokens") or 0) >= 0


@given(st.lists(st.lists(st.integers(0, 9), min_size=6, max_size=6), max_size=5))
def test_merging_keeps_every_observation(counts: list[list[int]]) -> None:
    whole = merged(Histogram(BOUNDS, tuple(map(float, each))) for each in counts)
    assert whole.count == sum(map(sum, counts))


def test_shares() -> None:
    assert [share(1, 2), share(3, 2), share(None, 2), share(0, 0), share(1, None)] == [0.5, 1.0, None, None, None]


def test_a_thousand_replicas(capsys: pytest.CaptureFixture[str]) -> None:
    """A glance over a quarter of an hour of them, made each second while somebody looks, is no burden."""
    names = [f"r{index}" for index in range(1000)]
    one = replace(
        WELL.replicas[0],
        traffic=replace(WELL.replicas[0].traffic, first_token=times(1, 2, 3), duration=times(1, 2, 3), answered=6.0),
    )
    large = replace(WELL, replicas=tuple(replace(one, name=name) for name in names))
    window = Window(tuple(later(large, index - 60.0) for index in range(61)))
    facts, hand = told(*names), InHand(5000, [FLIGHT] * 100)
    began = time.process_time()
    text = orjson.dumps(glance(facts, window, Book(), hand, AT))
    seconds = time.process_time() - began
    with capsys.disabled():
        print(f"\n1,000 replicas: {seconds * 1000:.0f} ms of CPU, {len(text) / 1024:.0f} KiB")
    assert len(json.loads(text)["replicas"]) == 1000
    assert seconds < 1.0
