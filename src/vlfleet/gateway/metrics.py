"""What the gateway counts, in Prometheus' text format. Names begin with `vlfleet:`, as vLLM's begin with `vllm:`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from vlfleet.fleet.replica import Phase, Replica

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640)
"""Buckets for times of the engine; vLLM's own go to the same order of magnitude."""
OVERHEAD_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1)
CLIENT_LEFT = 499
"""The code under which a request is counted whose client did not wait (nginx's)."""


class ReplicaCollector(Collector):
    """The replicas' own records, read when somebody asks."""

    def __init__(self, replicas: Sequence[Replica]) -> None:
        self.replicas = replicas

    def collect(self) -> Iterator[Metric]:
        ready = GaugeMetricFamily("vlfleet:replica_ready", "1 when it takes requests.", labels=["replica"])
        in_flight = GaugeMetricFamily("vlfleet:requests_in_flight", "Sent and not finished.", labels=["replica"])
        work = GaugeMetricFamily("vlfleet:outstanding_work_tokens", "Their predicted tokens.", labels=["replica"])
        for replica in self.replicas:
            ready.add_metric([replica.name], replica.phase is Phase.READY)
            in_flight.add_metric([replica.name], replica.in_flight)
            work.add_metric([replica.name], replica.outstanding_work)
        yield from (ready, in_flight, work)


class Metrics:
    """The gateway's counters; one registry an application, so that two in one process stay apart."""

    def __init__(self, replicas: Sequence[Replica]) -> None:
        registry = self.registry = CollectorRegistry()
        registry.register(ReplicaCollector(replicas))
        by_replica = ("replica",)
        self.requests = Counter(
            "vlfleet:requests",
            "Requests answered, by status and replica (none when it was refused before).",
            ("code", "replica"),
            registry=registry,
        )
        self.retries = Counter(
            "vlfleet:retries", "Requests sent again, by the replica that failed.", by_replica, registry=registry
        )
        self.broken_streams = Counter(
            "vlfleet:broken_streams", "Streams that died after their first byte.", by_replica, registry=registry
        )
        self.media = Counter(
            "vlfleet:media",
            "Pictures and videos of requests: held by the replica and named without data, or sent.",
            ("replica", "how"),
            registry=registry,
        )
        self.media_missed = Counter(
            "vlfleet:media_missed",
            "Requests sent again since the replica lacked a medium.",
            by_replica,
            registry=registry,
        )
        self.saved_bytes = Counter(
            "vlfleet:media_saved_bytes", "Of media that were not sent.", by_replica, registry=registry
        )
        self.predicted_first_token = Counter(
            "vlfleet:predicted_first_token_seconds",
            "Sum of what the route predicted for streams; compare with time_to_first_token_seconds_sum.",
            by_replica,
            registry=registry,
        )
        self.time_to_first_token = Histogram(
            "vlfleet:time_to_first_token_seconds",
            "From the request's last byte to the stream's first event.",
            by_replica,
            registry=registry,
            buckets=SECONDS,
        )
        self.duration = Histogram(
            "vlfleet:request_duration_seconds",
            "From the request's last byte to the answer's.",
            by_replica,
            registry=registry,
            buckets=SECONDS,
        )
        self.overhead = Histogram(
            "vlfleet:gateway_overhead_seconds",
            "From the request's last byte until it is sent to a replica.",
            registry=registry,
            buckets=OVERHEAD_SECONDS,
        )

    def text(self) -> bytes:
        return generate_latest(self.registry)
