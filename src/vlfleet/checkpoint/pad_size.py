"""The smallest intermediate size that can be cut for N ranks, and what padding cannot cure. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vlfleet.errors import ExitCode, VlfleetError

MARLIN_MULTIPLE = 128
"""A rank's part of `down_proj` in int4 or int8: vLLM's Marlin kernels want inputs % 128 and outputs % 64. Up to 0.23 it
refuses others, later it pads them at every step (quantization/utils/marlin_utils.py, marlin_padded_nk)."""
SCALED_MULTIPLE = 16
"""A rank's part of an FP8 or INT8 layer with a scale a channel: cutlass_scaled_mm and torch._scaled_mm."""
VOCABULARY_MULTIPLE = 64
"""vLLM pads the vocabulary to it before it is cut (vocab_parallel_embedding.py)."""


@dataclass(frozen=True)
class Attention:
    """What of a language model is cut for tensor parallelism besides the MLP. Sizes from config.json."""

    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    group: int = 1
    """Inputs that must stay together in `o_proj`, which may be quantised."""
    block: int = 1
    """Outputs that must stay together in q, k and v."""

    @staticmethod
    def of(config: Mapping[str, Any], group: int = 1, block: int = 1) -> Attention:
        heads = int(config["num_attention_heads"])
        head_dim = config.get("head_dim") or int(config["hidden_size"]) // heads
        return Attention(
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(head_dim),
            vocabulary=int(config["vocab_size"]),
            group=group,
            block=block,
        )

    def refusal(self, tp: int) -> str:
        """Why it cannot be cut for `tp` ranks, or an empty string. The rules are vLLM's (C1, C2, kv, C5, C9)."""
        if self.heads % tp:
            return f"{self.heads} attention heads cannot be cut for TP {tp}"
        if self.kv_heads % tp and tp % self.kv_heads:
            return f"{self.kv_heads} key and value heads cannot be cut for TP {tp}"
        padded = -(-self.vocabulary // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE
        if padded % tp:
            return f"{padded} rows of the vocabulary cannot be cut for TP {tp}"
        rank = self.heads // tp * self.head_dim
        if tp > 1 and rank % self.group:
            return f"TP {tp} leaves o_proj {rank} inputs a rank, no multiple of its group of {self.group}"
        key = max(1, self.kv_heads // tp) * self.head_dim
        if rank % self.block or key % self.block:
            return f"TP {tp} leaves {key} key outputs a rank, no multiple of the block of {self.block}"
        return ""

    def legal(self) -> list[int]:
        """Every TP that padding the MLP can make possible."""
        return [tp for tp in range(1, self.heads + 1) if not self.refusal(tp)]


def smallest(size: int, tp: int, multiple: int) -> int:
    """The smallest size of at least `size` that gives each of `tp` ranks a multiple of `multiple`."""
    step = tp * multiple
    return -(-size // step) * step


def multiple_of(formats: Mapping[str, int], asked: int | None) -> int:
    """What a rank's part must be a multiple of. `formats`: each format of the MLP with its group (0: none).

    Raises:
        VlfleetError: exit code 2; `asked` is smaller than what the format needs.
    """
    needed = 1
    for name, group in formats.items():
        needs = {"plain": 1, "scaled": group or SCALED_MULTIPLE}
        needed = math.lcm(needed, needs.get(name) or math.lcm(MARLIN_MULTIPLE, group or 1))
    if asked is None:
        return needed
    if asked < 1 or asked % needed:
        cause = f"--group-size {asked}: this checkpoint needs a multiple of {needed} on each rank"
        raise VlfleetError(cause, f"leave it out, or give {needed} or a multiple of it", ExitCode.USAGE)
    return asked
