"""The points of `plan_grid`: what is asked of which engines, and what the model predicts for it."""

from __future__ import annotations

import json
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from vlfleet.errors import VlfleetError
from vlfleet.hardware.catalogue import find_model
from vlfleet.plan.demand import ImageSize, Workload
from vlfleet.plan.shape import ModelShape, read_shape
from vlfleet.plan.simulate import speed_of
from vlfleet.plan.simulate_replica import Replica
from vlfleet.plan.simulate_requests import Image, Request
from vlfleet.plan.speed import Percentiles, Setup, Speed
from vlfleet.plan.speed_coefficients import Coefficients
from vlfleet.plan.speed_work import Cut

HERE = Path(__file__).parent
GPU = "H200"
SHORTEST, LONGEST = 32, 96
"""Tokens of an answer. With one length for all, the requests of a closed loop would march in step."""
TEXT_TOKENS, WORDS_TOKENS = 14, 41
"""Of `plan_grid_run.QUESTION` and `plan_grid_run.WORDS` in the chat template, without visual tokens."""
MAX_PIXELS = 3_211_264
KNOWN = 20
"""Pictures that are asked about again and again; each once before the measurement."""
TTFT_SECONDS, TPOT_SECONDS = 2.0, 0.05
"""What counts as answered in time (`--for chat`)."""
DRAWS = 5
"""Of the lengths of the answers, for one prediction."""
MAX_NUM_SEQS = 1024
"""vLLM's default on this GPU."""
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
Kind = Literal["new", "known", "text"]


@dataclass(frozen=True)
class Point:
    """One load on one engine, or on two that share it."""

    model: str
    tp: int
    side: int
    load: int
    kind: Kind = "new"
    replicas: int = 1

    @property
    def engine(self) -> str:
        return f"{self.model}-{'2x' if self.replicas == 2 else ''}tp{self.tp}"

    @property
    def what(self) -> str:
        """The same for all engines of a model."""
        asked = {"new": f"{self.side}", "known": f"{self.side} known", "text": "text"}[self.kind]
        return f"{asked} x{self.load}"

    @property
    def name(self) -> str:
        return f"{self.engine} {self.what}"


@dataclass(frozen=True)
class Grid:
    """What is asked of which engines."""

    file: str
    seconds: float
    """Of every point, about."""
    points: tuple[Point, ...]
    max_num_batched_tokens: int
    kv_cache_gib: tuple[int, int]
    """Of each rank, with one rank and with two."""
    gpu_memory_utilization: float
    """All engines are there at once: what must be free at the start of each. The KV cache is told in bytes."""

    @property
    def path(self) -> Path:
        """Of its predictions."""
        return HERE / self.file

    def flags(self, tp: int, kv_cache_gib: int | None = None) -> list[str]:
        """Of `vllm serve`, for an engine of so many ranks, with the grid's KV cache or another."""
        return [
            "--load-format", "dummy", "--max-model-len", "16384", "--limit-mm-per-prompt", '{"image":1,"video":0}',
            "--mm-processor-kwargs", json.dumps({"max_pixels": MAX_PIXELS}), "--mm-encoder-tp-mode", "data",
            "--kv-cache-memory-bytes", str((kv_cache_gib or self.kv_cache_gib[tp - 1]) << 30),
            "--gpu-memory-utilization", str(self.gpu_memory_utilization),
            "--max-num-batched-tokens", str(self.max_num_batched_tokens), "--no-enable-log-requests",
        ]  # fmt: skip


def _second() -> tuple[Point, ...]:
    """Two models x TP 1 and 2 x (two sides x three loads, known pictures, text); the 7B also as two replicas."""
    loads: list[tuple[int, int, Kind]] = [(side, load, "new") for side in (672, 1344) for load in (4, 32, 128)]
    loads += [(672, 32, "known"), (0, 32, "text")]
    points = [Point(model, tp, *load) for tp in (1, 2) for model in SHAPES for load in loads]
    shared: list[tuple[int, int, Kind]] = [(672, 32, "new"), (672, 32, "known"), (672, 128, "new"), (1344, 32, "new")]
    return (*points, *(Point("q25vl-7b", 1, *load, replicas=2) for load in shared))


GRIDS = {
    1: Grid(
        "plan_grid.json",
        14.0,
        tuple(
            Point(model, tp, side, load)
            for tp in (1, 2)
            for model in SHAPES
            for side in (448, 1024, 1792)[: 3 if tp == 1 else 2]
            for load in (1, 16, 64)
        ),
        max_num_batched_tokens=8192,
        kv_cache_gib=(16, 16),
        gpu_memory_utilization=0.3,
    ),
    2: Grid(
        "plan_grid2.json",
        7.0,
        _second(),
        max_num_batched_tokens=65536,
        kv_cache_gib=(16, 8),
        gpu_memory_utilization=0.1,
    ),
}


@dataclass(frozen=True)
class Figures:
    """What is predicted and what is measured."""

    requests: int
    """So many are sent: the predicted rate for the grid's seconds, and never fewer than 1.5 times those in flight."""
    per_second: float
    ttft_p50: float
    ttft_p95: float
    tpot_p50: float
    goodput: float = 0.0
    """Of the requests a second, those that were answered in time."""
    bottleneck: str = ""

    @classmethod
    def of(cls, requests: int, speed: Speed) -> Figures:
        """Rounded to what a file should hold."""
        rate, ttft, tpot = speed.requests_per_second, speed.ttft, speed.tpot.p50
        return cls(requests, *_rounded(rate, ttft.p50, ttft.p95, tpot, speed.goodput), speed.bottleneck)

    @classmethod
    def seen(cls, rate: float, ttft: Sequence[float], tpot: Sequence[float], in_time: int) -> Figures:
        """Of one measurement: every request's latencies, and how many were answered in time."""
        part, middle = Percentiles.of(ttft), statistics.median(tpot)
        return cls(len(ttft), *_rounded(rate, part.p50, part.p95, middle, rate * in_time / len(ttft)))


