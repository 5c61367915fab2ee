"""A smaller checkpoint out of a bf16 one: FP8 by our own arithmetic on any CPU, int4 and INT8 by llm-compressor.

Whatever the scheme, the vision tower, the embeddings and lm_head stay as they are, the processor's files come along,
and the MLP is padded for the ranks asked for.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from vlfleet.checkpoint.destination import check
from vlfleet.checkpoint.destination_files import explained, needs
from vlfleet.checkpoint.destination_sink import Report, ignore
from vlfleet.checkpoint.headers import BITS, Tensor, read_header
from vlfleet.checkpoint.info import CheckpointInfo, preflight, read_json, shards_of
from vlfleet.checkpoint.layout_files import INDEX
from vlfleet.checkpoint.pad import notes_for, plan_pad, write_padded
from vlfleet.checkpoint.pad_scheme import read_scheme
from vlfleet.checkpoint.pad_size import MARLIN_MULTIPLE, SCALED_MULTIPLE, Attention, smallest
from vlfleet.checkpoint.quantise_calibration import Sample, tokens
from vlfleet.checkpoint.quantise_cost import Calibration, calibration
from vlfleet.checkpoint.quantise_fp8 import BLOCK_BYTES as FP8_BLOCK_BYTES
from vlfleet.checkpoint.quantise_fp8 import LINEAR, WORKERS, Fp8Plan, plan_fp8, quantise_rows, write_fp8
from vlfleet.checkpoint.quantise_llmcompressor import calibrate, require
from vlfleet.checkpoint.writer_checkpoint import is_taken
from vlfleet.errors import ExitCode, VlfleetError

SCHEMES = {
    "fp8": "FP8 (E4M3) weights with a scale a channel, activations scaled token by token; no calibration",
    "awq": "int4 weights in groups of 128 with zero points, scaled by activations (AWQ)",
    "gptq": "int4 weights in groups of 128, symmetric (GPTQ)",
    "w8a8": "INT8 weights with a scale a channel, activations scaled token by token (SmoothQuant, GPTQ)",
}
GROUP = 128
FP8_MEMORY_BYTES = 128 << 20
"""Of a process that streams: Python, numpy, and a few MiB a thread; 87 MB were seen with eight threads."""
SAMPLE_INPUTS = 8192


@dataclass(frozen=True)
class QuantisePlan:
    """What quantising would do. Made by `plan_quantise` from headers alone."""

    source: Path
    scheme: str
    tp: int
    parameters: int
    layers: int
    """Linear layers of the language model; all of them are quantised."""
    before: int
    """intermediate_size now."""
    after: int
    """intermediate_size then: padded for `tp` ranks."""
    source_bytes: int
    target_bytes: int
    """Of all shards; for awq, gptq and w8a8 to about a percent."""
    notes: tuple[str, ...]
    samples: tuple[Sample, ...] = ()
    calibration: Calibration | None = None
    fp8: Fp8Plan | None = None


def plan_quantise(source: Path, scheme: str, tp: int = 1, samples: Sequence[Sample] = ()) -> QuantisePlan:
    """What it takes to quantise the checkpoint in folder `source` for `tp` ranks. `samples`: not for fp8.

    Raises:
        VlfleetError: exit code 2: no such scheme, or the checkpoint is quantised already. Exit code 3: no padding makes
            `tp` legal. Exit code 1: not a Qwen-VL checkpoint, or damaged.
    """
    if scheme not in SCHEMES:
        cause = f"--scheme {scheme} is none of {', '.join(SCHEMES)}"
        raise VlfleetError(cause, "vlfleet checkpoint quantise --help tells them apart", ExitCode.USAGE)
    if tp < 1:
        raise VlfleetError(f"--tp {tp}: there is no such number of ranks", "give 1 or more", ExitCode.USAGE)
    info = preflight(source)
    if method := read_scheme(info.config).method:
        raise VlfleetError(f"{source.name} is quantised already ({method})", "give the bf16 checkpoint", ExitCode.USAGE)
    _check_heads(info, scheme, tp)
    if scheme == "fp8":
        fp8 = plan_fp8(source, tp)
        sizes = (fp8.before, fp8.after, fp8.source_bytes, fp8.rewrite.total_bytes)
        return QuantisePlan(source, scheme, tp, info.parameters, fp8.layers, *sizes, fp8.notes, fp8=fp8)
    before = int(info.config["intermediate_size"])
    after = smallest(before, tp, SCALED_MULTIPLE if scheme == "w8a8" else MARLIN_MULTIPLE)
    linears = [t for shard in shards_of(source) for t in read_header(shard) if LINEAR.match(t.name)]
    target_bytes = info.bytes + sum(_growth(tensor, scheme, after / before) for tensor in linears)
    return QuantisePlan(
        source=source,
        scheme=scheme,
        tp=tp,
        parameters=info.parameters,
        layers=len(linears),
        before=before,
        after=after,
        source_bytes=info.bytes,
        target_bytes=int(target_bytes),
        notes=tuple(notes_for(info.config, tp)),
        samples=tuple(samples),
        calibration=calibration(
            scheme, info.config, info.bytes, tokens(samples, info.family, info.min_pixels, info.max_pixels)
        ),
    )


def write_quantised(plan: QuantisePlan, target: Path, report: Report = ignore) -> None:
    """Quantise as planned, into folder `target`, which must not exist.

    With fp8 an interrupted run is continued by the same call; the other schemes begin again.

    Raises:
        VlfleetError: llm-compressor is needed and absent, or gave up; see also `write_checkpoint`.
    """
    if plan.fp8:
        write_fp8(plan.fp8, target, report)
        return
    require()
    check(target, plan.source)
    needs(target.parent, plan.target_bytes * (2 if plan.after > plan.before else 1))
    with (
        explained(target),
        tempfile.TemporaryDirectory(prefix=f".{target.name}.calibrated-", dir=target.parent) as made,
    ):
        folder = Path(made)
        described = calibrate(plan.source, folder, plan.scheme, plan.samples)
        _complete(folder, plan.source, described)
        write_padded(plan_pad(folder, plan.tp), target, report)


def fp8_rate() -> float:
    """Bytes of bf16 a second that this machine turns into FP8 now, measured for about a tenth of a second."""
    import numpy as np

    rows = FP8_BLOCK_BYTES // (2 * SAMPLE_INPUTS)
    weights = np.random.default_rng(0).standard_normal((rows, SAMPLE_INPUTS), np.float32)
    raw = memoryview(bytearray((weights.view(np.uint32) >> np.uint32(16)).astype(np.uint16).tobytes()))
    with ThreadPoolExecutor(WORKERS) as pool:
        began, done = time.perf_counter(), 0
        while time.perf_counter() - began < 0.1:
            list(pool.map(lambda _: quantise_rows(raw, "BF16", rows), range(4 * WORKERS)))
            done += 4 * WORKERS * len(raw)
        return done / (time.perf_counter() - began)


def _check_heads(info: CheckpointInfo, scheme: str, tp: int) -> None:
    attention = Attention.of(info.config, group=GROUP if scheme in ("awq", "gptq") else 1)
    if reason := attention.refusal(tp):
        legal = ", ".join(map(str, attention.legal()))
        remedy = f"use TP {legal}, and more replicas" if legal else "use replicas"
        raise VlfleetError(reason, remedy, ExitCode.DOES_NOT_FIT)


def _growth(tensor: Tensor, scheme: str, padding: float) -> float:
    """Bytes by which this weight grows (so: a negative number), with scales and zero points, padded if of the MLP."""
    elements = tensor.elements * (padding if ".mlp." in tensor.name else 1.0)
    a_group = {"awq": 2.5, "gptq": 2.0}
    after = elements / 2 + a_group[scheme] * elements / GROUP if scheme in a_group else elements
    return after - tensor.elements * BITS[tensor.dtype] / 8


def _complete(folder: Path, source: Path, described: dict[str, object]) -> None:
    """Everything of a checkpoint but weights comes from the source: what a library saves again it often changes."""
    for file in source.iterdir():
        if is_taken(file) and file.name != INDEX:
            shutil.copyfile(file, folder / file.name)
    config = read_json(source / "config.json") | {"quantization_config": described}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + os.linesep, encoding="utf-8")
