"""The engine's metrics, under vLLM's names, labels and buckets (vllm/v1/metrics/loggers.py, 0.33)."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from vlfleet.engine.embedded.encoder_cache import EncoderCache

_LABELS = ("model_name", "engine")
_TTFT = (
    0.001,
    0.005,
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.1,
    0.25,
    0.5,
    0.75,
    1,
    2.5,
    5,
    7.5,
    10,
    20,
    40,
    80,
    160,
    640,
    2560,
)
_TPOT = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
_E2E = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680)


class Metrics:
    """One engine's counters. Written by the scheduler's thread and read by the server's."""

    def __init__(self, model_name: str, encoder_cache: EncoderCache) -> None:
        self.registry = CollectorRegistry()
        label = (model_name, "0")

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"vllm:{name}", text, _LABELS, registry=self.registry).labels(*label)

        def counter(name: str, text: str) -> Counter:
            return Counter(f"vllm:{name}", text, _LABELS, registry=self.registry).labels(*label)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"vllm:{name}", text, _LABELS, buckets=buckets, registry=self.registry).labels(*label)

        self.running = gauge("num_requests_running", "Requests being decoded.")
        self.waiting = gauge("num_requests_waiting", "Requests that wait for a place.")
        self.kv_usage = gauge("kv_cache_usage_perc", "Share of the key-value cache in use, 0 to 1.")
        self.prompt_tokens = counter("prompt_tokens", "Prompt tokens read.")
        self.generation_tokens = counter("generation_tokens", "Tokens generated.")
        self.ttft = histogram("time_to_first_token_seconds", "From arrival to the first token.", _TTFT)
        self.inter_token = histogram("inter_token_latency_seconds", "Between two tokens of an answer.", _TPOT)
        self.e2e = histogram("e2e_request_latency_seconds", "From arrival to the last token.", _E2E)
        self.queue = histogram("request_queue_time_seconds", "From arrival to the start of prefill.", _E2E)
        self.prefill = histogram("request_prefill_time_seconds", "Vision tower and prompt.", _E2E)
        self.decode = histogram("request_decode_time_seconds", "From the first token to the last.", _E2E)
        self._success = Counter(
            "vllm:request_success", "Requests finished.", (*_LABELS, "finished_reason"), registry=self.registry
        )
        self._label = label
        self.registry.register(_MediaCounters(encoder_cache, label))

    def finished(self, reason: str) -> None:
        """Count one finished request: stop, length, abort or error."""
        self._success.labels(*self._label, reason).inc()

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.registry)


class _MediaCounters(Collector):
    """Reads the encoder cache when it is asked, instead of being told at every look-up."""

    def __init__(self, encoder_cache: EncoderCache, label: tuple[str, str]) -> None:
        self._cache, self._label = encoder_cache, label

    def collect(self) -> Iterable[Metric]:
        for name, text, value in (
            ("mm_cache_queries", "Media looked up.", self._cache.queries),
            ("mm_cache_hits", "Media that the vision tower need not see again.", self._cache.hits),
        ):
            family = CounterMetricFamily(f"vllm:{name}", text, labels=_LABELS)
            family.add_metric(self._label, value)
            yield family
