"""How soon a replica that dies or hangs is out of rotation, and how soon a new one is back, with the real bounds.

    python -m benchmarks.detection [--runs 5] [--clients 8]

Three fake engines, supervisor and gateway in this process. One replica is killed (SIGKILL), stopped (SIGSTOP of its
process) or wedged (it accepts, its /health says 200, and no token comes for anybody), at a random moment, while nobody
asks anything and while clients ask all the time. After each run the replica is killed and replaced.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import aiohttp

from tests.fleet.rig import WatchedSupervisor
from tests.fleet.served import Load, faults, served
from tests.gateway.rig import Rig
from vlfleet.fleet.folder import FleetFolder
from vlfleet.fleet.replica import Phase, Replica
from vlfleet.fleet.timing import RestartPolicy, Timing

POLL_SECONDS = 0.002
TIMING = replace(Timing(), restart=RestartPolicy(most_seconds=1.0, deaths=1000))
"""The real bounds, but no crash loop: a replica dies ten times here."""
CYCLE_SECONDS = TIMING.quiet_seconds
"""A hang is done at any moment between two canaries."""


@dataclass
class Row:
    """Seconds of every run."""

    out: list[float] = field(default_factory=list)
    back: list[float] = field(default_factory=list)
    """From the new engine's own first /health 200 to READY; with clients, to the first answer that it gave."""
    answered: int = 0
    told: int = 0
    """Streams that had begun on the replica, and ended with an error event."""
    failed: int = 0


async def harm(replica: Replica, how: str) -> None:
    if how == "wedged":
        await faults(replica, wedged=True)
    else:
        os.kill(replica.pid, signal.SIGKILL if how == "killed" else signal.SIGSTOP)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - a record of plain fields sends no event
        await asyncio.sleep(POLL_SECONDS)


async def until_healthy(replica: Replica, old_port: int) -> float:
    """The moment at which the engine that replaces the one at `old_port` says for the first time that it is ready."""
    async with aiohttp.ClientSession() as session:
        while True:
            if replica.port != old_port and replica.pid:
                try:
                    async with session.get(f"{replica.base_url}/health") as answer:
                        if answer.status == 200:
                            return time.monotonic()
                except aiohttp.ClientError:
                    pass
            await asyncio.sleep(POLL_SECONDS)


async def one(supervisor: WatchedSupervisor, replica: Replica, how: str, clients: int, row: Row) -> None:
    await asyncio.sleep(random.uniform(1.0, 1.0 + CYCLE_SECONDS))
    pid, port, served_before = replica.pid, replica.port, replica.served
    began = time.monotonic()
    await harm(replica, how)
    await until(lambda: replica.phase is not Phase.READY)
    row.out.append(time.monotonic() - began)
    if how != "killed":
        os.kill(pid, signal.SIGKILL)
    healthy = await until_healthy(replica, port)
    await until(lambda: replica.phase is Phase.READY and (not clients or replica.served > served_before))
    row.back.append(time.monotonic() - healthy)
    await until(lambda: all(each.phase is Phase.READY for each in supervisor.replicas))


async def measure(supervisor: WatchedSupervisor, rig: Rig, how: str, clients: int, runs: int) -> Row:
    row = Row()
    async with AsyncExitStack() as stack:
        load = await stack.enter_async_context(Load(rig, clients)) if clients else None
        for run in range(runs):
            await one(supervisor, supervisor.replicas[run % 3], how, clients, row)
    if load:
        row.answered = load.answered
        row.told = sum('"stream_broken"' in text for text in load.failed)
        row.failed = len(load.failed) - row.told
    return row


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


async def bench(runs: int, clients: int) -> None:
    random.seed(1)
    print("| event | clients | out of rotation s | back s | answers | streams cut and told | failed |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as home:
        folder = FleetFolder(Path(home) / "default")
        folder.make()
        async with served(folder, "--token-seconds", "0.01", replicas=3, timing=TIMING) as (supervisor, rig):
            for how in ("killed", "stopped", "wedged"):
                for number in (0, clients):
                    row = await measure(supervisor, rig, how, number, runs)
                    counts = f"{row.answered} | {row.told} | {row.failed}" if number else "- | - | -"
                    print(f"| {how} | {number} | {spread(row.out)} | {spread(row.back)} | {counts} |", flush=True)
    print(f"\nmedian (least to most) of {runs} runs each")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--clients", type=int, default=8)
    args = parser.parse_args()
    asyncio.run(bench(args.runs, args.clients))


if __name__ == "__main__":
    main()
