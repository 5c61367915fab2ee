from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from vlfleet.gateway.durations import Durations
from vlfleet.watch.engine_metrics import read_engine
from vlfleet.watch.exposition import read
from vlfleet.watch.gateway_metrics import read_gateway
from vlfleet.watch.histogram import EMPTY, from_cumulative
from vlfleet.watch.host import HostReader
from vlfleet.watch.sizes import SIZES, size_of

RECORDED = Path(__file__).parent / "recorded"


def recorded(name: str) -> str:
    return (RECORDED / f"{name}.txt").read_text()


def test_vllm_032() -> None:
    engine = read_engine(recorded("vllm-0.32"))
    assert (engine.running, engine.waiting, engine.kv_usage, engine.preemptions) == (0, 0, 0, 0)
    assert (engine.finished, engine.prompt_tokens, engine.generation_tokens) == (8, 1521, 287)
    assert (engine.mm_queries, engine.mm_hits, engine.prefix_queries, engine.prefix_hits) == (7, 4, 1521, 512)
    assert engine.first_token.count == 8
    assert engine.first_token.sum == pytest.approx(2.86994)
    assert engine.inter_token.count == 287 - 8
    assert engine.broken == ()


def test_the_embedded_engine_has_no_preemptions_and_no_prefix_cache() -> None:
    engine = read_engine(recorded("embedded"))
    assert (engine.finished, engine.prompt_tokens, engine.generation_tokens) == (7, 1282, 285)
    assert (engine.mm_queries, engine.mm_hits, engine.prefix_queries, engine.preemptions) == (6, 3, None, None)
    assert engine.first_token.count == 7


def test_the_gateway() -> None:
    gateway = read_gateway(recorded("gateway"))
    r0, r1 = gateway.traffic["r0"], gateway.traffic["r1"]
    assert set(gateway.traffic) == {"r0", "r1"}
    assert (r0.answered, r0.failed, r0.images, r0.visual_tokens) == (6, 0, 6, 960)
    assert (r0.looks_needed, r0.looks_repeated, r0.looks_avoided, r0.mm_trust) == (2, 1, 3, 1)
    assert (r1.answered, r1.images, r1.media_sent) == (1, 1, 1)
    assert r0.first_token.count == 1
    assert r0.predicted_first_token_seconds == pytest.approx(0.0232019)
    assert r0.duration.plus(r1.duration).count == 7
    assert gateway.overhead.count == 7
    assert (gateway.queue_requests, gateway.refused, gateway.refused_before) == (0, 0, 0)


def test_the_gateways_failures_are_told_apart() -> None:
    lines = [("200", "r0", 5), ("400", "r0", 2), ("499", "r0", 9), ("502", "r0", 3), ("503", "", 4), ("429", "", 7)]
    text = "\n".join(f'vlfleet:requests_total{{code="{code}",replica="{name}"}} {n}' for code, name, n in lines)
    gateway = read_gateway(text)
    assert (gateway.traffic["r0"].answered, gateway.traffic["r0"].failed) == (7, 3)
    assert gateway.refused_before == 4
    assert set(gateway.traffic) == {"r0"}


def test_times_by_the_size_of_pictures() -> None:
    times = Durations("vlfleet:request_duration_by_size_seconds", "?", (1, 5), label="visual_tokens")
    for tokens, seconds in ((0, 0.5), (300, 3.0), (512, 4.0), (513, 6.0), (90_000, 9.0)):
        times.observe(seconds, size_of(tokens))
    found = read_gateway(times.text()).duration_by_size
    assert {size: each.counts for size, each in found.items()} == {
        "0": (1, 0, 0),
        "1-512": (0, 2, 0),
        "513-2048": (0, 0, 1),
        "8193+": (0, 0, 1),
    }
    assert found["1-512"].sum == 7
    assert [size_of(tokens) for tokens in (1, 2048, 2049, 8192, 8193)] == [SIZES[n] for n in (1, 2, 3, 3, 4)]


def test_several_engines_behind_one_port_are_summed_but_for_the_fullest_cache() -> None:
    text = "\n".join(
        f'vllm:{name}{{engine="{engine}"}} {value}'
        for name, values in {"num_requests_running": (3, 4), "kv_cache_usage_perc": (0.25, 0.75)}.items()
        for engine, value in enumerate(values)
    )
    engine = read_engine(text)
    assert (engine.running, engine.kv_usage) == (7, 0.75)


