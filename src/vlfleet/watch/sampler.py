"""Looks at a fleet: its machine, GPUs, replicas and gateway. Whatever cannot be seen is missing from the sample."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

import aiohttp

from vlfleet.fleet.replica import Phase, Replica
from vlfleet.hardware.reading import GpuReading
from vlfleet.watch.engine_metrics import read_engine
from vlfleet.watch.gateway_metrics import read_gateway
from vlfleet.watch.host import HostReader
from vlfleet.watch.model import EngineSample, GatewaySample, HostSample, ReplicaSample, Sample, Traffic

TIMEOUT_SECONDS = 2.0
"""For one engine's /metrics; a busy engine answers later than a second at times."""
MOST_BYTES = 4 << 20
"""vLLM 0.32 with one model has 60 KB of metrics; what is longer is not read."""
AT_ONCE = 32
"""Engines that are asked at the same time."""
DRIVER_SECONDS = 10.0
"""After which what a driver said last is no longer taken for true."""
_RUNS = (Phase.READY, Phase.UNHEALTHY, Phase.DRAINING)


Machine = tuple[HostSample, tuple[GpuReading, ...]]


class Gpus(Protocol):
    """Who reads the GPUs; it may block, and is never asked twice at the same time."""

    def read(self) -> tuple[GpuReading, ...]: ...

    def close(self) -> None: ...


@dataclass
class _Known:
    """The last page of one replica's process."""

    started_at: float
    seen_at: float
    engine: EngineSample | None = None


class Sampler:
    """Takes samples of one fleet. `replicas` is the supervisor's own list, which is only read; `gateway` gives the text
    of the gateway's metrics."""

    def __init__(self, replicas: Sequence[Replica], gateway: Callable[[], bytes], gpus: Gpus, host: HostReader) -> None:
        self._replicas, self._gateway, self._gpus, self._host = replicas, gateway, gpus, host
        self._known: dict[str, _Known] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._room = asyncio.Semaphore(AT_ONCE)
        self._reading: asyncio.Future[Machine] | None = None
        self._machine: Machine = (HostSample(), ())
        self._machine_at = time.monotonic()

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS),
            connector=aiohttp.TCPConnector(limit=0),
            headers={"Accept-Encoding": "identity"},
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._asking.values():
            task.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)
        await self._session.close()
        if self._reading is None or self._reading.done():  # else the driver hangs
            self._gpus.close()

    async def sample(self, patience_seconds: float = 0.5) -> Sample:
        """The fleet now. It waits for engines and driver at most `patience_seconds`: what they say later is in the next
        sample, and an engine is not asked anew before it has answered."""
        for replica in self._replicas:
            if replica.phase in _RUNS and replica.name not in self._asking:
                task = asyncio.create_task(self._look(replica))
                self._asking[replica.name] = task
        if self._reading is None:
            self._reading = _in_thread(lambda: (self._host.read(), self._gpus.read()))
        waits: set[asyncio.Future[object]] = {*self._asking.values(), self._reading}  # type: ignore[arg-type]
        await asyncio.wait(waits, timeout=patience_seconds)
        self._asking = {name: task for name, task in self._asking.items() if not task.done()}
        now = time.monotonic()
        if self._reading.done():
            if not self._reading.exception():
                self._machine, self._machine_at = self._reading.result(), now
            self._reading = None
        gateway = read_gateway(self._gateway().decode())
        replicas = tuple(self._replica(each, gateway, now) for each in self._replicas)
        host, gpus = self._machine
        if (silent := now - self._machine_at) > DRIVER_SECONDS:
            gpus = tuple(GpuReading(each.index, each.name, fault=f"no answer for {silent:.0f} s") for each in gpus)
        return Sample(time.time(), now, host, gpus, replicas, gateway)

    async def _look(self, replica: Replica) -> None:
        """Asks one engine; one that does not answer keeps what it last said."""
        known = self._of(replica)
        headers = {"Authorization": f"Bearer {replica.api_key}"}
        try:
            async with self._room, self._session.get(f"{replica.base_url}/metrics", headers=headers) as answer:
                if answer.status != 200:
                    return
                page = await answer.content.read(MOST_BYTES)
                while not answer.content.at_eof() and len(page) < MOST_BYTES:
                    page += await answer.content.read(MOST_BYTES - len(page))
                if not answer.content.at_eof():
                    return
        except (TimeoutError, aiohttp.ClientError, OSError):
            return
        known.engine, known.seen_at = read_engine(page.decode("utf-8", "replace")), time.monotonic()

    def _of(self, replica: Replica) -> _Known:
        """What is known of the process that runs now."""
        known = self._known.get(replica.name)
        if known is None or known.started_at != replica.started_at:
            known = self._known[replica.name] = _Known(replica.started_at, time.monotonic())
        return known

    def _replica(self, replica: Replica, gateway: GatewaySample, now: float) -> ReplicaSample:
        known = self._of(replica)
        running = replica.phase in _RUNS
        if not running:
            known.seen_at = now
        return ReplicaSample(
            name=replica.name,
            phase=replica.phase.value,
            detail=replica.detail,
            engine_name=replica.engine,
            gpus=replica.placement.gpus,
            started_at=replica.started_at,
            restarts=replica.restarts,
            in_flight=replica.in_flight,
            served=replica.served,
            error=replica.error,
            traffic=gateway.traffic.get(replica.name, Traffic()),
            engine=known.engine if running else None,
            engine_age_seconds=now - known.seen_at if running else None,
        )


def _in_thread(read: Callable[[], Machine]) -> asyncio.Future[Machine]:
    """What `read` returns. A thread of its own that nobody waits for: a driver may hang for good, and asyncio's own
    threads would then keep this process from ending."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Machine] = loop.create_future()

    def settle(machine: Machine | None, error: BaseException | None) -> None:
        if future.done():
            return
        if machine is not None:
            future.set_result(machine)
        else:
            future.set_exception(error or RuntimeError("nothing was read"))

    def work() -> None:
        machine, error = None, None
        try:
            machine = read()
        except Exception as failure:
            error = failure
        with suppress(RuntimeError):  # the loop has ended in the meantime
            loop.call_soon_threadsafe(settle, machine, error)

    threading.Thread(target=work, name="vlfleet-sampler", daemon=True).start()
    return future
