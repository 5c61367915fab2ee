"""A fleet of fake engines behind a gateway, what can be done to its engines, and clients that ask all the time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any

import aiohttp

from tests.fakes import FakeEngine
from tests.fleet.rig import FAST, WatchedSupervisor, fleet, until
from tests.gateway.rig import Rig, gateway
from vlfleet.fleet.folder import FleetFolder
from vlfleet.fleet.replica import Phase, Replica
from vlfleet.fleet.timing import Timing


@asynccontextmanager
async def served(
    folder: FleetFolder, *options: str, replicas: int = 1, timing: Timing = FAST, engine: FakeEngine | None = None
) -> AsyncIterator[tuple[WatchedSupervisor, Rig]]:
    """A fleet of fake engines and a gateway before it, all ready."""
    async with (
        fleet(folder, engine or FakeEngine(*options), replicas=replicas, timing=timing) as supervisor,
        gateway(supervisor.replicas) as rig,
    ):
        await until(lambda: all(replica.phase is Phase.READY for replica in supervisor.replicas))
        yield supervisor, rig


async def faults(replica: Replica, **fields: Any) -> None:
    async with aiohttp.ClientSession() as session:
        await session.post(f"{replica.base_url}/fake/faults", json=fields)


async def seen(replica: Replica) -> Any:
    async with aiohttp.ClientSession() as session, session.get(f"{replica.base_url}/fake/seen") as answer:
        return await answer.json()


class Load:
    """`clients` requests in flight all the time, streams and whole answers in turn, until the context ends."""

    def __init__(self, rig: Rig, clients: int = 16) -> None:
        self.answered = 0
        self.failed: list[str] = []
        self._rig, self._ending = rig, False
        self._tasks = [self._ask_on(stream=bool(at % 2)) for at in range(clients)]

    async def __aenter__(self) -> Load:
        self._running = asyncio.gather(*self._tasks)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Lets every client have its last answer."""
        self._ending = True
        await self._running

    async def _ask_on(self, stream: bool) -> None:
        while not self._ending:
            async with self._rig.chat(stream=stream) as answer:
                text = await answer.text()
            good = text.endswith("data: [DONE]\n\n") and '"error"' not in text if stream else '"choices"' in text
            if answer.status == 200 and good:
                self.answered += 1
            else:
                self.failed.append(f"{answer.status} {text[-300:]}")
                await asyncio.sleep(0.05)