@pytest.mark.parametrize("value", ["NaN", "-1", "+Inf", "-Inf"])
def test_a_value_that_cannot_be_is_named_and_left_out(value: str) -> None:
    engine = read_engine(f'vllm:num_requests_running{{engine="0"}} {value}\nvllm:num_requests_waiting 2\n')
    assert engine.broken == ("vllm:num_requests_running",)
    assert (engine.running, engine.waiting) == (None, 2)


def test_a_cache_that_is_more_than_full_and_a_histogram_that_shrinks_are_lies() -> None:
    shrinking = [("0.1", 5), ("1.0", 3), ("+Inf", 9)]
    text = "vllm:kv_cache_usage_perc 1.7\n" + "\n".join(
        f'vllm:time_to_first_token_seconds_bucket{{le="{le}"}} {n}' for le, n in shrinking
    )
    engine = read_engine(text)
    assert engine.broken == ("vllm:kv_cache_usage_perc", "vllm:time_to_first_token_seconds")
    assert engine.first_token == EMPTY


@given(st.text(max_size=400))
def test_no_text_is_too_strange(text: str) -> None:
    read_engine(text)
    read_gateway(text)
    read_engine("vllm:num_requests_running{" + text)


@given(st.text(max_size=30), st.floats(0, 1e12))
def test_what_prometheus_client_writes_is_read(label: str, value: float) -> None:
    registry = CollectorRegistry()
    Gauge("vllm:num_requests_running", "?", ("model_name",), registry=registry).labels(label).set(value)
    Counter("vllm:prompt_tokens", "?", ("model_name",), registry=registry).labels(label).inc(value)
    times = Histogram("vllm:time_to_first_token_seconds", "?", ("model_name",), registry=registry, buckets=(1, 5))
    times.labels(label).observe(value)
    text = generate_latest(registry).decode()
    engine = read_engine(text)
    if len(text.splitlines()) == len(text.split("\n")) - 1:
        assert (engine.running, engine.prompt_tokens) == (value, value)
        assert engine.first_token.count == 1
        assert next(iter(read(text, ("vllm:num_requests_running",)))).labels == {"model_name": label}


def test_percentiles_are_those_of_promql() -> None:
    histogram = from_cumulative({0.1: 10, 0.5: 50, 1.0: 90, float("inf"): 100}, 60.0)
    assert histogram.quantile(0.5) == pytest.approx(0.5)
    assert histogram.quantile(0.05) == pytest.approx(0.05)
    assert histogram.quantile(0.7) == pytest.approx(0.75)
    assert histogram.quantile(0.99) == 1.0, "of the last bucket only the lower end is known"
    assert histogram.above(0.5) == 50
    assert EMPTY.quantile(0.5) is None
    with pytest.raises(ValueError, match="without"):
        from_cumulative({1.0: 1}, 0)


counts = st.lists(st.integers(0, 1000), min_size=4, max_size=4)


@given(counts, counts)
def test_what_comes_after_is_what_was_added(first: list[int], more: list[int]) -> None:
    bounds = (1.0, 2.0, 3.0)
    earlier, added = EMPTY, EMPTY
    earlier = type(EMPTY)(bounds, tuple(map(float, first)), 5.0)
    added = type(EMPTY)(bounds, tuple(map(float, more)), 7.0)
    assert earlier.plus(added).since(earlier) == added


def test_a_process_that_began_anew_has_no_negative_counts() -> None:
    old = from_cumulative({1.0: 50, float("inf"): 60}, 9.0)
    new = from_cumulative({1.0: 3, float("inf"): 4}, 1.0)
    assert new.since(old) == new


def test_this_host(tmp_path: Path) -> None:
    host = HostReader(tmp_path).read()
    assert 0 < host.used_bytes < host.memory_bytes
    assert 0 < host.disk_free_bytes <= host.disk_bytes
    assert host.cpu is not None
    assert HostReader(tmp_path / "gone").read().disk_bytes == 0


def test_a_container_counts_its_limit_and_not_its_page_cache(tmp_path: Path) -> None:
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text(f"{1 << 30}\n")
    (group / "memory.current").write_text(f"{900 << 20}\n")
    (group / "memory.stat").write_text(f"anon 5\ninactive_file {400 << 20}\n")
    host = HostReader(tmp_path, tmp_path).read()
    assert (host.memory_bytes, host.used_bytes) == (1 << 30, 500 << 20)
