"""The speed that `plan` predicts against the speed that vLLM has, on a grid fixed and predicted before.

    python -m benchmarks.plan_grid --predict                          writes benchmarks/plan_grid.json; commit it
    python -m benchmarks.plan_grid --models /opt/vl/models --out DIR  runs it: two H200, vLLM 0.26, about 8 minutes
    python -m benchmarks.plan_grid --compare DIR/measured.json        the table again; --fit: with coefficients fitted
                                                                      on half of the points, for the other half
    python -m benchmarks.plan_grid --url q25vl-7b-tp1=http://127.0.0.1:8000       one engine that runs already

Every point is a closed loop over JPEG photos, each new, with answers of 32 to 96 tokens. Four engines start together
on the two GPUs (no weights are needed: --load-format dummy); both TP 1 engines are measured at the same time, each on
its own GPU, then the TP 2 engines one after the other while everything else is idle.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from vlfleet.errors import VlfleetError
from vlfleet.hardware.catalogue import find_model
from vlfleet.plan.calibrate import fit
from vlfleet.plan.demand import ImageSize, Workload, pictures
from vlfleet.plan.shape import ModelShape, read_shape
from vlfleet.plan.simulate import speed_of
from vlfleet.plan.simulate_replica import Replica
from vlfleet.plan.simulate_requests import Image, Request
from vlfleet.plan.speed import Percentiles, Setup
from vlfleet.plan.speed_coefficients import FITTED, Coefficients, coefficients_of
from vlfleet.plan.speed_work import Cut

FILE = Path(__file__).with_name("plan_grid.json")
GPU = "H200"
SECONDS = 14.0
SHORTEST, LONGEST = 32, 96
"""Tokens of an answer. With one length for all, the requests of a closed loop would march in step."""
TEXT_TOKENS = 14
"""Of `plan_grid_run.QUESTION` in the chat template, without the visual tokens."""
MAX_PIXELS = 3_211_264
KV_CACHE_BYTES = 16 << 30
FLAGS = (
    "--load-format", "dummy", "--max-model-len", "16384", "--limit-mm-per-prompt", '{"image":1,"video":0}',
    "--mm-processor-kwargs", json.dumps({"max_pixels": MAX_PIXELS}), "--mm-encoder-tp-mode", "data",
    "--kv-cache-memory-bytes", str(KV_CACHE_BYTES), "--gpu-memory-utilization", "0.3", "--no-enable-log-requests",
)  # fmt: skip
MAX_NUM_BATCHED_TOKENS, MAX_NUM_SEQS = 8192, 1024
"""vLLM's defaults on this GPU."""
SIDES, LOADS = (448, 1024, 1792), (1, 16, 64)
VISION = {
    "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "in_chans": 3, "patch_size": 14,
    "spatial_merge_size": 2, "temporal_patch_size": 2,
}  # fmt: skip
SHAPES: dict[str, dict[str, Any]] = {
    "q25vl-3b": {
        "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16,
        "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True,
    },
    "q25vl-7b": {
        "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
        "num_key_value_heads": 4, "vocab_size": 152064, "tie_word_embeddings": False,
    },
}  # fmt: skip
"""Qwen2.5-VL-3B and 7B, from their config.json."""


@dataclass(frozen=True)
class Point:
    """One load on one engine."""

    model: str
    tp: int
    side: int
    load: int

    @property
    def engine(self) -> str:
        return f"{self.model}-tp{self.tp}"

    @property
    def name(self) -> str:
        return f"{self.engine} {self.side} x{self.load}"


@dataclass(frozen=True)
class Figures:
    """What is predicted and what is measured."""

    requests: int
    """So many are sent: the predicted rate for `SECONDS`, and never fewer than can be in flight twice."""
    per_second: float
    ttft_p50: float
    ttft_p95: float
    tpot_p50: float
    bottleneck: str = ""

    @classmethod
    def of(cls, requests: int, per_second: float, ttft: Percentiles, tpot: float, bottleneck: str = "") -> Figures:
        """Rounded to what a file should hold."""
        figures = [round(figure, 5) for figure in (per_second, ttft.p50, ttft.p95, tpot)]
        return cls(requests, figures[0], figures[1], figures[2], figures[3], bottleneck)


