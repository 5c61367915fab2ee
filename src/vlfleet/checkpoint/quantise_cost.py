"""What quantising costs: quality by published figures, time and memory by what is known of the method. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BENCHMARKS = ("MMMU", "DocVQA", "MMBench", "MathVista")
QWEN2_VL = {
    "72B": {
        "bf16": (65.44, 95.79, 86.94, 70.19),
        "gptq": (64.00, 95.70, 86.68, 69.20),
        "awq": (64.22, 95.72, 86.43, 68.40),
    },
    "7B": {
        "bf16": (53.77, 93.89, 81.78, 58.20),
        "gptq": (52.55, 93.16, 81.27, 60.30),
        "awq": (53.66, 93.10, 81.61, 56.80),
    },
    "2B": {
        "bf16": (41.88, 88.34, 72.07, 44.40),
        "gptq": (39.22, 87.21, 70.87, 41.69),
        "awq": (41.33, 86.96, 71.64, 39.90),
    },
}
"""Scores of Qwen's own int4 checkpoints (groups of 128): README of Qwen2-VL, VLMEvalKit. Later ones have none."""
PARAMETERS = {"72B": 73.4e9, "7B": 8.29e9, "2B": 2.21e9}
EIGHT_BITS = (
    "more than 99 % of the bf16 score on average over five vision benchmarks, for Qwen2-VL-72B and Qwen2.5-VL 3B, 7B "
    "and 72B (Neural Magic, 2025-03-20, llm-compressor); Qwen has published no table"
)
AWQ_PASSES = 24
"""Forward passes of a decoder layer: its grid of 20 scales (n_grid), what sets it up, and the final one."""
GPTQ_PASSES = 2
SMOOTHQUANT_PASSES = 4
ASSUMED_FLOPS = 200e12
"""Of one H100-class GPU in bf16 with what such a run makes of it. An assumption: nothing of this was measured."""


@dataclass(frozen=True)
class Calibration:
    """What a run of llm-compressor needs. Estimates."""

    host_bytes: int
    """The whole model in bf16 lies in host memory, one decoder layer at a time on the GPU."""
    flops: float
    tokens: int
    """Of all calibration samples."""

    @property
    def seconds(self) -> float:
        return self.flops / ASSUMED_FLOPS


def quality(scheme: str, parameters: int) -> list[str]:
    """What is published about such a checkpoint's quality, in lines; for int4 that of the nearest official size."""
    if scheme in ("fp8", "w8a8"):
        return [EIGHT_BITS]
    name = min(PARAMETERS, key=lambda name: max(parameters / PARAMETERS[name], PARAMETERS[name] / parameters))
    table = QWEN2_VL[name]
    scores = (
        f"{benchmark} {before:.2f} -> {after:.2f}"
        for benchmark, before, after in zip(BENCHMARKS, table["bf16"], table[scheme], strict=True)
    )
    return [f"{', '.join(scores)} (Qwen2-VL-{name}, README of Qwen2-VL, VLMEvalKit)"]


def calibration(scheme: str, config: Mapping[str, Any], source_bytes: int, tokens: int) -> Calibration:
    """What `scheme` (awq, gptq, w8a8) takes for a model with this configuration and so many tokens of samples.

    A forward pass is 2 FLOP a weight and token; GPTQ also sums the square of each layer's inputs (2 x inputs^2 a token)
    and inverts it (about inputs^3 for each of its three steps).
    """
    hidden, size, layers = (int(config[key]) for key in ("hidden_size", "intermediate_size", "num_hidden_layers"))
    heads = int(config["num_attention_heads"])
    key_values = 2 * hidden * int(config.get("num_key_value_heads") or heads) // heads
    weights = layers * hidden * (2 * hidden + key_values + 3 * size)
    passes = {"awq": AWQ_PASSES, "gptq": GPTQ_PASSES, "w8a8": GPTQ_PASSES + SMOOTHQUANT_PASSES}[scheme]
    flops = 2.0 * weights * tokens * passes
    if scheme != "awq":
        flops += layers * sum(2.0 * tokens * inputs**2 + 3.0 * inputs**3 for inputs in [hidden] * 6 + [size])
    return Calibration(host_bytes=source_bytes, flops=flops, tokens=tokens)
