"""From a spec and a place to the exact command and environment of one vLLM server. Pure."""

from __future__ import annotations

import json
from typing import Any

from vlfleet.checkpoint import CheckpointInfo
from vlfleet.engine.launch import EngineSpec, Launch, Placement, Value
from vlfleet.engine.vllm.flags import has
from vlfleet.engine.vllm.install import Install
from vlfleet.engine.vllm.versions import leaves_encoder_out
from vlfleet.plan.flags import GPU_MEMORY_UTILIZATION, read_flags
from vlfleet.plan.memory import best_utilization
from vlfleet.plan.rank_memory import Device, Request
from vlfleet.plan.shape import read_shape

IMAGES_PER_PROMPT = 8
LIMITS = {"image": IMAGES_PER_PROMPT, "video": 0}
"""Most media of one request, unless said otherwise. vLLM's own default is 999 of each, and so it profiles a video of
114,688 visual tokens: 13 GiB with the 7B, the usual reason why it does not fit on 24 GB."""

_NVML_MORE = 1.005
"""NVML counts what the driver keeps for itself: 143,771 MiB of an H200, of which CUDA sees 143,156.8 (measured)."""


def command(
    install: Install, info: CheckpointInfo, spec: EngineSpec, placement: Placement, port: int, api_key: str
) -> Launch:
    """The server of one replica on 127.0.0.1:`port`; its key travels in the environment."""
    argv = [install.python, "-m", "vllm.entrypoints.cli.main", "serve"]
    argv += serve_arguments(install, info, spec, placement, port)
    env = environment(install, spec, placement) | {"VLLM_API_KEY": api_key}
    decisions: dict[str, Value] = {"max_tokens_per_image": tokens_per_image(info, spec)}
    if slots := spec.options.max_num_seqs:
        decisions["max_num_seqs"] = slots
    return Launch(tuple(argv), env, frozenset({"VLLM_API_KEY"}), decisions)


def serve_arguments(
    install: Install, info: CheckpointInfo, spec: EngineSpec, placement: Placement, port: int
) -> list[str]:
    """What follows `vllm serve`: the typed options, defaults that are better than vLLM's own, then `engine_args`."""
    given: dict[str, Any] = {name: value for name, value in vars(spec.options).items() if value is not None}
    given |= {"host": "127.0.0.1", "port": port, "served_model_name": spec.served_model_name}
    if spec.tensor_parallel_size > 1:
        given["tensor_parallel_size"] = spec.tensor_parallel_size
    if spec.pipeline_parallel_size > 1:
        given["pipeline_parallel_size"] = spec.pipeline_parallel_size
    if spec.tensor_parallel_size > 1 and not placement.peer_access:
        given.setdefault("disable_custom_all_reduce", True)
    if pixels := given.pop("max_pixels", None):
        given["mm_processor_kwargs"] = {"max_pixels": pixels}
    defaults: dict[str, Any] = {
        "limit_mm_per_prompt": LIMITS,
        # A picture's uuid is known only to the API server that saw it: of four, one request in six fails (0.26.0: 400
        # "Cache miss for image at index 0 but data is not provided."). Replicas do what more of them would.
        "api_server_count": 1,
        "disable_uvicorn_access_log": True,
    }
    lower = gpu_memory_utilization(install, info, spec, placement)
    if lower < GPU_MEMORY_UTILIZATION:
        defaults["gpu_memory_utilization"] = lower
    for name, value in defaults.items():
        if not has(spec.engine_args, flag(name)):
            given.setdefault(name, value)
    return [str(spec.model), *(word for name, value in given.items() for word in words(name, value)), *spec.engine_args]


def flag(option: str) -> str:
    return "--" + option.replace("_", "-")


def words(option: str, value: Any) -> list[str]:
    """One option as vLLM's parser takes it: a switch is there, `--no-` or absent; an object is JSON."""
    match value:
        case True:
            return [flag(option)]
        case False:
            return [flag(f"no_{option}")]
        case dict():
            return [flag(option), json.dumps(value, separators=(",", ":"))]
        case _:
            return [flag(option), str(value)]


def environment(install: Install, spec: EngineSpec, placement: Placement) -> dict[str, str]:
    """What is added to the environment, but for the key."""
    env = {
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "NO_COLOR": "1",
        "PYTHONUNBUFFERED": "1",
    }
    if placement.gpus:
        env["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # as nvidia-smi counts; CUDA itself begins with the fastest
        env["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, placement.gpus))
        if spec.world_size > 1 and not placement.peer_access:
            env["NCCL_P2P_DISABLE"] = "1"  # GeForce drivers refuse it, and NCCL would hang or corrupt (vLLM #5458)
    if install.cpu:
        env["OMP_NUM_THREADS"] = str(spec.threads)
        env["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"  # "auto" binds every replica to the same cores
        if spec.world_size == 1:
            env["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # no worker process: 6 s and 430 MiB less (vllm-cpu 0.32.0)
    return env


def gpu_memory_utilization(install: Install, info: CheckpointInfo, spec: EngineSpec, placement: Placement) -> float:
    """The share of a GPU's memory that vLLM may plan with, rounded down to a hundredth.

    Lower than vLLM's default only where the installed version does not measure what the vision tower needs.
    """
    explicit = spec.options.gpu_memory_utilization
    if explicit is not None:
        return explicit
    if not placement.memory_bytes or not leaves_encoder_out(install.release):
        return GPU_MEMORY_UTILIZATION
    total = int(placement.memory_bytes / _NVML_MORE)
    options = vars(spec.options) | {"limit_mm_per_prompt": spec.options.limit_mm_per_prompt or LIMITS}
    request = Request(
        shape=read_shape(info.config, spec.options.quantization),
        device=Device(total, total),
        release=install.release,
        flags=read_flags(options),
        tensor_parallel_size=spec.tensor_parallel_size,
        pipeline_parallel_size=spec.pipeline_parallel_size,
        max_pixels=info.max_pixels,
    )
    # With 0 not even the weights fit: the engine says so in its own words.
    return min(GPU_MEMORY_UTILIZATION, best_utilization(request) or GPU_MEMORY_UTILIZATION)


def tokens_per_image(info: CheckpointInfo, spec: EngineSpec) -> int:
    """Visual tokens of the largest image that the processor lets through."""
    return (spec.options.max_pixels or info.max_pixels) // info.family.factor**2
