"""Samples made by hand, and GPUs that say what a test wants."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from vlfleet.fleet.replica import Replica
from vlfleet.gateway.engine_pages import EnginePages
from vlfleet.gateway.pool import Pool
from vlfleet.hardware.reading import GpuReading
from vlfleet.watch.histogram import Histogram
from vlfleet.watch.model import EngineSample, GatewaySample, HostSample, ReplicaSample, Sample, Traffic

GIB = 1 << 30
BOUNDS = (0.1, 0.5, 1.0, 5.0, 10.0)
WELL = Sample(
    at=1_800_000_000.0,
    monotonic=1000.0,
    host=HostSample(0.2, 64 * GIB, 20 * GIB, 1000 * GIB, 500 * GIB, 0, 0),
    gpus=tuple(
        GpuReading(
            index,
            "NVIDIA H200",
            utilization=0.6,
            memory_utilization=0.3,
            memory_bytes=140 * GIB,
            used_bytes=100 * GIB,
            temperature_celsius=55,
            power_watts=400.0,
            power_limit_watts=700.0,
            sm_clock_mhz=1900,
            throttle=frozenset(),
            ecc_uncorrected=0,
            rows_failed=False,
        )
        for index in range(4)
    ),
    replicas=tuple(
        ReplicaSample(
            f"r{index}",
            "ready",
            engine_name="vllm",
            gpus=(index,),
            started_at=1.0,
            engine=EngineSample(2, 0, 0.3, 0, 100, 1000, 1000, 100, 50, 1000, 100),
            engine_age_seconds=0.1,
            in_flight=2,
        )
        for index in range(4)
    ),
    gateway=GatewaySample(),
)
"""Four replicas on four GPUs, at work, and nothing is wrong."""


def times(*counts: float, total: float = 0.0) -> Histogram:
    """Observations in each bucket of BOUNDS."""
    return Histogram(BOUNDS, (*counts, *[0.0] * (len(BOUNDS) + 1 - len(counts))), total)


def with_gpu(sample: Sample, index: int, **facts: Any) -> Sample:
    return replace(sample, gpus=tuple(replace(g, **facts) if g.index == index else g for g in sample.gpus))


def with_replica(sample: Sample, name: str, **facts: Any) -> Sample:
    return replace(sample, replicas=tuple(replace(r, **facts) if r.name == name else r for r in sample.replicas))


def with_traffic(sample: Sample, name: str, **facts: Any) -> Sample:
    return with_replica(sample, name, traffic=Traffic(**facts))


def with_engine(sample: Sample, name: str, **facts: Any) -> Sample:
    replica = sample.replica(name)
    assert replica
    assert replica.engine
    return with_replica(sample, name, engine=replace(replica.engine, **facts))


@asynccontextmanager
async def engine_pages(replicas: Sequence[Replica]) -> AsyncIterator[EnginePages]:
    """What reads the engines' /metrics, as a gateway has it."""
    pool = Pool(1.0, 2.0)
    pages = EnginePages(replicas, pool)
    try:
        yield pages
    finally:
        await pages.close()
        pool.close()


class FakeGpus:
    """Says `gpus`, or hangs until `go` is set."""

    def __init__(self, *gpus: GpuReading) -> None:
        self.gpus = gpus
        self.go = threading.Event()
        self.go.set()
        self.reads = self.closed = 0

    def read(self) -> tuple[GpuReading, ...]:
        self.reads += 1
        assert self.go.wait(30)
        return self.gpus

    def close(self) -> None:
        self.closed += 1
