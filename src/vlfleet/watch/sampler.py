"""Looks at a fleet: its machine, GPUs, replicas and gateway. Whatever cannot be seen is missing from the sample."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from vlfleet.fleet.replica import Replica
from vlfleet.hardware.reading import GpuReading
from vlfleet.watch.engine_metrics import read_engine
from vlfleet.watch.gateway_metrics import read_gateway
from vlfleet.watch.host import HostReader
from vlfleet.watch.model import EngineSample, GatewaySample, HostSample, ReplicaSample, Sample, Traffic
from vlfleet.watch.pages import RUNS, Page, Pages

FRESH_SECONDS = 0.5
"""An engine's page that is no older was read for somebody else, and does as well."""
LARGE = 1 << 20
"""Bytes of the gateway's metrics, with 250 replicas, from which they are read beside the loop: 50 ms a MB."""
DRIVER_SECONDS = 10.0
"""After which what a driver said last is no longer taken for true."""

Machine = tuple[HostSample, tuple[GpuReading, ...]]


class Gpus(Protocol):
    """Who reads the GPUs; it may block, and is never asked twice at the same time."""

    def read(self) -> tuple[GpuReading, ...]: ...

    def close(self) -> None: ...


@dataclass
class _Known:
    """What one replica's process said last."""

    started_at: float
    seen_at: float
    page: Page | None = None
    engine: EngineSample | None = None


class Sampler:
    """Takes samples of one fleet. `replicas` is the supervisor's own list, which is only read; `gateway` gives the text
    of the gateway's metrics, `pages` the reader of the engines'."""

    def __init__(
        self,
        replicas: Sequence[Replica],
        gateway: Callable[[], bytes],
        pages: Callable[[], Pages],
        gpus: Gpus,
        host: HostReader,
    ) -> None:
        self._replicas, self._gateway, self._pages, self._gpus, self._host = replicas, gateway, pages, gpus, host
        self._known: dict[str, _Known] = {}
        self._reading: asyncio.Future[Machine] | None = None
        self._machine: Machine = (HostSample(), ())
        self._machine_at = time.monotonic()

    def close(self) -> None:
        """Lets go of the GPUs, unless their driver hangs."""
        if self._reading is None or self._reading.done():
            self._gpus.close()

    async def sample(self, patience_seconds: float = 0.5) -> Sample:
        """The fleet now. It waits for engines and driver at most `patience_seconds`: what they say later is in the next
        sample."""
        until = time.monotonic() + patience_seconds
        if self._reading is None:
            self._reading = _in_thread(lambda: (self._host.read(), self._gpus.read()))
        await self._pages().look(FRESH_SECONDS, patience_seconds)
        await asyncio.wait((self._reading,), timeout=max(0.0, until - time.monotonic()))
        for replica in self._replicas:
            if self._read(replica):
                await asyncio.sleep(0)  # half a millisecond each: requests go between
        now = time.monotonic()
        if self._reading.done():
            if not self._reading.exception():
                self._machine, self._machine_at = self._reading.result(), now
            self._reading = None
        text = self._gateway().decode()
        gateway = await asyncio.to_thread(read_gateway, text) if len(text) > LARGE else read_gateway(text)
        replicas = tuple(self._replica(each, gateway, now) for each in self._replicas)
        host, gpus = self._machine
        if (silent := now - self._machine_at) > DRIVER_SECONDS:
            gpus = tuple(GpuReading(each.index, each.name, fault=f"no answer for {silent:.0f} s") for each in gpus)
        return Sample(time.time(), now, host, gpus, replicas, gateway)

    def _read(self, replica: Replica) -> bool:
        """Takes in what the process says that runs now, and says whether that is new."""
        known = self._of(replica)
        page = self._pages().of(replica)
        if page is None or page is known.page:
            return False
        known.page, known.seen_at = page, page.at
        known.engine = read_engine(page.text.decode("utf-8", "replace"))
        return True

    def _of(self, replica: Replica) -> _Known:
        """What is known of the process that runs now."""
        known = self._known.get(replica.name)
        if known is None or known.started_at != replica.started_at:
            known = self._known[replica.name] = _Known(replica.started_at, time.monotonic())
        return known

    def _replica(self, replica: Replica, gateway: GatewaySample, now: float) -> ReplicaSample:
        known = self._of(replica)
        running = replica.phase in RUNS
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
            cordoned=replica.cordoned,
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
