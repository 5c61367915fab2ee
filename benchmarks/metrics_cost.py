"""What one look at /metrics costs the gateway: CPU, and how much of it at once, while nobody else's turn comes.

    python -m benchmarks.metrics_cost [--replicas 8] [--scrapes 50]

The engines' pages are vLLM 0.32's, as recorded, served by another process; each scrape reads them anew.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import time

from benchmarks.watch_cost import serve
from tests.gateway.rig import gateway, replica
from vlfleet.gateway import all_metrics
from vlfleet.gateway.federation import Federation


async def measure(ports: list[int], scrapes: int) -> dict[str, float]:
    replicas = [replica(f"r{number}", port) for number, port in enumerate(ports)]
    async with gateway(replicas) as fleet:
        own = fleet.gateway
        own.ready()
        size = len(await all_metrics.all_metrics(own))
        all_metrics.FRESH_SECONDS = 0.0
        cpu, turns = [], []
        for _ in range(scrapes):
            began = time.process_time()
            await all_metrics.all_metrics(own)
            cpu.append(time.process_time() - began)
            asked = asyncio.create_task(all_metrics.all_metrics(own))
            while not asked.done():
                at = time.thread_time()
                await asyncio.sleep(0)
                turns.append(time.thread_time() - at)
        pages = [(each.name, page.text) for each in replicas if (page := own.pages.of(each))]
        began = time.process_time()
        federation = Federation()
        for name, text in pages:
            for _ in federation.add(name, text):
                pass
        federation.text()
        joined = time.process_time() - began
        began = time.process_time()
        own.metrics.text()
        told = time.process_time() - began
    return {
        "replicas": len(ports),
        "page_bytes": size,
        "cpu_milliseconds_median": round(1e3 * sorted(cpu)[len(cpu) // 2], 1),
        "of_that_pages_joined_milliseconds": round(1e3 * joined, 1),
        "of_that_own_text_milliseconds": round(1e3 * told, 1),
        "longest_turn_milliseconds_median": round(1e3 * sorted(turns, reverse=True)[scrapes // 2], 1),
        "longest_turn_milliseconds_most": round(1e3 * max(turns), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, default=8)
    parser.add_argument("--scrapes", type=int, default=50)
    given = parser.parse_args()
    mine, theirs = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(given.replicas, theirs), daemon=True)
    server.start()
    try:
        print(json.dumps(asyncio.run(measure(mine.recv(), given.scrapes)), indent=2))
    finally:
        server.terminate()
        server.join()


if __name__ == "__main__":
    main()
