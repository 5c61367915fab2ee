"""How long a plan takes and how much memory it needs: each in a process of its own, as a person calls it.

    python -m benchmarks.plan_time [--runs 3] [--prove]

CPU seconds are those of the whole process, start of Python and imports included; "closed form" is the search alone.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

from vlfleet.hardware.catalogue import imagined_machine, parse_gpus
from vlfleet.plan.demand import demand
from vlfleet.plan.model import read_model
from vlfleet.plan.plan import Inputs
from vlfleet.plan.search import search

QUESTIONS = (
    ("Qwen2.5-VL-72B", "8xH100", "chat"),
    ("Qwen2.5-VL-72B", "8xL40S", "ocr"),
    ("Qwen2.5-VL-7B", "8xRTX4090", "chat"),
    ("Qwen3-VL-235B-A22B", "8xH200", "agents"),
)


def closed_form_seconds(model: str, gpus: str, preset: str) -> float:
    """CPU time of a search without simulation, the first in its process."""
    models = parse_gpus(gpus)
    inputs = Inputs(read_model(model), models[0], imagined_machine(models), demand(preset), (0, 26, 0))
    start = time.process_time()
    search(inputs, finalists=0)
    return time.process_time() - start


def whole(model: str, gpus: str, preset: str, prove: bool) -> tuple[float, float, float]:
    """Elapsed and CPU seconds and peak MB of one `vlfleet plan`."""
    command = [sys.executable, "-m", "vlfleet", "plan", model, "--gpus", gpus, "--for", preset, "--json"]
    start = time.perf_counter()
    process = subprocess.Popen([*command, *(["--prove"] if prove else [])], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    elapsed = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return elapsed, used.ru_utime + used.ru_stime, used.ru_maxrss / 1000


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--prove", action="store_true")
    told = parser.parse_args()
    print(f"{'question':<36} {'closed form':>12} {'elapsed':>9} {'CPU':>7} {'peak':>8}")
    for model, gpus, preset in QUESTIONS:
        closed = closed_form_seconds(model, gpus, preset)
        runs = [whole(model, gpus, preset, told.prove) for _ in range(told.runs)]
        elapsed, cpu, peak = (statistics.median(run[at] for run in runs) for at in range(3))
        name = f"{model} {gpus} {preset}"
        print(f"{name:<36} {closed:>10.2f} s {elapsed:>7.2f} s {cpu:>5.2f} s {peak:>5.0f} MB")


if __name__ == "__main__":
    main()
