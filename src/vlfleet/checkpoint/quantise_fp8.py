"""FP8 weights without calibration: one scale an output; activations are scaled when they come (W8A8 dynamic).

What llm-compressor writes for FP8_DYNAMIC, in its format, but streaming, on any CPU, with numpy alone: each weight is
read once, and a few MiB of it are in memory. The vision tower, the embeddings, lm_head and the norms stay as they are.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vlfleet.checkpoint.destination_sink import Report, Sink, ignore, read_exactly
from vlfleet.checkpoint.headers import BITS, Tensor, read_header
from vlfleet.checkpoint.info import preflight, read_json, shards_of
from vlfleet.checkpoint.pad import notes_for, with_size
from vlfleet.checkpoint.pad_layout import ONE
from vlfleet.checkpoint.pad_size import SCALED_MULTIPLE, smallest
from vlfleet.checkpoint.quantise_e4m3 import LARGEST, from_bytes, to_bf16, to_e4m3
from vlfleet.checkpoint.writer import Planned, copied, grown
from vlfleet.checkpoint.writer_checkpoint import Rewrite, write_checkpoint
from vlfleet.errors import VlfleetError

WORKERS = min(8, os.cpu_count() or 1)
"""Threads; numpy computes outside of Python's lock."""
BLOCK_BYTES = 1 << 19
"""Of a weight that one thread works on at once: with what is derived from it, it stays in the processor's cache."""
LINEAR = re.compile(r"(.*\blayers\.\d+\.(?:self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj))\.weight$")
_MLP_BIAS = re.compile(r"\blayers\.\d+\.mlp\.(gate|up)_proj\.bias$")
_VISION = re.compile(r"\bvisual\..*\.weight$")
_FLOATS = ("BF16", "F16", "F32")


@dataclass(frozen=True)
class Fp8Plan:
    """What quantising to FP8 would do. Made by `plan_fp8` from headers alone."""

    rewrite: Rewrite
    layers: int
    """Linear layers that become FP8."""
    before: int
    """intermediate_size now."""
    after: int
    """intermediate_size then: padded for the ranks asked for."""
    source_bytes: int
    """Of all shards now."""
    notes: tuple[str, ...] = ()


