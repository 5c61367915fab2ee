"""`vlfleet checkpoint pad` against `cp` of the same files, in turns.

    python -m benchmarks.pad [--folder /tmp] [--gigabytes 8] [--rounds 5]

An AWQ checkpoint in the shape of Qwen2.5-VL-72B, as many layers as fill the size, all bits random, shards of 4 GB.
29568 -> 29696 changes every shard but a small one. Each round copies and pads it once, in changing order; both are
timed until they return, and until `sync` returns after them: pad syncs every file before it goes on, cp leaves that to
the kernel. The kernel's cache is as the rounds before left it: emptying it would slow down everybody on the machine.
Needs twice the size on disk; everything is deleted.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.int4_checkpoint import Shape, noise, write
from vlfleet import demo

LAYER_BYTES = 456_000_000
SHARD_LAYERS = 9


@dataclass(frozen=True)
class Run:
    """One copy or one padding."""

    seconds: float
    """Until it returned."""
    synced_seconds: float
    """Until everything was on disk."""
    peak_bytes: int
    """Resident, at most."""
    cpu_seconds: float
    """Of user and kernel: what is left of the difference where other work or the disk disturbs."""


def run(command: list[str], target: Path) -> Run:
    began, cpu = time.perf_counter(), children_seconds()
    process, peak = subprocess.Popen(command, stdout=subprocess.DEVNULL), 0
    while process.poll() is None:
        peak = max(peak, peak_bytes(process.pid))
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.02)
    seconds = time.perf_counter() - began
    if process.returncode:
        raise SystemExit(f"error: {' '.join(command)} failed")
    cpu = children_seconds() - cpu
    os.sync()
    synced = time.perf_counter() - began
    shutil.rmtree(target)
    os.sync()
    return Run(seconds, synced, peak, cpu)


def children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def peak_bytes(pid: int) -> int:
    """The most that a process has had resident so far; 0 once it has ended. Its own, not what it was forked from."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"VmHWM:\s*(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--gigabytes", type=float, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    layers = max(1, -(-int(options.gigabytes * 1e9) // LAYER_BYTES))
    with tempfile.TemporaryDirectory(prefix="pad-benchmark-", dir=options.folder) as made:
        folder = Path(made)
        shape = Shape(layers=layers, vocabulary=1024)
        source = write(
            folder / "source", "awq", shape, demo.model_path(),
            shared=folder / "rest", made_by=noise, per_shard=SHARD_LAYERS,
        )  # fmt: skip
        os.sync()
        size = sum(file.stat().st_size for file in source.iterdir())
        target = folder / "target"
        pad = [sys.executable, "-m", "vlfleet", "checkpoint", "pad", str(source), str(target), "--tp", "8"]
        commands = {"cp": ["cp", "-r", str(source), str(target)], "pad": pad}
        runs: dict[str, list[Run]] = {name: [] for name in commands}
        for number in range(options.rounds):
            for name in list(commands)[:: 1 if number % 2 else -1]:
                runs[name].append(run(commands[name], target))
                print(f"round {number + 1}  {name:4}{runs[name][-1]}", file=sys.stderr, flush=True)
    report(runs, size, layers)


FIELDS = (("seconds", "as they return"), ("synced_seconds", "with sync"), ("cpu_seconds", "by CPU seconds"))


def report(runs: dict[str, list[Run]], size: int, layers: int) -> None:
    print(f"{layers} layers, {size / 1e9:.2f} GB, medians of {len(runs['cp'])} rounds, {os.cpu_count()} cores")
    print(f"{platform.platform()}, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}\n")
    print("| | seconds | GB/s | seconds with sync | GB/s with sync | CPU seconds | peak MiB |\n" + "|---" * 7 + "|")
    for name, each in runs.items():
        seconds, synced = (statistics.median(getattr(r, f) for r in each) for f in ("seconds", "synced_seconds"))
        peak = max(r.peak_bytes for r in each) / 2**20
        rates = f"{seconds:.2f} | {size / seconds / 1e9:.2f} | {synced:.2f} | {size / synced / 1e9:.2f}"
        cpu = statistics.median(run.cpu_seconds for run in each)
        print(f"| {name} | {rates} | {cpu:.2f} | {peak:.0f} |")
    for field, what in FIELDS:
        cp, pad = (statistics.median(getattr(r, field) for r in runs[name]) for name in ("cp", "pad"))
        rounds = [getattr(c, field) / getattr(p, field) for c, p in zip(runs["cp"], runs["pad"], strict=True)]
        print(
            f"\npad at {cp / pad:.2f} of cp's throughput {what} (round by round {min(rounds):.2f} to {max(rounds):.2f})"
        )


if __name__ == "__main__":
    main()
