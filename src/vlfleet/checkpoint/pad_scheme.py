"""What a checkpoint's quantization_config says that its headers do not, as far as padding needs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vlfleet.errors import VlfleetError

REQUANTISE = "pad the bf16 checkpoint with --group-size 128 instead, then quantise that"


@dataclass(frozen=True)
class Scheme:
    """How linear layers are quantised. Bits, and whatever else shapes tell, are read from the shapes."""

    method: str = ""
    """`quant_method`, lower case; empty: not quantised."""
    groups: tuple[int, ...] = ()
    """Inputs that share a scale; several where layers differ. Empty: one scale for all inputs of an output."""
    blocks: tuple[int, ...] = ()
    """Outputs that share a scale (FP8 in blocks)."""
    symmetric: bool = True
    """Every zero point is the middle of the range."""
    awq_layout: bool = False
    """qweight is packed along the outputs (AWQ), not along the inputs (GPTQ)."""
    zero_shift: int = 0
    """What is subtracted from a zero point when it is stored: 1 in the first version of GPTQ's format."""


def read_scheme(config: Mapping[str, Any]) -> Scheme:
    """From config.json.

    Raises:
        VlfleetError: a format in which nothing can be appended, or one that is not known.
    """
    text = config.get("text_config") or {}
    found = config.get("quantization_config") or text.get("quantization_config") or config.get("compression_config")
    if not found:
        return Scheme()
    method = str(found.get("quant_method", "")).lower()
    if method == "awq":
        return _awq(found)
    if method == "gptq":
        return _gptq(found)
    if method.endswith("auto-round"):
        packing = str(found.get("packing_format", found.get("backend", "")))
        return _awq(found) if "awq" in packing else _gptq(found)
    if method == "compressed-tensors":
        return _compressed_tensors(found)
    if method == "fp8":
        out, inputs = found.get("weight_block_size") or (0, 0)
        return Scheme("fp8", _sizes([inputs]), _sizes([out]))
    if method == "bitsandbytes":
        cause = "bitsandbytes quantises runs of 64 weights that go on from row to row: nothing can be appended"
        raise VlfleetError(cause, REQUANTISE)
    raise VlfleetError(f"quant_method {method!r} in config.json is none that pad knows", REQUANTISE)


def _awq(found: Mapping[str, Any]) -> Scheme:
    version = str(found.get("version", "gemm")).lower()
    if version != "gemm":
        raise VlfleetError(f"AWQ version {version!r} is packed for one kernel: pad knows GEMM", REQUANTISE)
    group = found.get("group_size", found.get("q_group_size"))
    return Scheme("awq", _sizes([group]), symmetric=False, awq_layout=True)


def _gptq(found: Mapping[str, Any]) -> Scheme:
    if found.get("desc_act"):
        raise desc_act()
    layout = str(found.get("checkpoint_format", "gptq")).lower()
    if "marlin" in layout or found.get("is_marlin_format"):
        raise VlfleetError("GPTQ in Marlin's format is packed in tiles: nothing can be appended", REQUANTISE)
    shift = 0 if layout.endswith("v2") else 1
    return Scheme("gptq", _sizes([found.get("group_size")]), symmetric=bool(found.get("sym", True)), zero_shift=shift)


def _compressed_tensors(found: Mapping[str, Any]) -> Scheme:
    sparsity = (found.get("sparsity_config") or {}).get("format", "dense")
    if sparsity != "dense":
        raise VlfleetError(f"compressed-tensors with sparsity ({sparsity}) leaves weights out of the file", REQUANTISE)
    groups = [group.get("weights") or {} for group in (found.get("config_groups") or {}).values()]
    if any(weights.get("actorder") in ("group", True) for weights in groups):
        raise desc_act()
    blocks = [weights.get("block_structure") for weights in groups]
    pairs = [block for block in blocks if isinstance(block, list) and len(block) == 2]
    return Scheme(
        "compressed-tensors",
        _sizes([weights.get("group_size") for weights in groups] + [inputs for _, inputs in pairs]),
        _sizes([out for out, _ in pairs]),
        symmetric=all(weights.get("symmetric", True) for weights in groups),
    )


def desc_act() -> VlfleetError:
    """The one refusal that GPTQ and compressed-tensors share."""
    cause = "its inputs are sorted by activation (desc_act, actorder): a group lies on every rank, whatever the size"
    return VlfleetError(cause, "quantise again without desc_act")


def _sizes(values: list[Any]) -> tuple[int, ...]:
    return tuple(sorted({value for value in values if isinstance(value, int) and value > 0}))