@dataclass
class Channels:
    """A weight [outputs, inputs] on its way to FP8, padded with zeros to `outputs` and `inputs`."""

    tensor: Tensor
    outputs: int
    inputs: int
    _scales: bytearray = field(default_factory=bytearray)

    def planned(self) -> tuple[Planned, Planned]:
        """The weight and, after it, its scales [outputs, 1]; scales of BF16 weights are BF16, all others F32."""
        dtype = "BF16" if self.tensor.dtype == "BF16" else "F32"
        weight = Planned(self.tensor.name, "F8_E4M3", (self.outputs, self.inputs), self._write)
        return weight, Planned(f"{self.tensor.name}_scale", dtype, (self.outputs, 1), self._write_scales)

    def _write(self, sink: Sink, descriptor: int) -> None:
        self._scales = bytearray()
        for codes, scales in self._blocks(descriptor):
            sink.write(codes)
            self._scales += scales
        sink.write(bytes((self.outputs - self.tensor.shape[0]) * self.inputs))

    def _write_scales(self, sink: Sink, descriptor: int) -> None:
        """Known from writing the weight, unless the file's order puts them before it."""
        scales = self._scales or b"".join(scales for _, scales in self._blocks(descriptor))
        one = ONE["BF16" if self.tensor.dtype == "BF16" else "F32"]
        sink.write(bytes(scales) + one * (self.outputs - self.tensor.shape[0]))

    def _blocks(self, descriptor: int) -> Iterator[tuple[bytes, bytes]]:
        """Codes and scales, block after block, computed by `WORKERS` threads at most twice as many blocks ahead."""
        row_bytes = self.tensor.shape[1] * BITS[self.tensor.dtype] // 8
        step = max(1, BLOCK_BYTES // row_bytes)
        waiting: deque[Future[tuple[bytes, bytes]]] = deque()
        with ThreadPoolExecutor(WORKERS, thread_name_prefix="fp8") as pool:
            for first in range(0, self.tensor.shape[0], step):
                rows = min(step, self.tensor.shape[0] - first)
                waiting.append(pool.submit(self._block, descriptor, first * row_bytes, rows, row_bytes))
                if len(waiting) > 2 * WORKERS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _block(self, descriptor: int, start: int, rows: int, row_bytes: int) -> tuple[bytes, bytes]:
        raw = memoryview(bytearray(rows * row_bytes))
        read_exactly(descriptor, [raw], self.tensor.start + start)
        codes, scales = quantise_rows(raw, self.tensor.dtype, rows)
        if codes is None:
            raise VlfleetError(f"{self.tensor.name} holds NaN or infinity", "download the checkpoint again")
        gap = self.inputs - self.tensor.shape[1]
        return (np.pad(codes, ((0, 0), (0, gap))) if gap else codes).tobytes(), scales


def quantise_rows(raw: memoryview, dtype: str, rows: int) -> tuple[np.ndarray[Any, Any] | None, bytes]:
    """FP8 codes [rows, inputs] (uint8) and the scales' bytes of weights as they lie in the file; None: not all finite.

    A scale maps the row's largest weight to 448; it is rounded to the dtype in which it is stored before the row is
    divided by it, so that rounding it costs nothing. A row of zeros has the scale 1.
    """
    weights = from_bytes(raw, dtype).reshape(rows, -1)
    largest = np.maximum(weights.max(1), -weights.min(1))
    if not np.isfinite(largest).all():
        return None, b""
    scales = np.where(largest > 0, largest / np.float32(LARGEST), np.float32(1)).astype(np.float32)
    stored: np.ndarray[Any, Any] = scales
    if dtype == "BF16":
        stored, scales = to_bf16(scales)
    scales = np.where(scales > 0, scales, np.float32(1))
    return to_e4m3(weights / scales[:, None]), stored.tobytes()


def plan_fp8(source: Path, tp: int = 1) -> Fp8Plan:
    """What it takes to make the checkpoint in folder `source` FP8, for `tp` ranks.

    Whether the checkpoint is quantised already, and whether `tp` can be, is for `plan_quantise` to ask.

    Raises:
        VlfleetError: not a Qwen-VL checkpoint, or damaged.
    """
    config = preflight(source).config
    size = int(config["intermediate_size"])
    after = smallest(size, tp, SCALED_MULTIPLE)
    shards = {shard: read_header(shard) for shard in shards_of(source)}
    plans = {shard: tuple(_shard(tensors, size, after)) for shard, tensors in shards.items()}
    everything = [tensor for tensors in shards.values() for tensor in tensors]
    ignored = list(_not_quantised(everything))
    rewrite = Rewrite(
        source=source,
        config=with_size(read_json(source / "config.json"), after) | {"quantization_config": describe(ignored)},
        shards=plans,
        changed=frozenset(shard for shard, tensors in shards.items() if any(LINEAR.match(t.name) for t in tensors)),
    )
    return Fp8Plan(
        rewrite=rewrite,
        layers=sum(LINEAR.match(tensor.name) is not None for tensor in everything),
        before=size,
        after=after,
        source_bytes=sum(shard.stat().st_size for shard in shards),
        notes=tuple(notes_for(config, tp, rewrite)),
    )


def write_fp8(plan: Fp8Plan, target: Path, report: Report = ignore) -> None:
    """Write it as folder `target`, which must not exist.

    Raises:
        VlfleetError: a weight is NaN or infinite; see also `write_checkpoint`.
    """
    recipe = {"command": "quantise", "scheme": "fp8", "intermediate_size": plan.after}
    write_checkpoint(plan.rewrite, target, recipe, report)


def describe(ignored: list[str]) -> dict[str, Any]:
    """quantization_config, as llm-compressor 0.14 (compressed-tensors 0.19) writes it for FP8_DYNAMIC."""
    common: dict[str, Any] = {"num_bits": 8, "type": "float", "symmetric": True, "group_size": None, "actorder": None}
    common |= {"block_structure": None, "observer_kwargs": {}, "scale_dtype": None, "zp_dtype": None}
    group = {
        "format": "float-quantized",
        "input_activations": {**common, "dynamic": True, "observer": None, "strategy": "token"},
        "output_activations": None,
        "targets": ["Linear"],
        "weights": {**common, "dynamic": False, "observer": "memoryless_minmax", "strategy": "channel"},
    }
    return {
        "config_groups": {"group_0": group},
        "format": "float-quantized",
        "global_compression_ratio": None,
        "ignore": ignored,
        "kv_cache_scheme": None,
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
        "sparsity_config": {},
        "transform_config": {},
        "version": "0.19.0",
    }


def _shard(tensors: list[Tensor], size: int, after: int) -> Iterator[Planned]:
    for tensor in tensors:
        if match := LINEAR.match(tensor.name):
            outputs, inputs = _checked(tensor, match[2], size)
            cut = {"down": (outputs, after), None: (outputs, inputs)}
            yield from Channels(tensor, *cut.get(match[2], (after, inputs))).planned()
        elif after != size and _MLP_BIAS.search(tensor.name):
            yield grown(tensor, 0, after, bytes(BITS[tensor.dtype] // 8))
        else:
            yield copied(tensor)


def _checked(tensor: Tensor, kind: str | None, size: int) -> tuple[int, int]:
    if len(tensor.shape) != 2 or tensor.dtype not in _FLOATS:
        cause = f"{tensor.name} is {tensor.dtype} {list(tensor.shape)}, no matrix of BF16, F16 or F32"
        raise VlfleetError(cause, "give the bf16 checkpoint")
    outputs, inputs = tensor.shape
    if kind and size != (inputs if kind == "down" else outputs):
        cause = f"{tensor.name} has the shape {list(tensor.shape)}, intermediate_size in config.json is {size}"
        raise VlfleetError(cause, "put config.json back as it came: a changed intermediate_size drops neurons")
    return outputs, inputs


def _not_quantised(tensors: Iterable[Tensor]) -> Iterator[str]:
    """Linear layers that stay as they are; compressed-tensors wants each of them told."""
    for tensor in tensors:
        if len(tensor.shape) == 2 and _VISION.search(tensor.name):
            yield tensor.name.removesuffix(".weight")
    yield "lm_head"
