"""How a checkpoint's linear layers are quantised, from config.json, and what vLLM allocates for one of them. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from vlfleet.checkpoint.quantization import BNB_BLOCK
from vlfleet.errors import ExitCode, VlfleetError

TAKE = "take config.json from the model's page on the hub"
"""The remedy of a config.json that is incomplete."""


@dataclass(frozen=True)
class Quantized:
    """The scheme of all quantised linear layers, and which layers are left out."""

    kind: str
    """awq, gptq, packed (compressed-tensors' pack-quantized), fp8, int8 (8-bit weights and activations), bnb4, bnb8."""
    bits: int
    group_size: int = 0
    """Inputs that share a scale; 0: one scale an output, or one a tensor."""
    block: tuple[int, int] = (0, 0)
    """Outputs and inputs that share a scale (FP8 in blocks)."""
    symmetric: bool = True
    """Without zero points."""
    per_tensor: bool = False
    """One scale for the whole weight."""
    excluded: tuple[str, ...] = ()
    """As config.json has them: a part of a layer's name, or "re:" and a pattern."""

    def linear(self, inputs: int, outputs: int) -> Iterator[int]:
        """Bytes of each tensor that is there after loading, for a layer of one rank.

        int4   inputs*outputs/2, scales 2*outputs*inputs/group, zero points outputs*inputs/group/2 if it has some
        8 bits inputs*outputs, scales 4*outputs (one a channel), 4 a block, or 4 (one a tensor)
        bnb4   inputs*outputs/2, and 4 for each block of 64
        Sources: create_weights in vLLM's model_executor/layers/quantization/{auto_awq,auto_gptq,fp8}.py and
        compressed_tensors/schemes; GPTQ's zero points and order are dropped once Marlin has the weights.
        A group of GPTQ or pack-quantized may straddle two ranks (0.24 and newer), and is not counted then.

        Raises:
            VlfleetError: a group or block straddles two ranks; `plan.legality` knows vLLM's own words for it.
        """
        if self.kind == "bnb4":
            yield inputs * outputs // 2
            yield -(-inputs * outputs // BNB_BLOCK) * 4
            return
        yield inputs * outputs * self.bits // 8
        if self.group_size:
            straddles = self.kind in ("gptq", "packed")
            groups = inputs // self.group_size if straddles else _groups(inputs, self.group_size)
            yield groups * outputs * 2
            if not self.symmetric:
                yield groups * outputs * self.bits // 8
        elif self.block[0]:
            _groups(inputs, self.block[1])
            _groups(outputs, self.block[0])
            yield _groups(inputs, self.block[1]) * _groups(outputs, self.block[0]) * 4
        elif self.per_tensor:
            yield 4
        else:
            yield outputs * (2 if self.kind in ("gptq", "packed") else 4)

    def for_experts(self, inner: int) -> Quantized:
        """With groups or blocks halved until they divide the experts' part of one rank, as 0.32 does it.

        `plan.legality` knows the releases that refuse instead.
        """
        if self.group_size:
            return replace(self, group_size=math.gcd(self.group_size, inner))
        if self.block[0]:
            return replace(self, block=(math.gcd(self.block[0], inner), math.gcd(self.block[1], inner)))
        return self

    def covers(self, *names: str) -> bool:
        """Whether a layer is quantised, given under every name that it has (hub, transformers 5, vLLM)."""
        return not any(_excludes(self.excluded, name) for name in names)


def read_quantized(config: Mapping[str, Any], override: str | None = None) -> Quantized | None:
    """The scheme in config.json, or the one that `--quantization` makes of 16-bit weights as it loads them.

    Raises:
        VlfleetError: one that is not known.
    """
    text = config.get("text_config") or {}
    found = config.get("quantization_config") or text.get("quantization_config") or config.get("compression_config")
    if not found:
        return _on_the_fly(override)
    method = str(found.get("quant_method", "")).lower()
    excluded = tuple(_excluded(found))
    if method == "awq":
        # Without a list (Qwen2-VL's releases) vLLM asks the headers which layers have 16 bits (AutoAWQConfig's
        # maybe_update_config): AutoAWQ quantises decoder layers alone. A list is taken as it stands.
        excluded = excluded or ("visual",)
        return Quantized("awq", int(found.get("bits", 4)), _group(found), symmetric=False, excluded=excluded)
    if method == "gptq" or method.endswith("auto-round"):
        # The vision tower of a GPTQ checkpoint is 16-bit: AutoGPTQ quantises decoder layers alone.
        return Quantized("gptq", int(found.get("bits", 4)), _group(found), excluded=(*excluded, "visual"))
    if method == "fp8":
        out, inputs = found.get("weight_block_size") or (0, 0)
        return Quantized("fp8", 8, block=(out, inputs), per_tensor=not out, excluded=excluded)
    if method == "bitsandbytes":
        bits = 4 if found.get("load_in_4bit") else 8
        return Quantized(f"bnb{bits}", bits, excluded=excluded)
    if method == "compressed-tensors":
        return _compressed_tensors(found, excluded)
    raise VlfleetError(f"quant_method {method!r} in config.json is none that the planner knows", TAKE)


def _on_the_fly(method: str | None) -> Quantized | None:
    if method is None:
        return None
    if method == "fp8":  # one scale a tensor; vision tower too (Fp8Config.get_quant_method)
        return Quantized("fp8", 8, per_tensor=True)
    if method == "bitsandbytes":
        return Quantized("bnb4", 4)
    raise VlfleetError(f"--quantization {method} needs a checkpoint that is quantised so", "use fp8 or bitsandbytes")


def _compressed_tensors(found: Mapping[str, Any], excluded: tuple[str, ...]) -> Quantized:
    groups = found.get("config_groups") or {}
    weights = next((group.get("weights") for group in groups.values() if group.get("weights")), None)
    if not isinstance(weights, dict):
        raise VlfleetError("quantization_config in config.json has no config_groups with weights", TAKE)
    bits, strategy = int(weights.get("num_bits", 8)), str(weights.get("strategy") or "channel")
    if weights.get("type") == "float":
        block = tuple(weights.get("block_structure") or (0, 0)) if strategy == "block" else (0, 0)
        return Quantized("fp8", bits, block=(block[0], block[1]), per_tensor=strategy == "tensor", excluded=excluded)
    activations = next((group.get("input_activations") for group in groups.values()), None)
    if bits == 8 and activations:
        return Quantized("int8", 8, per_tensor=strategy == "tensor", excluded=excluded)
    group_size = int(weights.get("group_size") or 0) if strategy == "group" else 0
    return Quantized("packed", bits, group_size, symmetric=bool(weights.get("symmetric", True)), excluded=excluded)


def _excluded(found: Mapping[str, Any]) -> Iterator[str]:
    for key in ("modules_to_not_convert", "ignore", "ignored_layers", "llm_int8_skip_modules"):
        yield from (str(name) for name in found.get(key) or ())


def _group(found: Mapping[str, Any]) -> int:
    """-1 means one group over all inputs."""
    size = int(found.get("group_size") or found.get("q_group_size") or 128)
    return max(size, 0)


def _groups(size: int, group: int) -> int:
    if size % group:
        raise VlfleetError(
            f"{size:,} inputs or outputs of one rank are no multiple of the quantisation group of {group}",
            "use a smaller --tensor-parallel-size, or pad the checkpoint",
            ExitCode.DOES_NOT_FIT,
        )
    return size // group


@lru_cache(maxsize=4096)
def _excludes(excluded: tuple[str, ...], name: str) -> bool:
    """As vLLM matches: patterns from the start, names anywhere (quantization/utils/quant_utils.py)."""
    return any(
        re.match(entry[3:], name) is not None if entry.startswith("re:") else entry in name for entry in excluded
    )
