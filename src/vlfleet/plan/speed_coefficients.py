"""What the datasheet does not say: how much of a peak is reached, and what an engine costs beside its arithmetic.

Three kinds of coefficients, by where their default comes from:

prior     of GPUs in general: fits on AIConfigurator's measured operators (ai-dynamo/aiconfigurator, Apache-2.0)
host      CPU seconds of vLLM 0.32's and transformers 5's own code on one core, by benchmarks/host_costs.py
fitted    on `FITTED_ROWS` and `FITTED_POINTS`, vLLM 0.26 with Qwen2.5-VL-3B and 7B on H200s, by `least_squares.fit`
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from vlfleet.errors import VlfleetError
from vlfleet.hardware.catalogue import key_of
from vlfleet.hardware.catalogue_table import GpuModel
from vlfleet.home import home

FITTED = (
    "step_seconds",
    "sequence_seconds",
    "mixed_step_seconds",
    "unaligned_efficiency",
    "vision_call_seconds",
    "launch_seconds_per_layer",
    "rank_launch_share",
    "rank_step_seconds",
    "broadcast_seconds_per_byte",
    "process_seconds_per_pixel",
    "large_process_seconds_per_pixel",
    "transfer_seconds_per_byte",
)
"""The coefficients whose defaults were fitted."""
FITTED_ROWS = (
    "offline decode 1",
    "offline decode 64",
    "offline decode 256",
    "defaults text",
    "defaults unique",
    "defaults unique c1",
)
"""The measurements they were fitted on, by their names in tests/plan/measured_h200.py. All others are predicted."""
FITTED_POINTS = (
    "q25vl-3b-tp1 448 x1",
    "q25vl-3b-tp1 448 x64",
    "q25vl-3b-tp1 1024 x16",
    "q25vl-3b-tp1 1792 x1",
    "q25vl-3b-tp1 1792 x64",
    "q25vl-7b-tp1 448 x16",
    "q25vl-7b-tp1 1024 x1",
    "q25vl-7b-tp1 1024 x64",
    "q25vl-7b-tp1 1792 x16",
    "q25vl-3b-tp2 448 x1",
    "q25vl-3b-tp2 448 x64",
    "q25vl-3b-tp2 1024 x16",
    "q25vl-7b-tp2 448 x1",
    "q25vl-7b-tp2 448 x64",
    "q25vl-7b-tp2 1024 x16",
)
"""And on these of benchmarks/plan_grid_h200.json: every second one; the other half is predicted."""


@dataclass(frozen=True)
class Coefficients:
    """Everything that a calibration may change. Efficiencies are shares of a datasheet's peak."""

    gemm_efficiency: float = 0.80
    """Prior; of the GPU (see `coefficients_of`)."""
    memory_efficiency: float = 0.82
    """Prior; of the GPU."""
    kernel_seconds: float = 3.7e-6
    """Prior; what the smallest GEMM takes; of the GPU."""
    eight_bit_efficiency: float = 0.65
    """Prior, of FP8's or INT8's peak; fits for FP8 lie between 0.49 and 0.83."""
    unaligned_efficiency: float = 0.0958
    """Fitted; of a bf16 GEMM whose inner size is no multiple of 8 (Qwen2.5-VL-3B and 7B: 3,420 in the vision tower),
    where no kernel of tensor cores can load 16 bytes at once. Compiled (inductor pads) it is as any other."""
    attention_efficiency: float = 0.5
    """Prior; of prefill and of the vision tower (head sizes of 64 to 128)."""
    decode_attention_efficiency: float = 0.88
    """Prior; of the memory's bandwidth."""
    step_seconds: float = 0.82e-3
    """Fitted; of one step beside its layers: sampling, small kernels, the gaps between them."""
    sequence_seconds: float = 4.66e-6
    """Fitted; of each sequence in a step: sampling over the vocabulary, bookkeeping."""
    mixed_step_seconds: float = 2.18e-3
    """Fitted; a step with prompt tokens in it cannot be replayed as one CUDA graph."""
    rank_step_seconds: float = 0.09e-3
    """Fitted; of a step when ranks are processes of their own (tensor or pipeline parallelism); what they
    are to do is sent while the step before runs."""
    broadcast_seconds_per_byte: float = 6.3e-10
    """Fitted; pixels of new requests on their way from the engine to ranks that are processes of their own."""
    vision_call_seconds: float = 6.2e-3
    """Fitted; one pass of the vision tower: the GPU waits while positions and windows are worked out and copied."""
    launch_seconds_per_layer: float = 6.6e-4
    """Fitted; an eager vision layer's kernels are launched one by one. transformers' tower alone takes 3.2e-4;
    in the engine the interpreter is shared with the threads that read requests and send tokens."""
    rank_launch_share: float = 0.62
    """Fitted; of that, where a rank is a process of its own: nothing else there wants the interpreter."""
    compiled_launch_share: float = 0.3
    """Of that, when the vision tower is compiled. Not measured."""
    feed_seconds_per_byte: float = 1.5e-10
    """Host; pixels are copied twice on their way to the GPU (concatenated, and into pinned memory)."""
    transfer_seconds_per_byte: float = 2.46e-10
    """Fitted; pixels from API server to engine (msgpack over a local socket); 2.5e-10 to 9.1e-10 in three runs
    on a busy machine."""
    decode_seconds_per_pixel: float = 4.1e-9
    """Host; Pillow, JPEG quality 92."""
    hash_seconds_per_pixel: float = 0.95e-9
    """Host; blake3 of the decoded picture."""
    process_seconds_per_pixel: float = 2.54e-8
    """Fitted; Qwen2VLImageProcessor (torchvision backend) in the API server, by pixels of the resized picture. Alone on
    one core of another machine it takes 1.35e-8."""
    process_seconds_per_sent_pixel: float = 1.2e-9
    """Host; reading the picture that is resized."""
    large_process_seconds_per_pixel: float = 1.72e-8
    """Fitted; above `LARGE_PIXELS`, where every buffer is mapped anew. Page faults made it 3.1e-8 in a sandbox; on the
    host of the H200s larger pictures are cheaper by the pixel."""
    request_seconds: float = 2.1e-3
    """Host; of the API server's event loop for each request: HTTP, JSON, chat template, answer."""
    medium_seconds: float = 0.5e-3
    """Host; of the media thread for each picture, known or not: look-up, prompt."""
    body_seconds_per_byte: float = 6.5e-9
    """Host; of the event loop, to read and parse a picture sent as base64 (2.5 ms for 385 kB)."""
    token_seconds: float = 3.6e-5
    """Host; of the event loop, for each token that is streamed."""
    delivery_seconds: float = 0.66e-3
    """Host; of the event loop, for each step whose tokens are streamed."""
    idle_seconds: float = 4e-3
    """A request's way through sockets and threads when nothing else happens, first token included. Not measured."""


