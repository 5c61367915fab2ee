"""A gateway before fake engines, all of it in this process on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from tests.fakes import engine as fake
from vlfleet.fleet.replica import Phase, Replica
from vlfleet.gateway import EngineMedia, Limits, Policy, build_app, serve
from vlfleet.gateway.access import Access
from vlfleet.gateway.connection import ConnectionLimits, Connections, Runner
from vlfleet.gateway.state import GATEWAY, Gateway
from vlfleet.media.addresses import FetchPolicy

MODEL = "fake-vl"
KEY = "engine-key"


@dataclass
class Rig:
    """The gateway's address, its replicas, and the engines behind them."""

    url: str
    http: aiohttp.ClientSession
    replicas: list[Replica]
    engines: list[fake.Engine]
    draining: asyncio.Event
    unreachable: list[str] = field(default_factory=list)
    gateway: Gateway = field(init=False)
    connections: Connections = field(init=False)
    app: web.Application = field(init=False)

    def chat(self, **fields: Any) -> Any:
        return self.http.post(f"{self.url}/v1/chat/completions", json={**hello(), **fields})

    async def metric(self, line: str) -> float:
        """The value of one line of /metrics, 0 when it is not there."""
        async with self.http.get(f"{self.url}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        return next((float(each.rsplit(" ", 1)[1]) for each in lines if each.rsplit(" ", 1)[0] == line), 0.0)

    def idle(self) -> bool:
        return all(not replica.in_flight and not replica.outstanding_work for replica in self.replicas)


def hello(text: str = "hello") -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": text}]}


def replica(name: str, port: int = 1, phase: Phase = Phase.READY) -> Replica:
    return Replica(name=name, port=port, api_key=KEY, engine="fake", phase=phase)


@asynccontextmanager
async def rig(
    engines: int = 2,
    behaviour: fake.Behaviour | None = None,
    limits: Limits | None = None,
    media: EngineMedia | None = None,
    policy: Policy = Policy.PREDICTED,
    urls: FetchPolicy | None = None,
    access: Access | None = None,
    connections: ConnectionLimits | None = None,
    batches: Path | None = None,
) -> AsyncIterator[Rig]:
    behaviour = replace(behaviour or fake.Behaviour(), key=KEY)
    async with AsyncExitStack() as stack:
        fakes = [await stack.enter_async_context(fake.serve(replace(behaviour))) for _ in range(engines)]
        replicas = [replica(f"r{n}", each.port) for n, each in enumerate(fakes)]
        async with gateway(replicas, limits, media, policy, urls, access, connections, batches) as made:
            made.engines = fakes
            yield made


@asynccontextmanager
async def gateway(
    replicas: list[Replica],
    limits: Limits | None = None,
    media: EngineMedia | None = None,
    policy: Policy = Policy.PREDICTED,
    urls: FetchPolicy | None = None,
    access: Access | None = None,
    connections: ConnectionLimits | None = None,
    batches: Path | None = None,
) -> AsyncIterator[Rig]:
    """Only the gateway; the replicas may be anything."""
    draining = asyncio.Event()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as http:
        made = Rig("", http, replicas, [], draining)
        app = build_app(
            replicas,
            served_model_name=MODEL,
            on_unreachable=lambda replica: made.unreachable.append(replica.name),
            draining=draining,
            limits=limits or Limits(),
            media=media,
            policy=policy,
            urls=urls,
            access=access,
            batches=batches,
        )
        runner = await serve(app, "127.0.0.1", 0, connections or ConnectionLimits())
        assert isinstance(runner, Runner)
        made.app, made.gateway, made.connections = app, app[GATEWAY], runner.all
        made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield made
        finally:
            await http.close()
            await runner.cleanup()


async def until(condition: Any, seconds: float = 2.0) -> None:
    """Waits until `condition()` holds; fails after `seconds`."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  (what is waited for is in another task's hands)
            await asyncio.sleep(0.01)
