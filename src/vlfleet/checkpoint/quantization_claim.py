"""What a checkpoint says of its own quantisation, and where that differs from what its headers show. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from vlfleet.checkpoint.quantization import Format, Quantization, Scheme, Strategy

METHODS = {
    Format.AWQ: ("awq", "intel/auto-round", "auto-round"),
    Format.GPTQ: ("gptq", "intel/auto-round", "auto-round"),
    Format.PACKED: ("compressed-tensors",),
    Format.FP8: ("fp8", "compressed-tensors", "fbgemm_fp8", "modelopt"),
    Format.INT8: ("compressed-tensors",),
    Format.BNB_4BIT: ("bitsandbytes",),
    Format.BNB_8BIT: ("bitsandbytes",),
}
"""Values of `quant_method` under which engines read a format."""


@dataclass(frozen=True)
class Claim:
    """quantization_config, as far as it says what headers can contradict. None: it does not say."""

    method: str
    bits: int | None = None
    group_size: int | None = None
    """-1: one scale a channel."""
    block: tuple[int, int] | None = None
    symmetric: bool | None = None
    desc_act: bool | None = None


def read_claim(config: Mapping[str, Any]) -> Claim | None:
    """What `config` (the quantization_config of config.json) says; None when it is empty."""
    if not config:
        return None
    method = str(config.get("quant_method", "")).lower()
    if method == "compressed-tensors":
        return _compressed_tensors(config)
    if method == "bitsandbytes":
        return Claim(method, bits=4 if config.get("load_in_4bit") else 8)
    block = config.get("weight_block_size")
    zero_point = config.get("zero_point")
    return Claim(
        method,
        bits=8 if method == "fp8" else _number(config.get("bits", config.get("w_bit"))),
        group_size=_number(config.get("group_size", config.get("q_group_size"))),
        block=(block[0], block[1]) if isinstance(block, list) and len(block) == 2 else None,
        symmetric=not zero_point if isinstance(zero_point, bool) else _flag(config.get("sym")),
        desc_act=_flag(config.get("desc_act")),
    )


def _compressed_tensors(config: Mapping[str, Any]) -> Claim:
    """Of its first group of layers."""
    groups = config.get("config_groups")
    first: object = next(iter(groups.values()), {}) if isinstance(groups, dict) else {}
    weights = first.get("weights") if isinstance(first, dict) else None
    weights = weights if isinstance(weights, dict) else {}
    block = weights.get("block_structure")
    group_size = _number(weights.get("group_size"))
    return Claim(
        "compressed-tensors",
        bits=_number(weights.get("num_bits")),
        group_size=-1 if weights.get("strategy") == "channel" else group_size,
        block=(block[0], block[1]) if isinstance(block, list) and len(block) == 2 else None,
        symmetric=_flag(weights.get("symmetric")),
        desc_act=weights.get("actorder") in ("group", True) if "actorder" in weights else None,
    )


def completed(scheme: Scheme, claim: Claim | None) -> Scheme:
    """`scheme` with what only the configuration knows: whether GPTQ is symmetric, and sorted by activation."""
    if claim is None:
        return scheme
    symmetric = claim.symmetric if scheme.symmetric is None else scheme.symmetric
    desc_act = claim.desc_act if scheme.desc_act is None else scheme.desc_act
    return replace(scheme, symmetric=symmetric, desc_act=desc_act)


def disagreements(found: Quantization | None, claim: Claim | None) -> list[str]:
    """Where configuration and headers differ, one sentence each; empty when they agree."""
    if found is None:
        if claim and claim.method:
            return [f"config.json says {claim.method}, but no tensor is quantised"]
        return []
    scheme = found.scheme
    if claim is None:
        return [f"the tensors are quantised ({scheme}), but config.json has no quantization_config"]
    wrong = []
    if claim.method not in METHODS[scheme.format]:
        wrong.append(f"config.json says quant_method {claim.method!r}, the tensors are {scheme.format}")
    if claim.bits is not None and claim.bits != scheme.bits:
        wrong.append(f"config.json says {claim.bits} bits, the tensors have {scheme.bits}")
    if scheme.strategy in (Strategy.GROUP, Strategy.CHANNEL) and scheme.format is not Format.BNB_4BIT:
        size = scheme.group_size if scheme.strategy is Strategy.GROUP else -1
        if claim.group_size not in (None, size):
            wrong.append(f"config.json says group_size {claim.group_size}, the scales have {size}")
    if scheme.strategy is Strategy.BLOCK and claim.block not in (None, scheme.block):
        wrong.append(f"config.json says blocks of {claim.block}, the scales have {scheme.block}")
    if None not in (scheme.symmetric, claim.symmetric) and scheme.symmetric != claim.symmetric:
        has = "no zero points" if scheme.symmetric else "zero points"
        wrong.append(f"config.json says symmetric is {claim.symmetric}, the tensors have {has}")
    return wrong


def _number(value: object) -> int | None:
    return value if type(value) is int else None


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None
