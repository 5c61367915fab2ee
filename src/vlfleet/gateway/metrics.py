"""What the gateway counts, in Prometheus' text format. Names begin with `vlfleet:`, as vLLM's begin with `vllm:`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from vlfleet.fleet.replica import Replica
from vlfleet.gateway.durations import Durations
from vlfleet.gateway.inspection import Ask
from vlfleet.gateway.route.gate import Gate
from vlfleet.gateway.route.router import Router
from vlfleet.watch.gateway_metrics import SECONDS
from vlfleet.watch.sizes import size_of

OVERHEAD_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1)
REFUSALS = ("deadline", "overloaded", "too_many_waiting")
"""Why a request may not wait: codes of the gate."""
CLIENT_LEFT = 499
"""The code under which a request is counted whose client did not wait (nginx's)."""

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter, which nobody reads


class ReplicaCollector(Collector):
    """The replicas' own records, read when somebody asks."""

    def __init__(self, replicas: Sequence[Replica]) -> None:
        self.replicas = replicas

    def collect(self) -> Iterator[Metric]:
        one = ["replica"]
        info = GaugeMetricFamily("vlfleet:replica_info", "What it is: 1.", labels=["replica", "engine", "gpus"])
        phase = GaugeMetricFamily("vlfleet:replica_phase", "1 for the one it is in.", labels=["replica", "phase"])
        ready = GaugeMetricFamily("vlfleet:replica_ready", "1 when it takes requests.", labels=one)
        cordoned = GaugeMetricFamily("vlfleet:replica_cordoned", "1 when taken out of rotation by hand.", labels=one)
        restarts = CounterMetricFamily("vlfleet:replica_restarts", "Starts after a death.", labels=one)
        in_flight = GaugeMetricFamily("vlfleet:requests_in_flight", "Sent and not finished.", labels=one)
        work = GaugeMetricFamily("vlfleet:outstanding_work_tokens", "Their predicted tokens.", labels=one)
        for replica in self.replicas:
            gpus = ",".join(map(str, replica.placement.gpus))
            info.add_metric([replica.name, replica.engine, gpus], 1)
            phase.add_metric([replica.name, replica.phase.value], 1)
            ready.add_metric([replica.name], replica.in_rotation)
            cordoned.add_metric([replica.name], replica.cordoned)
            restarts.add_metric([replica.name], replica.restarts)
            in_flight.add_metric([replica.name], replica.in_flight)
            work.add_metric([replica.name], replica.outstanding_work)
        yield from (info, phase, ready, cordoned, restarts, in_flight, work)


class RouteCollector(Collector):
    """What the route knows of each replica, and the queue before them, read when somebody asks."""

    def __init__(self, router: Router, gate: Gate) -> None:
        self.router, self.gate = router, gate

    def collect(self) -> Iterator[Metric]:
        yield from self._replicas()
        queue = self.gate.queue
        yield GaugeMetricFamily("vlfleet:queue_requests", "That wait at the gateway.", len(queue))
        yield GaugeMetricFamily("vlfleet:queue_visual_tokens", "Of requests that wait.", queue.visual_tokens)
        yield GaugeMetricFamily("vlfleet:queue_work_seconds", "Predicted work of requests that wait.", queue.seconds)
        yield GaugeMetricFamily("vlfleet:fleet_pace", "Predicted seconds of work done in a second.", self.gate.pace)
        refused = CounterMetricFamily("vlfleet:queue_refused", "Requests that could not wait.", labels=["code"])
        for code, number in (dict.fromkeys(REFUSALS, 0) | self.gate.refusals).items():
            refused.add_metric([code], number)
        yield refused

    def _replicas(self) -> Iterator[Metric]:
        one = ["replica"]
        held = GaugeMetricFamily("vlfleet:media_resident", "Media that its processor cache holds.", labels=one)
        looks = CounterMetricFamily(
            "vlfleet:encoder_runs",
            "Media of requests: looked at since no replica held them (needed), or since another did (repeated), "
            "or not looked at since this one did (avoided).",
            labels=["replica", "how"],
        )
        work = CounterMetricFamily("vlfleet:work_seconds", "Predicted, of all requests sent there.", labels=one)
        error = GaugeMetricFamily(
            "vlfleet:prediction_error_ratio", "Usual error of predicted first tokens.", labels=one
        )
        trust = GaugeMetricFamily(
            "vlfleet:cache_trust_ratio",
            "Of its cache, the share that the route counts on.",
            labels=["replica", "cache"],
        )
        for name, tracker in self.router.trackers.items():
            held.add_metric([name], len(tracker.mirror.processor))
            work.add_metric([name], tracker.work_seconds)
            error.add_metric([name], tracker.learner.error)
            trust.add_metric([name, "mm"], tracker.mirror.processor.share)
            trust.add_metric([name, "prefix"], tracker.mirror.prefix.share)
            for how, number in vars(self.router.looks[name]).items():
                looks.add_metric([name, how], number)
        yield from (held, looks, work, error, trust)


class Metrics:
    """The gateway's counters; one registry an application, so that two in one process stay apart."""

    def __init__(self, replicas: Sequence[Replica]) -> None:
        registry = self.registry = CollectorRegistry()
        self._all_durations: list[Durations] = []
        registry.register(ReplicaCollector(replicas))
        by_replica = ("replica",)
        self.requests = Counter(
            "vlfleet:requests",
            "Requests answered, by status and replica (none when it was refused before).",
            ("code", "replica"),
            registry=registry,
        )
        self._over: dict[tuple[int, str], Counter] = {}
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
        self.time_to_first_token = self._durations(
            "vlfleet:time_to_first_token_seconds",
            "From the request's last byte to the stream's first event.",
            SECONDS,
            label="replica",
        )
        self.duration = self._durations(
            "vlfleet:request_duration_seconds",
            "From the request's last byte to the answer's.",
            SECONDS,
            label="replica",
        )
        self.first_token_by_size = self._durations(
            "vlfleet:time_to_first_token_by_size_seconds",
            "The same, by visual tokens of the request.",
            SECONDS,
            label="visual_tokens",
        )
        self.duration_by_size = self._durations(
            "vlfleet:request_duration_by_size_seconds",
            "From the request's last byte to the answer's, of requests answered, by their visual tokens.",
            SECONDS,
            label="visual_tokens",
        )
        self.overhead = self._durations(
            "vlfleet:gateway_overhead_seconds",
            "From the request's last byte until it is sent to a replica.",
            OVERHEAD_SECONDS,
        )

        self.images = Counter(
            "vlfleet:images", "Pictures and videos of requests that were answered.", by_replica, registry=registry
        )
        self.visual_tokens = Counter(
            "vlfleet:visual_tokens", "Of requests that were answered.", by_replica, registry=registry
        )
        self.queue_seconds = self._durations(
            "vlfleet:queue_wait_seconds",
            "From the request's last byte until it might go to a replica.",
            SECONDS,
        )

        counted = (self.retries, self.broken_streams, self.media_missed, self.saved_bytes, self.predicted_first_token)
        for replica in replicas:  # who has no zero has no first increase, as Prometheus sees it
            for counter in (*counted, self.images, self.visual_tokens):
                counter.labels(replica.name)
            for how in ("held", "sent"):
                self.media.labels(replica.name, how)

    def _durations(self, name: str, documentation: str, bounds: Sequence[float], label: str = "") -> Durations:
        made = Durations(name, documentation, bounds, label=label)
        self._all_durations.append(made)
        return made

    def watch(self, router: Router, gate: Gate) -> None:
        """What these know is told, too."""
        self.registry.register(RouteCollector(router, gate))

    def over(self, code: int, replica: str, started: float) -> None:
        """A request that began at `started` of `time.perf_counter()` got this status; `replica` is empty where none was
        asked."""
        counter = self._over.get((code, replica))
        if counter is None:
            counter = self._over[code, replica] = self.requests.labels(str(code), replica)
        counter.inc()
        self.duration.since(started, replica)

    def first_token(self, replica: str, ask: Ask, started: float) -> None:
        """A stream of `replica` begins now."""
        seconds = time.perf_counter() - started
        self.time_to_first_token.observe(seconds, replica)
        self.first_token_by_size.observe(seconds, size_of(ask.features.visual_tokens))

    def sent_media(self, replica: str, media: int, left_out: int, saved_bytes: int) -> None:
        """A request with so many media went to `replica`, which holds some: these were left out."""
        if media:
            if left_out:
                self.media.labels(replica, "held").inc(left_out)
                self.saved_bytes.labels(replica).inc(saved_bytes)
            if media > left_out:
                self.media.labels(replica, "sent").inc(media - left_out)

    def answered(self, replica: str, ask: Ask, started: float) -> None:
        """`replica` has answered."""
        tokens = ask.features.visual_tokens
        self.duration_by_size.since(started, size_of(tokens))
        if ask.pictures:
            self.images.labels(replica).inc(ask.pictures)
            self.visual_tokens.labels(replica).inc(tokens)

    def text(self) -> bytes:
        return generate_latest(self.registry) + "".join(each.text() for each in self._all_durations).encode()
