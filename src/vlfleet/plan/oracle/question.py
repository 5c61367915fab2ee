"""What the oracle is asked, and what it answers. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Device:
    """The GPU to decide for; it need not be here."""

    name: str
    """As CUDA says it: "NVIDIA GeForce RTX 4090". It is part of error messages, and vLLM looks for "a100" in it."""
    capability: tuple[int, int]
    memory_bytes: int


@dataclass(frozen=True)
class Question:
    """One configuration of vLLM, in its own words. What is not said is left to vLLM's defaults."""

    model: Path | Mapping[str, Any]
    """A checkpoint folder (its weights are not read, headers alone do), or the content of a config.json."""
    device: Device
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    quantization: str | None = None
    dtype: str = "auto"
    mm_encoder_tp_mode: str = "weights"
    enable_expert_parallel: bool = False
    max_model_len: int | None = None
    max_num_batched_tokens: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    """Any further arguments of vLLM's EngineArgs."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Environment variables for this one: VLLM_PP_LAYER_PARTITION, VLLM_USE_V2_MODEL_RUNNER."""

    @property
    def arguments(self) -> dict[str, Any]:
        """For EngineArgs, without the model."""
        said: dict[str, Any] = {
            "tensor_parallel_size": self.tensor_parallel_size,
            "pipeline_parallel_size": self.pipeline_parallel_size,
            "dtype": self.dtype,
            "mm_encoder_tp_mode": self.mm_encoder_tp_mode,
            "enable_expert_parallel": self.enable_expert_parallel,
        }
        for name in ("quantization", "max_model_len", "max_num_batched_tokens"):
            if (value := getattr(self, name)) is not None:
                said[name] = value
        return {**said, **self.options}


@dataclass(frozen=True)
class RankBytes:
    """What every GPU of one pipeline stage holds before anything runs, in bytes."""

    language: int
    """Layers and the last norm."""
    vision: int
    """Tower and merger."""
    embeddings: int
    lm_head: int
    """0 where it is the embedding."""
    buffers: int
    """Not in the checkpoint: rotary tables, scales of the KV cache."""
    scratch: int
    """Kept outside parameters and buffers: Qwen3-VL's visual features of a step, as wide as max_num_batched_tokens."""
    kv_per_token: int
    """Of the KV cache, all layers of the stage; 0 when this vLLM could not be asked."""

    @property
    def total(self) -> int:
        """The six parts: what is asked of torch's allocator, which rounds up (plan.allocator)."""
        return self.language + self.vision + self.embeddings + self.lm_head + self.buffers + self.scratch


class Verdict(enum.StrEnum):
    """What vLLM would do."""

    STARTS = "starts"
    """As far as configuration and model go; memory is not judged."""
    REFUSED = "refused"
    UNKNOWN = "unknown"
    """The oracle could not tell; `Answer.error` says why, in words that are not vLLM's."""


@dataclass(frozen=True)
class Answer:
    """What vLLM says to one question."""

    verdict: Verdict
    source: str
    """"vLLM 0.32.0 here", or "table of vLLM 0.32.0"."""
    vllm_version: str = ""
    ranks: tuple[RankBytes, ...] = ()
    """One for each pipeline stage, where it starts."""
    decided: Mapping[str, Any] = field(default_factory=dict)
    """What vLLM settled by itself: dtype, quantization, max_model_len, max_num_batched_tokens, max_num_seqs,
    v2_model_runner, attention, vision_attention, methods and kernels (class names, of the language model)."""
    error: str = ""
    """The first exception's text, verbatim; several are empty."""
    error_type: str = ""
    stage: str = ""
    """Where it was raised: "configuration" (before any process starts), "worker" or "model"."""
    where: str = ""
    """The line of vLLM that raised it: "model_executor/layers/linear.py:718"."""
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return self.verdict is Verdict.STARTS
