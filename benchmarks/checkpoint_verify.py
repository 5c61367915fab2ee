"""How fast `vlfleet checkpoint verify` reads, against `cat FILE... > /dev/null`, and how much memory it takes.

    python -m benchmarks.checkpoint_verify [--folder DIR] [--model Qwen2-VL-7B] [--shards 4] [--rounds 5]

A checkpoint of that model's shapes with random bfloat16 numbers is written to --folder (deleted afterwards). Both read
it in turns, first from the page cache, then with its pages dropped before each run, so that the disk is read.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.published import MODELS, shapes, write

VERIFY = [sys.executable, "-m", "vlfleet", "checkpoint", "verify"]


def fill(shards: list[Path]) -> None:
    """Random bfloat16 numbers, none NaN, instead of holes. In a process of its own: its memory would count as ours."""
    import numpy as np

    numbers = np.random.default_rng(0).standard_normal(16 << 20, np.float32).view(np.uint32)
    block = (numbers >> 16).astype(np.uint16).tobytes()
    for shard in shards:
        with shard.open("r+b") as stream:
            size = shard.stat().st_size
            start = 8 + int.from_bytes(stream.read(8), "little")
            for at in range(start, size, len(block)):
                stream.seek(at)
                stream.write(block[: size - at])
            os.fsync(stream.fileno())


def drop(files: list[Path]) -> None:
    """Their pages out of the cache."""
    for file in files:
        with file.open("rb") as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def seconds(command: list[str], before: Callable[[], None]) -> tuple[float, int]:
    """Of the command, and its peak memory in KiB."""
    before()
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}")
    return time.perf_counter() - started, usage.ru_maxrss


def compare(folder: Path, shards: list[Path], rounds: int, before: Callable[[], None], where: str) -> None:
    total = sum(shard.stat().st_size for shard in shards)
    commands = {
        "cat": ["cat", *map(str, shards)],
        "verify --checksums-only": [*VERIFY, str(folder), "--checksums-only"],
        "verify": [*VERIFY, str(folder)],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    memory = dict.fromkeys(commands, 0)
    for _ in range(rounds):
        for name, command in commands.items():
            one, peak = seconds(command, before)
            times[name].append(one)
            memory[name] = max(memory[name], peak)
    cat = total / statistics.median(times["cat"])
    print(f"{where}: {total / 1e9:.2f} GB in {len(shards)} shards, medians of {rounds}")
    for name, took in times.items():
        rate = total / statistics.median(took)
        print(f"  {name:<24} {rate / 1e9:6.2f} GB/s  {rate / cat:5.2f} of cat  peak {memory[name] / 1024:.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--model", choices=MODELS, default="Qwen2-VL-7B")
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    model = MODELS[args.model]
    base = Path(tempfile.mkdtemp(dir=args.folder))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, base)
        folder = write(base / "model", model.config, shapes(model), 2 * model.total // args.shards + (200 << 20))
        shards = sorted(folder.glob("*.safetensors"))
        filling = multiprocessing.get_context("spawn").Process(target=fill, args=(shards,))
        filling.start()
        filling.join()
        subprocess.run([*VERIFY, str(folder)], check=True, stdout=subprocess.DEVNULL)  # writes the manifest
        print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        compare(folder, shards, args.rounds, lambda: None, "page cache")
        compare(folder, shards, args.rounds, lambda: drop(shards), "disk")
        print(f"load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
