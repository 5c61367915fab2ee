"""The embedded engine's command line, with vLLM's names where vLLM has one."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class EngineArgs:
    """What the embedded engine is told."""

    model: Path
    port: int = 8001
    served_model_name: str = ""
    dtype: str = "auto"
    device_map: Any = None
    max_memory: dict[int | str, str] | None = None
    attn_implementation: str = "sdpa"
    max_model_len: int = 0
    """0: what config.json says, at most 32,768."""
    max_num_seqs: int = 16
    max_num_batched_tokens: int = 2048
    """Prompt tokens that are read between two decoding steps."""
    max_num_queued_reqs: int = 256
    images_per_prompt: int = 8
    video_frames: int = 64
    kv_cache_memory_bytes: int = 0
    """0: room for `max_num_seqs` answers, at most half of the memory that the weights leave."""
    encoder_cache_bytes: int = 256 << 20
    """Vision embeddings kept for the next question on the same medium."""


def parse(argv: Sequence[str]) -> EngineArgs:
    """`argv` without the program's name. Ends the process with exit code 2 when it is wrong."""
    parser = argparse.ArgumentParser(prog="vlfleet.engine.embedded", description=__doc__, allow_abbrev=False)
    default = EngineArgs(Path())
    add = parser.add_argument
    add("model", type=Path, help="checkpoint folder")
    add("--port", type=int, default=default.port)
    add("--served-model-name", default="")
    add("--dtype", choices=("auto", "float32", "bfloat16", "float16"), default="auto")
    add("--device-map", type=_json_or_text, default=None, help="auto, balanced, sequential, a device, or JSON")
    add("--max-memory", type=_memory, default=None, help='JSON, as {"0": "20GiB", "cpu": "60GiB"}')
    add("--attn-implementation", default=default.attn_implementation, help="sdpa, eager, flash_attention_2, ...")
    add("--max-model-len", type=int, default=default.max_model_len)
    add("--max-num-seqs", type=int, default=default.max_num_seqs)
    add("--max-num-batched-tokens", type=int, default=default.max_num_batched_tokens)
    add("--max-num-queued-reqs", type=int, default=default.max_num_queued_reqs)
    add("--limit-mm-per-prompt", type=json.loads, default={}, help='JSON, as {"image": 8, "video": 64 frames}')
    add("--kv-cache-memory-bytes", type=_size, default=default.kv_cache_memory_bytes)
    add("--encoder-cache-bytes", type=_size, default=default.encoder_cache_bytes)
    options = vars(parser.parse_args(argv))
    limits = options.pop("limit_mm_per_prompt")
    options["images_per_prompt"] = int(limits.get("image", default.images_per_prompt))
    options["video_frames"] = int(limits.get("video", default.video_frames))
    return EngineArgs(**options)


def _json_or_text(text: str) -> Any:
    return json.loads(text) if text.startswith("{") else text


def _memory(text: str) -> dict[int | str, str]:
    return {int(key) if key.isdigit() else key: str(value) for key, value in json.loads(text).items()}


def _size(text: str) -> int:
    """Bytes, or a number with K, M, G (powers of 1024), as vLLM reads it."""
    unit = {"K": 10, "M": 20, "G": 30}.get(text[-1:].upper())
    return int(float(text[:-1]) * (1 << unit)) if unit else int(text)