def answer_tokens(number: int) -> int:
    """Of the answer to the request of this number, at every point."""
    return random.Random(number).randint(SHORTEST, LONGEST)


def points() -> list[Point]:
    """Two models x TP 1 and 2 x sides x requests in flight; TP 2 without the largest pictures."""
    return [
        Point(model, tp, side, load)
        for tp in (1, 2)
        for model in SHAPES
        for side in SIDES[: 3 if tp == 1 else 2]
        for load in LOADS
    ]


def shape_of(model: str) -> ModelShape:
    """The sizes of the model in /opt/vl/models."""
    sizes = SHAPES[model]
    vision = {**VISION, "out_hidden_size": sizes["hidden_size"]}
    return read_shape({"model_type": "qwen2_5_vl", **sizes, "max_position_embeddings": 128000, "vision_config": vision})


def setup_of(point: Point, coefficients: Coefficients) -> Setup:
    """The engine of a point."""
    setup = Setup(
        shape=shape_of(point.model),
        cut=Cut(tensor_parallel_size=point.tp, mm_encoder_tp_mode="data"),
        gpu=find_model(GPU),
        kv_cache_tokens=0,
        max_num_batched_tokens=MAX_NUM_BATCHED_TOKENS,
        max_num_seqs=MAX_NUM_SEQS,
        max_pixels=MAX_PIXELS,
        coefficients=coefficients,
    )
    per_token = setup.step_clock().work.kv_bytes_per_token
    return replace(setup, kv_cache_tokens=KV_CACHE_BYTES // per_token)


def predict(point: Point, coefficients: Coefficients, requests: int = 0) -> Figures:
    """The same closed loop, simulated: so many requests, or as many as fill `SECONDS`."""
    setup = setup_of(point, coefficients)
    workload = Workload(
        images=(ImageSize(point.side, point.side),),
        prompt_tokens=TEXT_TOKENS,
        output_tokens=(SHORTEST + LONGEST) // 2,
        concurrency=point.load,
    )
    (picture,) = pictures(workload, setup.family, MAX_PIXELS)

    def run(number: int) -> Figures:
        replica = Replica(setup)
        sent = [Request(each, [Image(each, picture)], TEXT_TOKENS, answer_tokens(each)) for each in range(number)]
        speed = speed_of(replica, replica.run(sent, point.load), workload)
        return Figures.of(number, speed.requests_per_second, speed.ttft, speed.tpot.p50, speed.bottleneck)

    least = max(2 * point.load, 16)
    return run(requests or max(least, round(run(4 * least).per_second * SECONDS)))


def predictions() -> dict[str, Any]:
    """What goes into the file."""
    coefficients = coefficients_of(find_model(GPU))
    return {
        "seconds": SECONDS,
        "flags": list(FLAGS),
        "coefficients": asdict(coefficients),
        "points": {point.name: asdict(predict(point, coefficients)) for point in points()},
    }


def read_predictions() -> dict[str, Figures]:
    """Those that were written before.

    Raises:
        VlfleetError: there are none, or of another grid.
    """
    try:
        found = json.loads(FILE.read_text(encoding="utf-8"))
        if found["flags"] != list(FLAGS) or list(found["points"]) != [point.name for point in points()]:
            raise KeyError
        return {name: Figures(**figures) for name, figures in found["points"].items()}
    except (OSError, ValueError, KeyError, TypeError):
        raise VlfleetError(f"{FILE} has no predictions of this grid", "write and commit it with --predict") from None


def table(predicted: dict[str, Figures], measured: dict[str, Figures]) -> list[str]:
    """Markdown: every point with its errors, and what they come to."""
    rows = [
        "| point | requests/s predicted | measured | error | TTFT p50 ms predicted | measured | error "
        "| TPOT ms predicted | measured | error |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    errors: dict[str, list[float]] = {"requests/s": [], "TTFT p50": [], "TPOT": []}
    for name, there in measured.items():
        said = predicted[name]
        cells = [name]
        for what, one, other, unit in (
            ("requests/s", said.per_second, there.per_second, 1),
            ("TTFT p50", said.ttft_p50, there.ttft_p50, 1000),
            ("TPOT", said.tpot_p50, there.tpot_p50, 1000),
        ):
            errors[what].append(100 * (one / other - 1) if other else math.nan)
            cells += [f"{one * unit:.1f}", f"{other * unit:.1f}", f"{errors[what][-1]:+.0f} %"]
        rows.append(f"| {' | '.join(cells)} |")
    for what, values in errors.items():
        sizes = [abs(value) for value in values if not math.isnan(value)]
        if sizes:
            limit = 25 if what == "requests/s" else 35
            rows.append(
                f"\n{what}: mean error {statistics.mean(sizes):.1f} %, median {statistics.median(sizes):.1f} %, "
                f"largest {max(sizes):.0f} %, {sum(size <= limit for size in sizes)} of {len(sizes)} within {limit} %"
            )
    return rows


def fitted(measured: dict[str, Figures]) -> tuple[Coefficients, list[str]]:
    """Coefficients fitted on every second point, and the names of these points."""
    grid = {point.name: point for point in points()}
    used = [name for name in measured if name in grid][::2]

    def residuals(coefficients: Coefficients) -> Sequence[float]:
        found = []
        for name in used:
            said, there = predict(grid[name], coefficients, measured[name].requests), measured[name]
            found += [math.log(said.per_second / there.per_second), math.log(said.ttft_p50 / there.ttft_p50) / 2]
        return found

    names = (*FITTED, "process_seconds_per_pixel", "large_process_seconds_per_pixel", "idle_seconds")
    return fit(coefficients_of(find_model(GPU)), names, residuals, rounds=10), used


def compare(file: Path, refit: bool) -> list[str]:
    """The table of a measured grid; with `refit`, of the points that the coefficients were not fitted on."""
    measured = {name: Figures(**figures) for name, figures in json.loads(file.read_text(encoding="utf-8")).items()}
    if not refit:
        return table(read_predictions(), measured)
    coefficients, used = fitted(measured)
    grid = {point.name: point for point in points()}
    others = {name: figures for name, figures in measured.items() if name not in used}
    said = {name: predict(grid[name], coefficients, figures.requests) for name, figures in others.items()}
    return [f"fitted on {', '.join(used)}: {coefficients}\n", *table(said, others)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predict", action="store_true")
    parser.add_argument("--compare", type=Path)
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--models", type=Path)
    parser.add_argument("--out", type=Path, default=Path())
    parser.add_argument("--url", action="append", default=[], metavar="ENGINE=URL")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    arguments = parser.parse_args()
    say: Callable[[str], None] = lambda line: print(line, flush=True)  # noqa: E731
    if arguments.predict:
        FILE.write_text(json.dumps(predictions(), indent=1) + "\n", encoding="utf-8")
        return 0
    if arguments.compare:
        say("\n".join(compare(arguments.compare, arguments.fit)))
        return 0
    from benchmarks.plan_grid_run import measure, serve

    predicted = read_predictions()
    scale = arguments.seconds / SECONDS
    with serve(arguments.models, arguments.out, dict(each.split("=", 1) for each in arguments.url)) as urls:
        found = asyncio.run(measure(urls, points(), {n: round(f.requests * scale) for n, f in predicted.items()}, say))
    arguments.out.mkdir(parents=True, exist_ok=True)
    file = arguments.out / "measured.json"
    file.write_text(json.dumps({name: asdict(figures) for name, figures in found.items()}, indent=1) + "\n")
    say("\n".join(table(predicted, found)))
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
