"""What an engine is started with, and the same as questions for the planner's models of memory and speed."""

from __future__ import annotations

import math
import secrets
from pathlib import Path

from vlfleet.calibrate.memory import Start
from vlfleet.calibrate.target import Target
from vlfleet.checkpoint import preflight
from vlfleet.engine.launch import EngineOptions, EngineSpec
from vlfleet.fleet.spec import default_threads
from vlfleet.hardware.catalogue import find_model
from vlfleet.plan.flags import read_flags
from vlfleet.plan.memory import Device, Request, case_of
from vlfleet.plan.shape import read_shape
from vlfleet.plan.speed import Setup
from vlfleet.plan.speed_work import Cut
from vlfleet.plan.terms import GIB

MAX_PIXELS = 3_211_264
_MAX_MODEL_LEN, _CPU_MODEL_LEN = 32768, 2048
_UTILIZATION = 0.8
"""Of a GPU: what is measured does not depend on it, and 0.26 leaves the vision tower no room by itself."""
_CPU_KV_BYTES = 256 << 20
_DUMMY = ("--load-format", "dummy")


def spec(target: Target, path: Path, ranks: int) -> EngineSpec:
    """The engine of the cut in `path`. Its name is nobody else's: an engine is known by it."""
    served, limits = f"calibrate-{secrets.token_hex(4)}", {"image": 1, "video": 0}
    context = target.model.shape.max_position_embeddings
    if not target.gpus:
        options = EngineOptions(
            max_model_len=min(_CPU_MODEL_LEN, context), limit_mm_per_prompt=limits, kv_cache_memory_bytes=_CPU_KV_BYTES
        )
        threads = default_threads(1)
        return EngineSpec(path, served, threads=threads, options=options, engine_args=(*_DUMMY, "--enforce-eager"))
    free = min(gpu.free_bytes / gpu.memory_bytes for gpu in target.gpus)
    options = EngineOptions(
        max_model_len=min(_MAX_MODEL_LEN, context),
        max_pixels=min(MAX_PIXELS, target.model.max_pixels),
        limit_mm_per_prompt=limits,
        gpu_memory_utilization=min(_UTILIZATION, math.floor(100 * free - 3) / 100),
        mm_encoder_tp_mode="data" if ranks > 1 else None,
        disable_custom_all_reduce=True if ranks > 1 and not target.peer_access else None,
    )
    return EngineSpec(path, served, tensor_parallel_size=ranks, options=options, engine_args=_DUMMY)


def request(target: Target, asked: EngineSpec) -> Request:
    """The same for the model of memory."""
    info = preflight(asked.model, weights=False)
    return Request(
        shape=read_shape(info.config),
        device=_device(target),
        release=target.install.release,
        flags=read_flags(vars(asked.options)),
        tensor_parallel_size=asked.tensor_parallel_size,
        max_pixels=info.max_pixels,
    )


def _device(target: Target) -> Device:
    """As CUDA counts. NVML's total is more, by what the driver keeps, and that is part of what NVML calls used."""
    if target.gpu is None:
        return Device(0, 0, "CPU")
    total = round(target.gpu.cuda_gib * GIB)
    held = max(gpu.memory_bytes - gpu.free_bytes - max(0, gpu.memory_bytes - total) for gpu in target.gpus)
    return Device(total, total - max(0, held), target.where, target.gpu.capability)


def setup(target: Target, start: Start) -> Setup:
    """The same for the model of speed, with what the engine decided."""
    asked, seen = start.request, start.decisions
    settled, ranks = case_of(asked).settled, asked.tensor_parallel_size
    return Setup(
        shape=asked.shape,
        cut=Cut(tensor_parallel_size=ranks, mm_encoder_tp_mode="data" if ranks > 1 else "weights"),
        gpu=target.gpu or find_model("H200"),  # on a CPU nothing is predicted
        kv_cache_tokens=int(seen.get("kv_cache_tokens", 1 << 20)),
        link=target.link,
        max_num_batched_tokens=int(seen.get("max_num_batched_tokens", settled.max_num_batched_tokens)),
        max_num_seqs=settled.max_num_seqs,
        max_pixels=asked.flags.max_pixels or asked.max_pixels,
    )