def _rounded(
    rate: float, ttft_p50: float, ttft_p95: float, tpot: float, goodput: float
) -> tuple[float, float, float, float, float]:
    return round(rate, 5), round(ttft_p50, 5), round(ttft_p95, 5), round(tpot, 5), round(goodput, 5)


def answer_tokens(number: int) -> int:
    """Of the answer to the request of this number, at every point."""
    return random.Random(number).randint(SHORTEST, LONGEST)


def known_picture(number: int) -> int:
    """Which of the `KNOWN` pictures the request of this number is about."""
    return random.Random(number + 1).randrange(KNOWN)


def shape_of(model: str) -> ModelShape:
    """The sizes of the model in /opt/vl/models."""
    sizes = SHAPES[model]
    vision = {**VISION, "out_hidden_size": sizes["hidden_size"]}
    return read_shape({"model_type": "qwen2_5_vl", **sizes, "max_position_embeddings": 128000, "vision_config": vision})


def grid_of(point: Point) -> Grid:
    """The grid that has it."""
    return next(grid for grid in GRIDS.values() if point in grid.points)


def setup_of(point: Point, coefficients: Coefficients, grid: Grid | None = None) -> Setup:
    """One engine of a point."""
    grid = grid or grid_of(point)
    setup = Setup(
        shape=shape_of(point.model),
        cut=Cut(tensor_parallel_size=point.tp, mm_encoder_tp_mode="data"),
        gpu=find_model(GPU),
        kv_cache_tokens=0,
        max_num_batched_tokens=grid.max_num_batched_tokens,
        max_num_seqs=MAX_NUM_SEQS,
        max_pixels=MAX_PIXELS,
        coefficients=coefficients,
    )
    per_token = setup.step_clock().work.kv_bytes_per_token
    return replace(setup, kv_cache_tokens=(grid.kv_cache_gib[point.tp - 1] << 30) // per_token)


def workload_of(point: Point) -> Workload:
    """In words of the planner."""
    return Workload(
        images=(ImageSize(point.side, point.side),) if point.side else (),
        prompt_tokens=TEXT_TOKENS if point.side else WORDS_TOKENS,
        output_tokens=(SHORTEST + LONGEST) // 2,
        concurrency=point.load,
        ttft_p95_seconds=TTFT_SECONDS,
        tpot_p95_seconds=TPOT_SECONDS,
    )


def predict(point: Point, coefficients: Coefficients, requests: int = 0) -> Figures:
    """The same closed loop, simulated: so many requests, or as many as fill the seconds of its grid.

    A point is over before its bursts are: whether the second one is as sharp as the first depends on little. Medians of
    `DRAWS` simulations with other answers are told.
    """
    setup, workload = setup_of(point, coefficients), workload_of(point)
    pictures = setup.pictures(workload)

    def request(number: int, image: int, draw: int = 0) -> Request:
        images = [Image(image, pictures[0])] if pictures else []
        return Request(number, images, workload.prompt_tokens, answer_tokens(number + 10_000 * draw))

    def run(number: int, draw: int = 0) -> Figures:
        replica, each = Replica(setup), number // point.replicas
        if point.kind == "known":
            replica.run([request(-1 - image, image) for image in range(KNOWN)], 4)
        sent = [request(n, known_picture(n) if point.kind == "known" else n, draw) for n in range(each)]
        measured = replica.run(sent, point.load // point.replicas)
        return Figures.of(number, speed_of(replica, measured, workload, point.replicas))

    least = max(3 * point.load // 2, 16)
    number = requests or max(least, round(run(4 * least).per_second * grid_of(point).seconds))
    return _median([run(number, draw) for draw in range(DRAWS)])


def _median(runs: Sequence[Figures]) -> Figures:
    """Figure by figure; the bottleneck of the first."""

    def middle(of: Callable[[Figures], float]) -> float:
        return statistics.median(map(of, runs))

    return replace(
        runs[0],
        per_second=middle(lambda run: run.per_second),
        ttft_p50=middle(lambda run: run.ttft_p50),
        ttft_p95=middle(lambda run: run.ttft_p95),
        tpot_p50=middle(lambda run: run.tpot_p50),
        goodput=middle(lambda run: run.goodput),
    )


def figures_of(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Figures]:
    """As they were written."""
    known = {field.name for field in fields(Figures)}
    return {name: Figures(**{k: v for k, v in each.items() if k in known}) for name, each in found.items()}


def read_predictions(grid: Grid) -> dict[str, Figures]:
    """Those that were written before.

    Raises:
        VlfleetError: there are none, or of another grid.
    """
    try:
        found = json.loads(grid.path.read_text(encoding="utf-8"))
        if list(found["points"]) != [point.name for point in grid.points]:
            raise KeyError
        return figures_of(found["points"])
    except (OSError, ValueError, KeyError, TypeError):
        raise VlfleetError(
            f"{grid.path} has no predictions of this grid", "write and commit it with --predict"
        ) from None


def read_measured(file: Path) -> tuple[dict[str, Figures], dict[str, float]]:
    """Points, and the rows of a calibration where there are any."""
    found = json.loads(file.read_text(encoding="utf-8"))
    return figures_of(found.get("points", found)), found.get("rows", {})