LARGE_PIXELS = 1_398_101
"""A processed picture (24 bytes a pixel) of more than 32 MiB: glibc's largest DEFAULT_MMAP_THRESHOLD_MAX (malloc.c)."""

_GPU_PRIORS: tuple[tuple[tuple[int, int], bool, dict[str, float]], ...] = (
    ((10, 0), False, {"gemm_efficiency": 0.71, "memory_efficiency": 0.80, "kernel_seconds": 3.2e-6}),
    ((12, 0), False, {"gemm_efficiency": 0.80, "memory_efficiency": 0.86, "kernel_seconds": 2.6e-6}),
    ((9, 0), False, {"gemm_efficiency": 0.80, "memory_efficiency": 0.82, "kernel_seconds": 3.7e-6}),
    ((8, 9), True, {"gemm_efficiency": 0.63, "memory_efficiency": 0.86, "kernel_seconds": 1.1e-6}),
    ((8, 9), False, {"gemm_efficiency": 0.80, "memory_efficiency": 0.86, "kernel_seconds": 1.1e-6}),
    ((8, 0), False, {"gemm_efficiency": 0.84, "memory_efficiency": 0.75, "kernel_seconds": 5.5e-6}),
)
_FULL_RATE_TFLOPS = 300.0
"""Ada cards above it (L40S, RTX 6000 Ada) cannot hold their clock at full rate; GeForce and L4 run at half of it."""


def coefficients_of(gpu: GpuModel) -> Coefficients:
    """The defaults for a GPU: fits exist for A100, H100, H200, L40S, RTX PRO 6000 and B200; others get the nearest's.

    GeForce of compute capability 8.9 gets the clock of an unthrottled card, 8.6 and before the A100's shares: neither
    was measured.
    """
    for capability, throttled, priors in sorted(_GPU_PRIORS, key=lambda row: (row[0], row[1]), reverse=True):
        if gpu.capability >= capability and (not throttled or gpu.fp16_tflops >= _FULL_RATE_TFLOPS):
            return replace(Coefficients(), **priors)
    return replace(Coefficients(), **_GPU_PRIORS[-1][2])


def path_of(gpu: str, release: str) -> Path:
    """home()/calibration/h200-0.26.0-speed.json, beside what is known of its memory; by `hardware.catalogue.key_of`."""
    name = key_of(gpu) or "gpu"
    return home() / "calibration" / f"{name}-{release}-speed.json"


def write(coefficients: Coefficients, gpu: str, release: str, rows: Sequence[str]) -> Path:
    """Its file, replaced in one step; `rows` names the measurements behind it."""
    file = path_of(gpu, release)
    file.parent.mkdir(parents=True, exist_ok=True)
    data = {"gpu": gpu, "release": release, "rows": list(rows), "coefficients": asdict(coefficients)}
    beside = file.with_suffix(".new")
    beside.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    beside.replace(file)
    return file


def read(gpu: GpuModel, name: str, release: str) -> Coefficients:
    """Those measured with this vLLM on the GPU of this name, NVML's or the catalogue's; without any, `gpu`'s defaults.

    Raises:
        VlfleetError: the file is there but cannot be used.
    """
    file = path_of(name, release)
    try:
        found = json.loads(file.read_text(encoding="utf-8"))["coefficients"]
        values = {field.name: float(found[field.name]) for field in fields(Coefficients) if field.name in found}
        if not all(0 < value < math.inf for value in values.values()):
            raise ValueError("a coefficient is not above 0")
    except FileNotFoundError:
        return coefficients_of(gpu)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise VlfleetError(f"{file} is no calibration: {error}", f"remove {file}, or calibrate again") from None
    return replace(coefficients_of(gpu), **values)
