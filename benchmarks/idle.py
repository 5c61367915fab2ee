"""What supervisor and gateway cost while nobody asks anything: CPU time of their process, with 8 fake engines.

    python -m benchmarks.idle [--replicas 8] [--seconds 60]

Each row is a run of its own; the rows after the first leave something out, so the difference is what that costs.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import psutil

from tests.fakes import FakeEngine
from vlfleet.fleet.folder import FleetFolder
from vlfleet.fleet.replica import Replica, settled
from vlfleet.fleet.spec import FleetSpec
from vlfleet.fleet.timing import Timing
from vlfleet.run import run, serve

NEVER = 1e6
NORMAL = Timing()
VARIANTS = {
    "everything as it is": NORMAL,
    "no canaries": replace(NORMAL, quiet_seconds=NEVER),
    "no /health probes": replace(NORMAL, probe_ready_seconds=NEVER),
    "neither": replace(NORMAL, quiet_seconds=NEVER, probe_ready_seconds=NEVER),
    "nor a look every half second": replace(
        NORMAL, quiet_seconds=NEVER, probe_ready_seconds=NEVER, watch_seconds=NEVER
    ),
}
SETTLE_SECONDS = 10.0
"""Imports, the first tokens and the last lines of the start's log are over by then."""


def fleet(variant: str, replicas: int) -> int:
    """Runs one fleet in the foreground until a signal."""

    async def show(spec: FleetSpec, records: Sequence[Replica]) -> None:
        while not settled(records):  # noqa: ASYNC110 - no event; a fleet without a ready one ends by itself
            await asyncio.sleep(0.1)
        print("ready", flush=True)

    folder = FleetFolder.of("idle")
    spec = FleetSpec(Path("model"), "fake-vl", name="idle", engine="fake", replicas=replicas, port=0)
    return run(serve(spec, FakeEngine(), folder, show=show, say=print, timing=VARIANTS[variant]))


def cpu_seconds(process: psutil.Process) -> float:
    """User and system time of all its threads. Linux counts it in ns in schedstat; stat samples it every 10 ms, which
    says little about a process that wakes for 0.1 ms."""
    threads = list(Path(f"/proc/{process.pid}/task").glob("*/schedstat"))
    if threads:
        return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9
    times = process.cpu_times()
    return float(times.user + times.system)


def measure(variant: str, replicas: int, seconds: float) -> tuple[float, float]:
    """Share of one core that the process took, and its resident MB."""
    with tempfile.TemporaryDirectory() as home:
        argv = [sys.executable, "-m", "benchmarks.idle", "--variant", variant, "--replicas", str(replicas)]
        env = {**os.environ, "VLFLEET_HOME": home}
        with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout
            try:
                while child.stdout.readline() != "ready\n":
                    assert child.poll() is None, "the fleet has ended"
                time.sleep(SETTLE_SECONDS)
                process = psutil.Process(child.pid)
                before, began = cpu_seconds(process), time.monotonic()
                time.sleep(seconds)
                share = (cpu_seconds(process) - before) / (time.monotonic() - began)
                return share, process.memory_info().rss / 1e6
            finally:
                child.terminate()
                child.wait(30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--variant", default="", help="run this one as a fleet, without measuring")
    args = parser.parse_args()
    if args.variant:
        sys.exit(fleet(args.variant, args.replicas))
    print(f"{args.replicas} fake engines, {args.seconds:.0f} s a row, Python {platform.python_version()}\n")
    print("| supervisor and gateway, idle | % of a core | MB |\n|---|---|---|")
    for variant in VARIANTS:
        share, megabytes = measure(variant, args.replicas, args.seconds)
        print(f"| {variant} | {100 * share:.2f} | {megabytes:.0f} |", flush=True)
    print(f"\nprobes every {NORMAL.probe_ready_seconds:g} s, canaries after {NORMAL.quiet_seconds:g} s of silence")


if __name__ == "__main__":
    main()
