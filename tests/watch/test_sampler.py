from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from tests.fakes import engine as fake
from tests.watch.rig import FakeGpus, engine_pages
from tests.watch.test_readers import recorded
from vlfleet.engine.launch import Placement
from vlfleet.fleet.replica import Phase, Replica
from vlfleet.hardware.reading import GpuReading
from vlfleet.watch import sampler as module
from vlfleet.watch.host import HostReader
from vlfleet.watch.sampler import Sampler

KEY = "engine-key"
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def replica(name: str, port: int, phase: Phase = Phase.READY) -> Replica:
    return Replica(name, port, KEY, "fake", phase=phase, started_at=1.0, placement=Placement((0,)))


@asynccontextmanager
async def page(answer: Answer) -> AsyncIterator[int]:
    """A server whose /metrics is `answer`; its port."""
    app = web.Application()
    app.router.add_get("/metrics", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


@asynccontextmanager
async def sampler(replicas: list[Replica], folder: Path, gpus: FakeGpus | None = None) -> AsyncIterator[Sampler]:
    gateway = lambda: recorded("gateway").encode()  # noqa: E731
    async with engine_pages(replicas) as pages:
        made = Sampler(replicas, gateway, lambda: pages, gpus or FakeGpus(), HostReader(folder))
        try:
            yield made
        finally:
            made.close()


async def test_a_fleet(tmp_path: Path) -> None:
    gpus = FakeGpus(GpuReading(0, utilization=0.5))
    async with fake.serve(fake.Behaviour(key=KEY)) as one, fake.serve(fake.Behaviour(key=KEY)) as other:
        replicas = [replica("r0", one.port), replica("r1", other.port), replica("r2", 1, Phase.BACKOFF)]
        replicas[1].in_flight = 3
        async with sampler(replicas, tmp_path, gpus) as made:
            one.seen.finished = 5
            sample = await made.sample(5)
    r0, r1, r2 = sample.replicas
    assert r0.engine
    assert (r0.engine.finished, r0.gpus, r0.traffic.images) == (5, (0,), 6)
    assert (r1.in_flight, r1.traffic.images) == (3, 1)
    assert (r2.phase, r2.engine, r2.engine_age_seconds) == ("backoff", None, None)
    assert sample.gpus == gpus.gpus
    assert sample.host.memory_bytes > 0
    assert abs(sample.at - time.time()) < 5
    assert gpus.closed == 1


async def test_an_engine_that_does_not_answer_keeps_what_it_said_and_grows_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FRESH_SECONDS", 0.0)
    stop = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        if stop.is_set():
            await asyncio.sleep(1.5)
        return web.Response(text="vllm:num_requests_running 7\n")

    async with page(answer) as port, sampler([replica("r0", port)], tmp_path) as made:
        first = (await made.sample(5)).replicas[0]
        stop.set()
        began = time.monotonic()
        await made.sample(0.1)
        later = (await made.sample(0.2)).replicas[0]
        assert time.monotonic() - began < 1, "nobody waits for it"
    assert first.engine == later.engine
    assert first.engine_age_seconds is not None
    assert later.engine_age_seconds is not None
    assert later.engine_age_seconds >= first.engine_age_seconds + 0.2


async def test_a_new_process_has_said_nothing_yet(tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(text="vllm:num_requests_running 7\n")

    async with page(answer) as port:
        one = replica("r0", port)
        async with sampler([one], tmp_path) as made:
            assert (await made.sample(5)).replicas[0].engine
            one.started_at, one.port = 2.0, 1
            assert (await made.sample(5)).replicas[0].engine is None


async def test_a_driver_that_hangs_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DRIVER_SECONDS", 0.3)
    gpus = FakeGpus(GpuReading(0, utilization=0.5))
    async with sampler([], tmp_path, gpus) as made:
        assert (await made.sample(5)).gpus[0].utilization == 0.5
        gpus.go.clear()
        began = time.monotonic()
        for _ in range(3):
            sample = await made.sample(0.2)
        assert time.monotonic() - began < 2
        assert sample.gpus[0].fault.startswith("no answer")
        assert sample.gpus[0].utilization is None
        assert gpus.reads == 2, "it is not asked again before it has answered"
    assert gpus.closed == 0
    gpus.go.set()


async def test_a_driver_whose_library_breaks(tmp_path: Path) -> None:
    class Broken(FakeGpus):
        def read(self) -> tuple[GpuReading, ...]:
            raise RuntimeError("no such symbol")

    async with sampler([], tmp_path, Broken()) as made:
        assert (await made.sample(5)).gpus == ()


async def test_a_thousand_replicas_that_are_gone(tmp_path: Path) -> None:
    replicas = [replica(f"r{number}", 1) for number in range(1000)]
    async with sampler(replicas, tmp_path) as made:
        sample = await made.sample(0.2)
    assert len(sample.replicas) == 1000
