"""New pictures on two GPUs: fleets that differ in one thing, in turns, and how busy GPUs and processes are meanwhile.

    python -m benchmarks.route_variants --models FOLDER --out FOLDER [--seconds 255]

FOLDER of models is that of `route_gpu`. All fleets are up at once on the same GPUs (8 GiB of KV cache each) and are
asked one after the other, each after a warm-up of 96 pictures of its own. A row says requests/s, TTFT, the share of the
time in which each GPU works (NVML, sampled by a process of its own), and for each process the cores that it uses.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks import route_gpu
from benchmarks import route_servers as servers
from benchmarks.route_gpu_loads import ANSWER_TOKENS, MODEL, SIDE, Contestant, Load, question
from benchmarks.route_load import Request, run
from benchmarks.route_pictures import about, pictures

VARIANTS: dict[str, tuple[list[str], list[str]]] = {
    "plain": ([], []),
    "fit": (["--fit"], []),
    "two API servers": ([], ["--api-server-count", "2"]),
}
"""More for `vlfleet up`, and for the engine."""
LOADS = (Load("unique", 128, limit=256), Load("unique", 128, limit=512), Load("unique", 64, limit=192))
WARM, WARM_IN_FLIGHT = 96, 48
PICTURES = WARM + sum(load.limit for load in LOADS)
SAMPLE_SECONDS = 0.1
KINDS = {"EngineCore": "engine", "ApiServer": "API server", "cli.main serve": "API server", "route_one": "gateway"}
"""Of processes, by what their name or command has."""


@contextmanager
def gpu_shares() -> Iterator[list[int]]:
    """Percent of the time in which each GPU works; filled at the end. A process samples, as the client forks."""
    ours, theirs = multiprocessing.Pipe()
    sampler = multiprocessing.get_context("spawn").Process(target=_sample, args=(theirs,), daemon=True)
    sampler.start()
    ours.recv()
    shares: list[int] = []
    try:
        yield shares
    finally:
        ours.send(None)
        shares += ours.recv()
        sampler.join()


def _sample(pipe: Any) -> None:
    import pynvml  # type: ignore[import-untyped]

    pynvml.nvmlInit()
    gpus = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
    seen: list[list[int]] = []
    pipe.send(None)
    while not pipe.poll(SAMPLE_SECONDS):
        seen.append([pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu for gpu in gpus])
    pipe.send([round(sum(column) / len(column)) for column in zip(*seen, strict=True)])


def cpu() -> dict[int, tuple[str, float]]:
    """By process: what it is, and its CPU seconds."""
    found = {}
    for process in psutil.process_iter():
        try:
            words = f"{process.name()} {' '.join(process.cmdline())}"
            times = process.cpu_times()
        except psutil.Error:
            continue
        kinds = {
            "EngineCore": "engine",
            "ApiServer": "API server",
            "cli.main serve": "API server",
            "route_one": "gateway",
        }
        if kind := next((kind for mark, kind in kinds.items() if mark in words), ""):
            found[process.pid] = kind, times.user + times.system
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=255.0)
    options = parser.parse_args()
    began, rows = time.monotonic(), []
    route_gpu.KV_GIB["fleet"] = 8
    with ExitStack() as stack:
        fleets = {}
        for name, (words, more) in VARIANTS.items():
            logs = options.out / name.replace(" ", "-")
            logs.mkdir(parents=True)
            asked = argparse.Namespace(fleet=words, fake=False, models=options.models)
            home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vlfleet-")))
            arguments = [*route_gpu.fleet_arguments(asked), *more]
            fleets[name] = stack.enter_context(servers.fleet(home, logs, arguments))
        made = pictures([(SIDE, f"{name} {n}") for name in fleets for n in range(PICTURES)], (os.cpu_count() or 4) // 2)
        for fleet in fleets.values():
            if not fleet.wait(began + route_gpu.START_SECONDS):
                sys.exit(fleet.last_words())

        def make(name: str, first: int, url: str) -> Any:
            who, at = Contestant(name, (url,)), list(fleets).index(name) * PICTURES + first
            return lambda number: _request(who, made[at + number], first + number)

        for name, fleet in fleets.items():
            run(make(name, 0, fleet.url), WARM_IN_FLIGHT, limit=WARM)
        for turn, load in enumerate(LOADS):
            first = WARM + sum(each.limit for each in LOADS[:turn])
            for name in [*list(fleets)[turn:], *list(fleets)[:turn]]:
                if time.monotonic() - began > options.seconds:
                    continue
                before = cpu()
                with gpu_shares() as gpus:
                    figures = run(make(name, first, fleets[name].url), load.in_flight, limit=load.limit)
                used = [(kind, end - before[pid][1]) for pid, (kind, end) in cpu().items() if pid in before]
                busy = [(kind, round(seconds / figures.seconds, 2)) for kind, seconds in used if seconds > 0.1]
                row = {"load": f"{load.name} of {load.limit}", "fleet": name, "gpus": gpus, "cores": sorted(busy)}
                rows.append({**row, **figures.to_dict()})
                print(json.dumps(rows[-1]), flush=True)
                (options.out / "route_variants.json").write_text(json.dumps(rows, indent=1))


def _request(who: Contestant, picture: bytes, number: int) -> Request:
    return who.request(number, about(MODEL, picture, question(number), ANSWER_TOKENS))


if __name__ == "__main__":
    main()
