"""Fake engines with the costs of a vision model, for trying the route's benchmarks without a GPU.

As a fleet's engine: `vlfleet up --engine benchmarks.route_fake:RouteFake`. By itself:
`python -m benchmarks.route_fake --port N`. Their figures mean nothing: a fake prefills request by request.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys

from aiohttp import web

from tests.fakes.engine import Behaviour, Engine
from tests.fakes.launch import FakeEngine
from tests.fakes.media import Costs
from vlfleet.engine.launch import EngineSpec, Launch, Placement

PREPROCESS_SECONDS, VISION_SECONDS, PREFILL_SECONDS, TOKEN_SECONDS = 4e-6, 8e-6, 0.002, 0.001
"""Of a visual token, of a prompt, of an answer's token; a tenth of what a GPU takes, so that a trial is short."""


class RouteFake(FakeEngine):
    """An `Engine` whose processes are those of this module."""

    def launch(self, spec: EngineSpec, placement: Placement, port: int, api_key: str) -> Launch:
        launch = super().launch(spec, placement, port, api_key)
        argv = (sys.executable, "-u", "-m", "benchmarks.route_fake", "--port", str(port))
        return Launch(argv, launch.env)


async def serve(port: int, slower: float) -> None:
    costs = Costs(slower * PREPROCESS_SECONDS, slower * VISION_SECONDS, encoder_tokens=65_536)
    key = os.environ.get("VLFLEET_ENGINE_KEY", "")
    behaviour = Behaviour("m", key, tokens=64, token_seconds=slower * TOKEN_SECONDS, media=costs)
    behaviour.prefill_seconds = slower * PREFILL_SECONDS
    runner = web.AppRunner(Engine(behaviour).app(), access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    print("phase: ready", flush=True)
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--slower", type=float, default=1.0)
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(options.port, options.slower))


if __name__ == "__main__":
    main()
