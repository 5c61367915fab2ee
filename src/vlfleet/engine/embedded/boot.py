"""From a command line to a service that can answer: checked, loaded, sized to the memory there is, warmed up."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vlfleet.checkpoint import CheckpointInfo, preflight
from vlfleet.engine.embedded.args import EngineArgs
from vlfleet.engine.embedded.fits import check_host_memory, refuse_quantised
from vlfleet.errors import ExitCode, VlfleetError

if TYPE_CHECKING:
    from vlfleet.engine.embedded.server import Service

KEY_VARIABLE = "VLFLEET_ENGINE_KEY"
MAX_MODEL_LEN = 32_768
"""When --max-model-len is not given: Qwen2.5-VL's own 128,000 would promise more than this engine's speed can keep."""
MIN_MODEL_LEN = 64
"""Below it not even a thumbnail and a word fit."""
RESERVE_BYTES = 1 << 30
"""Left to the libraries, activations of one picture, and the rest of the machine."""

_began = time.monotonic()


def phase(name: str) -> None:
    """Tell the log, and through it the supervisor, what begins now."""
    print(f"phase: {name} ({time.monotonic() - _began:.1f} s)", flush=True)


def boot(args: EngineArgs) -> Service:
    """Import, load, check and warm up.

    Raises:
        VlfleetError: the checkpoint is broken, or there is no memory for it.
    """
    info = preflight(args.model)
    refuse_quantised(info)
    longest = _longest(args, info)
    phase("import")
    import torch

    from vlfleet.engine.embedded.encoder_cache import EncoderCache
    from vlfleet.engine.embedded.metrics import Metrics
    from vlfleet.engine.embedded.model import Model
    from vlfleet.engine.embedded.prompt import PromptBuilder, load_tokenizer
    from vlfleet.engine.embedded.scheduler import Limits, Scheduler
    from vlfleet.engine.embedded.server import Service

    threads = int(os.environ.get("OMP_NUM_THREADS", "0")) or os.cpu_count() or 1
    torch.set_num_threads(threads)
    # A decoding step took 45 to 62 ms when the cache grew to a length not seen before, 19 ms at lengths seen (3B shape,
    # H200, torch 2.11): cuDNN's attention, which torch prefers there, plans anew for every shape.
    torch.backends.cuda.enable_cudnn_sdp(False)
    if not torch.cuda.is_available() and not args.device_map:
        check_host_memory(info, args.dtype)
    phase("load")
    tokenizer = load_tokenizer(info)
    model = Model(info, args)
    phase("warm-up")
    room = _plan_cache(args, longest, model.kv_bytes_per_token, _free_bytes(model.layer_devices))
    builder = PromptBuilder(info, args, tokenizer, room.max_model_len, model.tokens_per_second)
    generation = _generation_config(info)
    cache = EncoderCache(args.encoder_cache_bytes)
    name = args.served_model_name or info.path.name
    metrics = Metrics(name, cache)
    scheduler = Scheduler(
        model,
        Limits(args.max_num_seqs, args.max_num_batched_tokens, args.max_num_queued_reqs, room.kv_tokens),
        builder.decode,
        _end_tokens(info, generation),
        builder.vocab_size,
        cache,
        metrics,
    )
    _warm_up(model, info)
    scheduler.start()
    what = f"{info.parameters / 1e6:,.1f} M parameters in {model.dtype} on {model.device}, {threads} threads"
    print(f"{name}: {what}, context {room.max_model_len:,}, key-value cache {room.kv_tokens:,} tokens", flush=True)
    pool = ThreadPoolExecutor(max(1, threads), thread_name_prefix="media")
    key = os.environ.pop(KEY_VARIABLE, "")
    return Service(name, builder, scheduler, cache, metrics, _sampling_defaults(generation), pool, key)


@dataclass(frozen=True)
class _Room:
    max_model_len: int
    kv_tokens: int


def _longest(args: EngineArgs, info: CheckpointInfo) -> int:
    """Tokens that prompt and answer may have, as far as the model goes.

    Raises:
        VlfleetError: --max-model-len is more than the model has.
    """
    longest = args.max_model_len or min(info.max_model_len, MAX_MODEL_LEN)
    if longest > info.max_model_len:
        cause = f"--max-model-len {longest:,} is more than the model's {info.max_model_len:,}"
        raise VlfleetError(cause, f"use at most {info.max_model_len}", ExitCode.USAGE)
    return longest


def _plan_cache(args: EngineArgs, longest: int, bytes_per_token: int, free_bytes: int) -> _Room:
    """How long an answer may be, at most `longest`, and how many tokens may be held at once.

    Raises:
        VlfleetError: there is no memory for it.
    """
    budget = args.kv_cache_memory_bytes or min(free_bytes // 2, args.max_num_seqs * longest * bytes_per_token)
    kv_tokens = budget // bytes_per_token
    if kv_tokens < MIN_MODEL_LEN:
        cause = f"{budget / 2**20:,.0f} MiB are left for the key-value cache, which holds {kv_tokens} tokens there"
        remedy = "free memory, or raise --kv-cache-memory-bytes"
        raise VlfleetError(cause, remedy, ExitCode.DOES_NOT_FIT)
    if args.max_model_len and kv_tokens < longest:
        needed = longest * bytes_per_token / 2**30
        cause = (
            f"one answer of {longest:,} tokens needs {needed:.1f} GiB of key-value cache, there is {budget / 2**30:.1f}"
        )
        raise VlfleetError(cause, f"use --max-model-len {kv_tokens}", ExitCode.DOES_NOT_FIT)
    return _Room(min(longest, kv_tokens), kv_tokens)


def _free_bytes(layer_devices: Sequence[str]) -> int:
    """What keys and values of all layers may take, when each device holds those of its own layers."""
    layers = Counter(layer_devices)
    return min(_free_on(device) * len(layer_devices) // count for device, count in layers.items())


def _free_on(device: str) -> int:
    import psutil
    import torch

    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(device)[0])
    return max(0, int(psutil.virtual_memory().available) - RESERVE_BYTES)


def _generation_config(info: CheckpointInfo) -> dict[str, Any]:
    file = info.path / "generation_config.json"
    with contextlib.suppress(OSError, ValueError, TypeError):
        return dict(json.loads(file.read_text(encoding="utf-8")))
    return {}


def _sampling_defaults(generation: dict[str, Any]) -> dict[str, Any]:
    """What a request leaves open, from generation_config.json, as vLLM reads it; do_sample false means greedy."""
    names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_new_tokens")
    defaults = {name: generation[name] for name in names if type(generation.get(name)) in (int, float)}
    return {**defaults, "temperature": 0.0} if generation.get("do_sample") is False else defaults


def _end_tokens(info: CheckpointInfo, generation: dict[str, Any]) -> frozenset[int]:
    end = generation.get("eos_token_id", info.config.get("eos_token_id"))
    tokens = end if isinstance(end, list) else [end]
    return frozenset(token for token in tokens if type(token) is int and 0 <= token < info.config["vocab_size"])


def _warm_up(model: Any, info: CheckpointInfo) -> None:
    """One picture and two steps, so that the first person does not pay for lazy initialisation."""
    import numpy as np

    from vlfleet.engine.embedded.kv import BatchCache
    from vlfleet.engine.embedded.preprocess import Medium

    family = info.family
    values = np.zeros((16, 3 * family.temporal_patch_size * family.patch_size**2), np.float32)
    seen = model.see(Medium(values, (1, 4, 4)))
    cache = BatchCache()
    steps = list(range(len(seen)))
    model.prefill([0] * len(seen), [(0, seen)], [steps] * 3, cache)
    model.decode([0], [len(steps)], cache)
