"""vLLM's counters of its steps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlfleet.calibrate.counters import Sample, sample, step_seconds
from vlfleet.errors import VlfleetError

METRICS = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 64.0
vllm:inter_token_latency_seconds_bucket{engine="0",le="0.01",model_name="m"} 640.0
vllm:inter_token_latency_seconds_count{engine="0",model_name="m"} 640.0
vllm:inter_token_latency_seconds_sum{engine="0",model_name="m"} 1.5
vllm:inter_token_latency_seconds_created{engine="0",model_name="m"} 1.7e+09
"""


def test_sample() -> None:
    assert sample(METRICS) == Sample(seconds=1.5, tokens=640.0, running=64.0)


def test_an_engine_that_does_not_count_is_named() -> None:
    with pytest.raises(VlfleetError, match="no vllm:inter_token_latency_seconds_sum"):
        sample("vllm:num_requests_running 1\n")


@given(st.integers(1, 256), st.floats(1e-4, 1.0), st.integers(5, 50), st.integers(0, 20))
def test_steps_with_fewer_requests_do_not_count(batch: int, seconds: float, steps: int, others: int) -> None:
    """Slow steps before and after, while requests come and go."""
    samples, spent, tokens = [Sample(0.0, 0.0, 0.0)], 0.0, 0
    for running, each, many in ((1, 9.0, others), (batch, seconds, steps), (1, 9.0, others)):
        for step in range(many):
            spent, tokens = spent + each * running, tokens + running
            if running == batch > 1 or step == many - 1:
                samples.append(Sample(spent, tokens, running))
    if batch > 1:
        assert step_seconds(samples, batch) == pytest.approx(seconds)


def test_a_short_run_counts_as_a_whole() -> None:
    samples = [Sample(0.0, 0, 0), Sample(0.2, 10, 2), Sample(0.4, 20, 0)]
    assert step_seconds(samples, 2) == pytest.approx(0.02)
    with pytest.raises(VlfleetError, match="too few tokens with 2"):
        step_seconds(samples[:1], 2)
