"""What watching costs: CPU of this process while it samples 8 GPUs and 8 replicas each second.

    python -m benchmarks.watch_cost [--seconds 30] [--replicas 8] [--gpus 8] [--real-gpus]

The engines' pages are vLLM 0.32's, as recorded, served by another process. GPUs are the tests' fake NVML, whose answers
cost nothing, unless --real-gpus asks this machine's. First a table tells each fact of each GPU, and how long a read
takes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import sys
import tempfile
import time
from dataclasses import fields
from multiprocessing.connection import Connection
from pathlib import Path

from aiohttp import web

from vlfleet.fleet.replica import Phase, Replica
from vlfleet.gateway.engine_pages import EnginePages
from vlfleet.gateway.pool import Pool
from vlfleet.hardware.reading import GpuReading
from vlfleet.hardware.readings import GpuReader
from vlfleet.hardware.readings_nvidia import NvidiaReader
from vlfleet.watch.host import HostReader
from vlfleet.watch.sampler import Sampler

RECORDED = Path(__file__).parents[1] / "tests/watch/recorded"


def serve(number: int, pipe: Connection) -> None:
    """Serves the recorded page on `number` ports, which go through `pipe`, until it is ended."""

    async def run() -> None:
        page = (RECORDED / "vllm-0.32.txt").read_bytes()

        async def answer(request: web.Request) -> web.Response:
            return web.Response(body=page, content_type="text/plain")

        app = web.Application()
        app.router.add_get("/metrics", answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        for _ in range(number):
            await web.TCPSite(runner, "127.0.0.1", 0).start()
        pipe.send([address[1] for address in runner.addresses])
        await asyncio.Event().wait()

    asyncio.run(run())


def gateway_page(replicas: int) -> bytes:
    """The recorded page of the gateway, with as many replicas."""
    lines = (RECORDED / "gateway.txt").read_text().splitlines()
    mine = [line for line in lines if 'replica="r0"' in line]
    others = [line for line in lines if 'replica="' not in line]
    every = [line.replace('"r0"', f'"r{number}"') for number in range(replicas) for line in mine]
    return "\n".join([*others, *every, ""]).encode()


def gpu_table(reads: int = 20) -> str:
    """Every fact that this machine's GPUs tell, after a second between two reads, and milliseconds of a read."""
    reader = GpuReader()
    began = time.perf_counter()
    gpus = reader.read()
    first = time.perf_counter() - began
    if not gpus:
        return "no GPU, or no library that tells of it"
    times = []
    for _ in range(reads):
        time.sleep(1 / reads)
        began = time.perf_counter()
        gpus = reader.read()
        times.append(time.perf_counter() - began)
    made = next(each for each in reader._readers if each.read())
    hears = made._xids.gpus if isinstance(made, NvidiaReader) and made._xids else []
    reader.close()
    rows = [("", *(f"GPU {gpu.index}" for gpu in gpus))]
    for each in fields(GpuReading):
        values = (getattr(gpu, each.name) for gpu in gpus)
        rows.append(
            (each.name, *(",".join(sorted(v)) or "none" if isinstance(v, frozenset) else str(v) for v in values))
        )
    rows.append(("Xid events heard", *(str(gpu.index in hears) for gpu in gpus)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    middle, most = sorted(times)[reads // 2], max(times)
    cost = f"first read {1e3 * first:.1f} ms, then median {1e3 * middle:.2f} ms, most {1e3 * most:.2f} ms, all GPUs"
    return "\n".join([*lines, cost, ""])


async def measure(ports: list[int], seconds: int) -> dict[str, float]:
    replicas = [
        Replica(f"r{number}", port, "key", "vllm", phase=Phase.READY, started_at=1.0)
        for number, port in enumerate(ports)
    ]
    page = gateway_page(len(replicas))
    waits = []
    with tempfile.TemporaryDirectory() as folder:
        pool = Pool(1.0, 2.0)
        pages = EnginePages(replicas, pool)
        sampler = Sampler(replicas, lambda: page, lambda: pages, GpuReader(), HostReader(Path(folder)))
        try:
            sample = await sampler.sample(5)  # connections, and the cache of labels
            gpus = len(sample.gpus)
            began, cpu = time.monotonic(), time.process_time()
            for tick in range(seconds):
                await asyncio.sleep(max(0.0, began + tick + 1 - time.monotonic()))
                at = time.monotonic()
                sample = await sampler.sample()
                waits.append(time.monotonic() - at)
                assert all(each.engine and each.engine.finished == 8 for each in sample.replicas)
            share = (time.process_time() - cpu) / (time.monotonic() - began)
        finally:
            sampler.close()
            await pages.close()
            pool.close()
    return {
        "replicas": len(replicas),
        "gpus": gpus,
        "seconds": seconds,
        "core_percent": round(100 * share, 2),
        "sample_milliseconds_median": round(1e3 * sorted(waits)[len(waits) // 2], 1),
        "sample_milliseconds_most": round(1e3 * max(waits), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--replicas", type=int, default=8)
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--real-gpus", action="store_true")
    given = parser.parse_args()
    if not given.real_gpus:
        from tests.hardware import machines
        from tests.hardware.live_nvml import BUSY, LiveNvml

        gpus = [machines.gpu(number, "NVIDIA H200", 143771, (9, 0), live=BUSY) for number in range(given.gpus)]
        sys.modules["pynvml"] = LiveNvml(machines.machine(gpus))  # type: ignore[assignment]
    print(gpu_table())
    mine, theirs = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(given.replicas, theirs), daemon=True)
    server.start()
    try:
        print(json.dumps(asyncio.run(measure(mine.recv(), given.seconds)), indent=2))
    finally:
        server.terminate()
        server.join()


if __name__ == "__main__":
    main()
