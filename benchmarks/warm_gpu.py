"""What the first pictures after a start cost their clients, with the supervisor's first picture before them or not.

    python -m benchmarks.warm_gpu --model FOLDER/q25vl-7b [--up "ARGUMENTS OF up"] [--engines WARM COLD]

Needs one GPU and a vLLM ($VLFLEET_VLLM, or beside vlfleet); real shapes will do (the weights are made up). Each engine
is started twice through `vlfleet up`, the second time with the caches of compiled code that the first start left. Then
six pictures that nobody has seen are asked about, one after the other: two of each of three sizes, one token each. If
one size is not enough for the warm-up, the first of another size takes longer than the second. Prints a table in
Markdown; details go to stderr.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from benchmarks.route_pictures import about, picture
from vlfleet.engine.vllm import VllmEngine

UP = (
    "--max-model-len 8192 --max-pixels 1003520 --max-num-batched-tokens 16384 -- --load-format dummy "
    """--compilation-config '{"compile_mm_encoder":true}'"""
)
SIZES = ((1024, 1024), (640, 480), (480, 1280))
CACHES = ("VLLM_CACHE_ROOT", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
"""Of compiled code: each pair of starts has its own."""


class Cold(VllmEngine):
    """vLLM as it is: its first client is the first who shows it a picture."""

    needs_warm_up = False


def vlfleet(env: dict[str, str], *arguments: str) -> str:
    """What it prints.

    Raises:
        SystemExit: it failed.
    """
    command = [sys.executable, "-m", "vlfleet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=580)
    if done.returncode:
        raise SystemExit(f"vlfleet {arguments[0]}: {done.stderr[-3000:]}")
    return done.stdout


def first_token_seconds(url: str, model: str, seed: str, size: tuple[int, int]) -> float:
    """Of a stream of one token about a new picture."""
    body = b"".join(about(model, picture(size, seed), "What is this?", 1))
    request = urllib.request.Request(f"{url}/chat/completions", body, {"Content-Type": "application/json"})  # noqa: S310
    began, first = time.perf_counter(), 0.0
    with urllib.request.urlopen(request, timeout=300) as answer:  # noqa: S310
        for line in answer:
            first = first or (time.perf_counter() - began if line.startswith(b"data: ") else 0.0)
    return first


def start(engine: str, options: argparse.Namespace, env: dict[str, str], turn: int) -> dict[str, Any]:
    """One start: phases of the replica, and seconds to the first token of each picture."""
    arguments = [*([options.model] if options.model else []), "--engine", engine, "--no-plan", "--replicas", "1"]
    up = shlex.split(options.up)
    began = time.perf_counter()
    told = json.loads(vlfleet(env, "up", *arguments, "--port", "0", "--detach", "--json", *up))
    try:
        took = time.perf_counter() - began
        (replica,) = json.loads(vlfleet(env, "status", "--json"))["replicas"]
        asked = [
            first_token_seconds(told["url"], told["model"], f"{engine} {turn} {size} {again}", size)
            for size in SIZES
            for again in range(2)
        ]
        return {"up_seconds": took, "phases": replica["phases"], "first_token_seconds": asked}
    finally:
        vlfleet(env, "down")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="", help="a folder; without it the demo model")
    parser.add_argument("--up", default=UP)
    parser.add_argument("--engines", nargs=2, default=("vllm", "benchmarks.warm_gpu:Cold"), metavar=("WARM", "COLD"))
    options = parser.parse_args()
    names = [f"{width} x {height}, {which}" for width, height in SIZES for which in ("first", "second")]
    print(f"| | up s | first picture s | {' ms | '.join(names)} ms |\n|---|---|---|{'---|' * len(names)}", flush=True)
    for name, engine in zip(("warmed up", "cold"), options.engines, strict=True):
        with tempfile.TemporaryDirectory(prefix="vlfleet-warm-") as folder:
            env = {
                **os.environ,
                **{each: str(Path(folder) / each) for each in CACHES},
                "VLFLEET_HOME": f"{folder}/home",
            }
            for turn, cache in enumerate(("nothing compiled", "caches there")):
                found = start(engine, options, env, turn)
                cells = [f"{1000 * seconds:.0f}" for seconds in found["first_token_seconds"]]
                warm = found["phases"].get("first picture", 0.0)
                print(f"| {name}, {cache} | {found['up_seconds']:.0f} | {warm:.1f} | {' | '.join(cells)} |", flush=True)
                print(json.dumps({"engine": engine, **found}), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
