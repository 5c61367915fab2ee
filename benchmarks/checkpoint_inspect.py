"""How long `vlfleet checkpoint inspect` takes, whatever the size of the model.

    python -m benchmarks.checkpoint_inspect [--folder DIR] [--model Qwen2-VL-72B ...] [--rounds 15]

Checkpoints of those models' shapes as the hub has them, in shards of 4 GB: real headers, and files that are holes (no
disk is needed, nor would their weights be read). Each round runs the command once on each, as a process of its own,
beside `vlfleet --help`, which is what the program itself takes. Wall seconds; headers are in the page cache.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.published import MODELS, shapes, write

VLFLEET = [sys.executable, "-m", "vlfleet"]
ALONE = "vlfleet --help"


def seconds(command: list[str]) -> float:
    """Until it returned."""
    began = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--model", nargs="+", choices=list(MODELS), default=["Qwen2-VL-2B", "Qwen2-VL-72B"])
    parser.add_argument("--rounds", type=int, default=15)
    told = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=told.folder) as folder:
        commands = {ALONE: [*VLFLEET, "--help"]}
        described = {ALONE: "-"}
        for name in told.model:
            model = MODELS[name]
            checkpoint = write(Path(folder) / name, model.config, shapes(model))
            shards = list(checkpoint.glob("*.safetensors"))
            gigabytes = sum(shard.stat().st_size for shard in shards) / 1e9
            described[name] = f"{len(shapes(model)):,} tensors, {len(shards)} shards, {gigabytes:.0f} GB"
            commands[name] = [*VLFLEET, "checkpoint", "inspect", str(checkpoint)]
        for command in commands.values():
            seconds(command)
        took: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(told.rounds):
            for name, command in commands.items():
                took[name].append(seconds(command))
    print(f"{os.cpu_count()} cores, {told.rounds} rounds, seconds")
    print("| | checkpoint | median | least | most |\n|---|---|---|---|---|")
    for name, each in took.items():
        figures = (statistics.median(each), min(each), max(each))
        print(f"| {name} | {described[name]} | {' | '.join(f'{figure:.2f}' for figure in figures)} |")


if __name__ == "__main__":
    main()
