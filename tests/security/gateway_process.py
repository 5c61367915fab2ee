"""A gateway in a process of its own, before engines on given ports: python -m tests.security.gateway_process PORT...

Prints its port. What it takes of memory is then its own, and not the test's.
"""

from __future__ import annotations

import asyncio
import sys

from tests.gateway.rig import MODEL, replica
from vlfleet.gateway import build_app, serve


async def main(ports: list[int]) -> None:
    replicas = [replica(f"r{n}", port) for n, port in enumerate(ports)]
    app = build_app(replicas, served_model_name=MODEL, on_unreachable=lambda _: None, draining=asyncio.Event())
    runner = await serve(app, "127.0.0.1", 0)
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main([int(port) for port in sys.argv[1:]]))
