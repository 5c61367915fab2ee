"""A fake engine with slots, as continuous batching has them: each request holds one for a while, and the rest waits.

`vlfleet up --engine benchmarks.batch_engine:SlotsFake`; GET /fake/seen tells how many seconds its slots were held.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import time
from dataclasses import asdict

from aiohttp import web

from tests.fakes import replies
from tests.fakes.engine import Behaviour, Engine
from tests.fakes.launch import FakeEngine
from vlfleet.engine.launch import EngineSpec, Launch, Placement

SLOTS = 8


class SlotsFake(FakeEngine):
    """An `Engine` whose processes are those of this module."""

    def launch(self, spec: EngineSpec, placement: Placement, port: int, api_key: str) -> Launch:
        launch = super().launch(spec, placement, port, api_key)
        argv = (sys.executable, "-u", "-m", "benchmarks.batch_engine", "--port", str(port), *spec.engine_args)
        return Launch((*argv, "--served-model-name", spec.served_model_name), launch.env)


class SlotsEngine(Engine):
    """Answers of one token, each after `seconds` in a slot, half of it more or less."""

    def __init__(self, behaviour: Behaviour, seconds: float) -> None:
        super().__init__(behaviour)
        self.seconds = seconds
        self.slots = asyncio.Semaphore(SLOTS)
        self.held: set[float] = set()
        self.held_seconds = 0.0
        self.chance = random.Random(1)

    async def answer(self, request: web.Request, raw: bytes) -> web.StreamResponse:
        async with self.slots:
            began = time.monotonic()
            self.held.add(began)
            await asyncio.sleep(self.seconds * self.chance.uniform(0.5, 1.5))
            self.held.discard(began)
            self.held_seconds += time.monotonic() - began
        self.seen.generated_tokens += 1
        return web.json_response(replies.whole(True, self.behaviour.served_model_name, ["yes"]))

    async def get_seen(self, request: web.Request) -> web.Response:
        now = time.monotonic()
        running = sum(now - began for began in self.held)
        return web.json_response({**asdict(self.seen), "log": [], "held_seconds": self.held_seconds + running})


async def serve(port: int, name: str, seconds: float) -> None:
    engine = SlotsEngine(Behaviour(name, os.environ.get("VLFLEET_ENGINE_KEY", "")), seconds)
    runner = web.AppRunner(engine.app(), access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    print(f"decided: {json.dumps({'max_num_seqs': SLOTS})}", flush=True)
    print("phase: ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--served-model-name", required=True)
    parser.add_argument("--seconds", type=float, default=0.2)
    given = parser.parse_args()
    asyncio.run(serve(given.port, given.served_model_name, given.seconds))
