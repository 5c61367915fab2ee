"""From a spec and a place to the exact command and environment of one vLLM server. Pure."""

from __future__ import annotations

import json
import math
from typing import Any

from vlfleet.checkpoint import CheckpointInfo
from vlfleet.engine.launch import EngineSpec, Launch, Placement
from vlfleet.engine.vllm.flags import has
from vlfleet.engine.vllm.install import Install
from vlfleet.engine.vllm.versions import UNPROFILED_ENCODER

GPU_MEMORY_UTILIZATION = 0.92
"""vLLM's default since 0.20 (config/cache.py)."""
IMAGES_PER_PROMPT = 8
LIMITS = {"image": IMAGES_PER_PROMPT, "video": 0}
"""Most media of one request, unless said otherwise. vLLM's own default is 999 of each, and so it profiles a video of
114,688 visual tokens: 13 GiB with the 7B, the usual reason why it does not fit on 24 GB."""

_CONTEXT_BYTES = 640 << 20
"""CUDA's context: 0.51 GiB of an H200 were taken before vLLM looked (measured, 0.26.0)."""
_GRAPH_BYTES = 960 << 20
"""CUDA graphs of the 7B: 0.90 GiB (measured, 0.26.0), which the V2 runner of 0.25 and 0.26 does not estimate."""
_MARGIN_BYTES = 256 << 20


def command(
    install: Install, info: CheckpointInfo, spec: EngineSpec, placement: Placement, port: int, api_key: str
) -> Launch:
    """The server of one replica on 127.0.0.1:`port`; its key travels in the environment."""
    argv = [install.python, "-m", "vllm.entrypoints.cli.main", "serve"]
    argv += serve_arguments(install, info, spec, placement, port)
    env = environment(install, spec, placement) | {"VLLM_API_KEY": api_key}
    return Launch(tuple(argv), env, frozenset({"VLLM_API_KEY"}), {"max_tokens_per_image": tokens_per_image(info, spec)})


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
    if not placement.memory_bytes or not UNPROFILED_ENCODER.concerns(install.release):
        return GPU_MEMORY_UTILIZATION
    beside = vision_bytes(info, spec, placement) + _CONTEXT_BYTES + _GRAPH_BYTES + _MARGIN_BYTES
    return min(GPU_MEMORY_UTILIZATION, max(0.1, math.floor(100 * (1 - beside / placement.memory_bytes)) / 100))


def vision_bytes(info: CheckpointInfo, spec: EngineSpec, placement: Placement) -> int:
    """Peak of the vision tower over one full encoder budget, with the encoder cache, in bytes on each rank.

    From tensor lifetimes in vLLM's models/qwen2_vl.py and qwen2_5_vl.py: per patch, three rows of the tower's width and
    an MLP of four times that twice, in 16 bit, and the pixels.
    """
    budget = encoder_budget_tokens(info, spec, placement)
    vision = info.config["vision_config"]
    width = int(vision.get("embed_dim") or vision.get("hidden_size") or 1280)
    ranks = 1 if spec.options.mm_encoder_tp_mode == "data" else spec.tensor_parallel_size
    per_patch = (3 * width + 8 * width // ranks) * 2 + 2352
    return budget * (info.family.spatial_merge_size**2 * per_patch + int(info.config["hidden_size"]) * 2)


def encoder_budget_tokens(info: CheckpointInfo, spec: EngineSpec, placement: Placement) -> int:
    """Visual tokens that vLLM encodes in one step at most: v1/core/encoder_cache_manager.py."""
    default = 8192 if placement.memory_bytes >= 70 << 30 else 2048  # engine/arg_utils.py, for an API server
    return max(spec.options.max_num_batched_tokens or default, tokens_per_image(info, spec))


def tokens_per_image(info: CheckpointInfo, spec: EngineSpec) -> int:
    """Visual tokens of the largest image that the processor lets through."""
    return (spec.options.max_pixels or info.max_pixels) // info.family.factor**2
