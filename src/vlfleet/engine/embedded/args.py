"""The embedded engine's command line, with vLLM's names where vLLM has one."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from vlfleet.engine.embedded.fits import PARAMETER_BYTES
from vlfleet.errors import ExitCode, VlfleetError


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


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise VlfleetError(f"the embedded engine: {message}", "see docs/reference/embedded.md", ExitCode.USAGE)


def parse(argv: Sequence[str]) -> EngineArgs:
    """`argv` without the program's name.

    Raises:
        VlfleetError: exit code 2, when it is wrong.
    """
    parser = _Parser(prog="vlfleet.engine.embedded", description=__doc__, allow_abbrev=False)
    default = EngineArgs(Path())
    add = parser.add_argument
    add("model", type=Path, help="checkpoint folder")
    add("--port", type=int, default=default.port, help="on 127.0.0.1 (default: %(default)s; vlfleet up chooses it)")
    add("--served-model-name", default="", help="what clients call it (default: the folder's name)")
    add(
        "--dtype", choices=PARAMETER_BYTES, default="auto", help="auto: float32 on a CPU, the checkpoint's own on a GPU"
    )
    add(
        "--device-map",
        type=_json_or_text,
        default=None,
        help="auto (default: as few GPUs as hold it), balanced, sequential, a device, or JSON",
    )
    add("--max-memory", type=_memory, default=None, help='with --device-map; JSON, as {"0": "20GiB", "cpu": "60GiB"}')
    add("--attn-implementation", default=default.attn_implementation, help="sdpa (default), eager, flash_attention_2")
    add(
        "--max-model-len",
        type=_positive,
        default=0,
        help="tokens of prompt and answer (default: the model's, <= 32768)",
    )
    add("--max-num-seqs", type=_positive, default=default.max_num_seqs, help="decoded together (default: %(default)s)")
    add("--max-num-batched-tokens", type=_positive, default=default.max_num_batched_tokens,
        help="prompt tokens read between two decoding steps (default: %(default)s)")  # fmt: skip
    add("--max-num-queued-reqs", type=_positive, default=default.max_num_queued_reqs,
        help="more that wait are refused with 503 (default: %(default)s)")  # fmt: skip
    add(
        "--limit-mm-per-prompt",
        type=_limits,
        default={},
        help='JSON: images, and frames of a video; {"image": 8, "video": 64}',
    )
    add(
        "--kv-cache-memory-bytes",
        type=_size,
        default=0,
        help="as 4G (default: what max-num-seqs answers need, if free)",
    )
    add(
        "--encoder-cache-bytes", type=_size, default=default.encoder_cache_bytes, help="as 256M, vision embeddings kept"
    )
    options = vars(parser.parse_args(argv))
    limits = options.pop("limit_mm_per_prompt")
    options["images_per_prompt"] = int(limits.get("image", default.images_per_prompt))
    options["video_frames"] = int(limits.get("video", default.video_frames))
    return EngineArgs(**options)


def _json_or_text(text: str) -> Any:
    return json.loads(text) if text.startswith("{") else text


def _limits(text: str) -> dict[str, int]:
    return {str(kind): _positive(str(most)) for kind, most in dict(json.loads(text)).items()}


def _memory(text: str) -> dict[int | str, str]:
    return {int(key) if key.isdigit() else key: str(value) for key, value in dict(json.loads(text)).items()}


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _size(text: str) -> int:
    """Bytes, or a number with K, M, G (powers of 1024), as vLLM reads it."""
    unit = {"K": 10, "M": 20, "G": 30}.get(text[-1:].upper())
    size = int(float(text[:-1]) * (1 << unit)) if unit else int(text)
    if size < 0:
        raise ValueError(text)
    return size
