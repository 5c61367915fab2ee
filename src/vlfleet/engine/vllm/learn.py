"""From a start that went well to the calibration that the next plan reads: what vLLM's log said of its memory."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import replace

from vlfleet.checkpoint import CheckpointInfo
from vlfleet.engine.launch import EngineSpec, Lesson, Placement, Value
from vlfleet.engine.vllm.command import serve_arguments
from vlfleet.engine.vllm.install import Install
from vlfleet.engine.vllm.said import flag_fields, said, unknown
from vlfleet.hardware.catalogue import find_model
from vlfleet.plan import memory_calibration
from vlfleet.plan.flags import Flags
from vlfleet.plan.memory import Device, Request, memory
from vlfleet.plan.memory_calibration import Calibration
from vlfleet.plan.memory_observed import calibrated
from vlfleet.plan.shape import read_shape
from vlfleet.plan.terms import GIB, MIB

FAR_GIB = 0.25
"""A prediction that is off by more is told: what plans without a calibration are to keep."""
_OF_FREE_MEMORY = ("total_gib", "free_gib")
_GONE_BYTES = (64 * MIB, 3 * GIB)
"""Context and collectives of a rank lie between: 0.49 to 0.88 GiB and 0.3 to 0.8 GiB are known. More or less means
that another process took or gave memory since the GPUs were chosen."""
_SCALES = (0.25, 4.0)
"""An activation so far off is of another model or flag than this one."""
_VARIABLES = ("VLLM_USE_V2_MODEL_RUNNER", "VLLM_PP_LAYER_PARTITION")
"""They change what is measured, and no plan knows of them."""
_lock = threading.Lock()
"""Replicas become ready together, and each corrects what the one before it wrote."""


def learn(
    install: Install, info: CheckpointInfo, spec: EngineSpec, placement: Placement, decisions: Mapping[str, Value]
) -> Lesson | None:
    """Writes the calibration, and says what had been predicted; None where the start tells nothing that plans use.

    Raises:
        OSError: it cannot be written.
        VlfleetError: the one that is there cannot be read.
    """
    request = request_of(install, info, spec, placement)
    if request is None or "kv_cache_gib" not in decisions or request.flags.kv_cache_memory_bytes is not None:
        return None
    with _lock:
        before = memory_calibration.read(placement.gpu, install.release)
        predicted = memory(request, before).available_kv_bytes / GIB
        after = corrected(request, decisions, before)
        if after is not None:
            memory_calibration.write(after)
    real = float(decisions["kv_cache_gib"])
    line = f"{real:.2f} GiB are left for the KV cache, {predicted:.2f} were predicted"
    line += "; the next plan knows" if after else "; it was measured under other conditions than planned, and not kept"
    return Lesson({"predicted_kv_cache_gib": round(predicted, 2)}, line if abs(real - predicted) > FAR_GIB else "")


def request_of(install: Install, info: CheckpointInfo, spec: EngineSpec, placement: Placement) -> Request | None:
    """The question that the memory model answers for this start; None where it has no answer."""
    if install.cpu or not placement.gpu or any(os.environ.get(name) for name in _VARIABLES):
        return None
    arguments = serve_arguments(install, info, spec, placement, 1)[1:]
    if unknown(arguments):
        return None
    given = said(arguments)
    kind = find_model(placement.gpu, placement.memory_bytes)
    total = round(kind.cuda_gib * GIB)
    free = placement.free_bytes or total
    online = given.get("quantization") in ("fp8", "bitsandbytes")
    return Request(
        shape=read_shape(info.config, given["quantization"] if online else None),
        device=Device(total, min(total, free), placement.gpu, kind.capability),
        release=install.release,
        flags=Flags(**flag_fields(given)),
        tensor_parallel_size=spec.tensor_parallel_size,
        pipeline_parallel_size=spec.pipeline_parallel_size,
        max_pixels=info.max_pixels,
    )


def corrected(request: Request, decisions: Mapping[str, Value], known: Calibration) -> Calibration | None:
    """`known` after this start; None where the start cannot have been of this request."""
    found = calibrated(request, decisions, known)
    if request.tensor_parallel_size * request.pipeline_parallel_size == 1:
        gone, least = found.context_bytes, _GONE_BYTES[0]
    else:
        gone, least = found.collectives_bytes, 0
    if not least <= gone <= _GONE_BYTES[1]:
        rest = {name: value for name, value in decisions.items() if name not in _OF_FREE_MEMORY}
        found = calibrated(request, rest, known)
    scales = found.activation_scale, found.vision_scale
    fine = all(_SCALES[0] <= scale <= _SCALES[1] for scale in scales) and found.non_torch_bytes <= _GONE_BYTES[1]
    return replace(found, gpu=request.device.name) if fine else None
