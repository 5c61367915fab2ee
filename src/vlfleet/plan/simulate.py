"""A fleet under load, event by event: what a closed form cannot tell (percentiles, bursts, caches that thrash)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

from vlfleet.plan.demand import Workload
from vlfleet.plan.operators import Operator, merged, total
from vlfleet.plan.simulate_replica import Measured, Replica
from vlfleet.plan.simulate_requests import Request, draw
from vlfleet.plan.speed import GPU, Percentiles, Setup, Speed


def simulate(setup: Setup, workload: Workload, requests: int = 2000, seed: int = 0) -> Speed:
    """What `requests` requests see, once the caches and the queues are filled. The same seed gives the same result.

    One of the replicas is simulated, with its share of the load; pictures of the working set always go to the same one.

    Raises:
        ValueError: a request is longer than the KV cache, so no engine would take it.
    """
    share = share_of(workload, setup.replicas)
    drawn = draw(share, setup.pictures(share), seed)
    known = 2 * share.working_set if share.repeated_share and share.media else 0
    skip = min(requests, max(20, 2 * (share.concurrency or 0), known))
    replica = Replica(setup)
    arrivals = None if share.request_rate is None else poisson(share.request_rate, seed)
    measured = replica.run(drawn, share.concurrency, arrivals, skip, until=skip + requests)
    busy = setup.replicas if share.concurrency is None else min(setup.replicas, workload.concurrency or 1)
    return speed_of(replica, measured, workload, busy)


def share_of(workload: Workload, replicas: int) -> Workload:
    """What one of the replicas gets of it."""
    if replicas <= 1:
        return workload
    concurrency, rate = workload.concurrency, workload.request_rate
    return replace(
        workload,
        concurrency=None if concurrency is None else max(1, round(concurrency / replicas)),
        request_rate=None if rate is None else rate / replicas,
        working_set=-(-workload.working_set // replicas),
    )


def poisson(rate: float, seed: int) -> Iterator[float]:
    """Moments at which requests come, without end."""
    random_state, now = random.Random(seed + 1), 0.0  # noqa: S311
    while True:
        now += random_state.expovariate(rate)
        yield now


def speed_of(replica: Replica, measured: Measured, workload: Workload, replicas: int = 1) -> Speed:
    """What was measured on one of `replicas` replicas that are all as busy."""
    answered = measured.requests
    rate = replicas * len(answered) / measured.seconds
    engine = replica.engine
    return Speed(
        requests_per_second=rate,
        images_per_second=rate * workload.media,
        output_tokens_per_second=rate * workload.output_tokens,
        ttft=Percentiles.of([request.ttft_seconds for request in answered]),
        tpot=Percentiles.of([request.tpot_seconds for request in answered]),
        within_slo=sum(_in_time(request, workload) for request in answered) / max(1, len(answered)),
        busy=measured.busy,
        operators=_of_one_request(measured),
        running=measured.running,
        encoder_hits=1 - engine.encoded / engine.images if engine.images else 0.0,
        prefix_hits=engine.found_tokens / engine.asked_tokens if engine.asked_tokens else 0.0,
        preemptions=engine.preemptions,
        simulated=True,
    )


def _in_time(request: Request, workload: Workload) -> bool:
    ttft, tpot = workload.ttft_p95_seconds, workload.tpot_p95_seconds
    return (ttft is None or request.ttft_seconds <= ttft) and (tpot is None or request.tpot_seconds <= tpot)


def _of_one_request(measured: Measured) -> tuple[Operator, ...]:
    """The sampled operators, scaled to the GPU's time for one request."""
    found = merged(measured.operators)
    seconds = measured.busy[GPU] * measured.seconds / max(1, len(measured.requests))
    scale = seconds / (total(found) or 1.0)
    return tuple(Operator(name, part * scale) for name, part in found)
