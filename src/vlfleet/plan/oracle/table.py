"""The oracle's answers for the published models, made beforehand: what is said where no vLLM is installed.

`table.json` is written by scripts/oracle_table.py: for each version of vLLM, model, weight format, vision mode and
tensor-parallel size, the seven numbers of `RankBytes` or the index of an error. It was asked for one GPU, an H200;
bytes are the same on every GPU that is not refused. What other GPUs refuse stands apart: GPTQ before Hopper, whose
kernels want whole groups, and everything that Turing and Volta do not take.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from vlfleet.errors import VlfleetError
from vlfleet.plan.flags import Flags, sizes
from vlfleet.plan.legality_case import HOPPER
from vlfleet.plan.oracle.question import Answer, Device, Question, RankBytes, Verdict
from vlfleet.plan.oracle.weight_formats import WeightFormat
from vlfleet.plan.releases import parse_release
from vlfleet.plan.shape import read_shape

FILE = Path(__file__).with_name("table.json")
FIELDS = ("language", "vision", "embeddings", "lm_head", "buffers", "scratch", "kv_per_token")
BATCHED_TOKENS = 8192
"""max_num_batched_tokens of every row; scratch is in proportion to it."""
NAME = "{name}"
"""Stands in error messages for the GPU's name."""
_TEXT = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size", "vocab_size",
    "head_dim", "max_position_embeddings", "num_experts", "moe_intermediate_size",
)  # fmt: skip
_VISION = (
    "depth", "hidden_size", "embed_dim", "mlp_ratio", "intermediate_size", "num_heads", "out_hidden_size", "patch_size",
    "temporal_patch_size", "spatial_merge_size", "num_position_embeddings",
)  # fmt: skip
_SIXTEEN_BITS = {"bfloat16": "bfloat16", "float16": "float16", "half": "float16"}


def lookup(question: Question, version: str = "") -> Answer | None:
    """The table's answer for this version of vLLM (the newest, if empty), else for the newest before it.

    None when the table does not have it: another model, another weight format, pipeline stages, arguments of one's own.
    """
    try:
        return _lookup(question, version)
    except (KeyError, TypeError, OSError, ValueError, VlfleetError):
        return None


def _lookup(question: Question, version: str) -> Answer | None:
    table, device = load(), question.device
    config = question.model
    if isinstance(config, Path):
        config = json.loads((config / "config.json").read_text(encoding="utf-8"))
    if question.pipeline_parallel_size != 1 or question.quantization or question.options or question.env:
        return None
    stored = weight_format_of(config)
    if stored is None:
        return None
    made = nearest(version, table["made"])
    dtype = _SIXTEEN_BITS[question.dtype if question.dtype != "auto" else dtype_of(config)]
    if question.dtype == "auto" and device.capability < (8, 0):
        dtype = "float16"  # vLLM's own fall-back
    if (said := _for_old(table, made, stored, dtype, question)) is not None:
        return _refusal(table, made, said, device)
    name, mode, ranks = _model(table, config), mode_of(question), str(question.tensor_parallel_size)
    row = table["rows"][made][name][stored][mode][ranks]
    if stored is WeightFormat.GPTQ_INT4 and device.capability[0] != HOPPER:
        before = table["before"][made][name][mode][ranks]
        if device.capability[0] > HOPPER and isinstance(row, list) and before is not None:
            return None
        row = row if before is None else before
    if isinstance(row, list):
        rank = RankBytes(**dict(zip(FIELDS, row, strict=True)))
        wide = sizes(_flags(question), read_shape(config), device.memory_bytes, device.name, parse_release(made))
        scratch = rank.scratch * wide.max_num_batched_tokens // BATCHED_TOKENS
        return Answer(Verdict.STARTS, f"table of vLLM {made}", made, (replace(rank, scratch=scratch),))
    # Of GPTQ's kernels, the one for float16 takes what those for bfloat16 do not.
    if stored is WeightFormat.GPTQ_INT4 and dtype != dtype_of(config):
        return None
    return _refusal(table, made, row, device)


@cache
def load() -> dict[str, Any]:
    """The content of table.json."""
    return dict(json.loads(FILE.read_text(encoding="utf-8")))


def nearest(version: str, made: Mapping[str, Any]) -> str:
    """The newest version of the table that is not newer than `version`, else the oldest; "" asks for the newest."""
    known = sorted(made, key=parse_release)
    before = [each for each in known if not version or parse_release(each) <= parse_release(version)]
    return (before or known[:1])[-1]


def mode_of(question: Question) -> str:
    """How the table calls the way of splitting: "weights", "data", and "+ep" with experts in parallel."""
    return question.mm_encoder_tp_mode + ("+ep" if question.enable_expert_parallel else "")


def signature(config: Mapping[str, Any]) -> list[Any]:
    """Everything in config.json that decides over bytes and legality, but for the quantisation."""
    text, vision = config.get("text_config") or config, config["vision_config"]
    scaling = text.get("rope_scaling") or {}
    rope = scaling.get("rope_type") or scaling.get("type") or "default"
    return [
        config["model_type"],
        bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))),
        "default" if rope == "mrope" else rope,
        [text.get(key) for key in _TEXT],
        [vision.get(key) for key in _VISION],
        len(vision.get("deepstack_visual_indexes") or ()),
    ]


def dtype_of(config: Mapping[str, Any]) -> str:
    """What vLLM takes for `--dtype auto` on a GPU that has it."""
    text = config.get("text_config") or config
    found = config.get("dtype") or config.get("torch_dtype") or text.get("dtype") or text.get("torch_dtype")
    return str(found)


def weight_format_of(config: Mapping[str, Any]) -> WeightFormat | None:
    """How the weights of this config.json are stored; None where it is another way."""
    section = config.get("quantization_config")
    if not section:
        return WeightFormat.BF16
    method, group = section.get("quant_method"), section.get("group_size")
    if method == "awq" and section.get("bits") == 4 and group == 128:
        return WeightFormat.AWQ
    if method == "gptq" and group == 128 and not section.get("desc_act"):
        return {4: WeightFormat.GPTQ_INT4, 8: WeightFormat.GPTQ_INT8}.get(section.get("bits"))
    if method == "fp8" and section.get("weight_block_size") == [128, 128]:
        return WeightFormat.FP8_BLOCK
    groups = list((section.get("config_groups") or {}).values())
    weights = groups[0]["weights"] if method == "compressed-tensors" and len(groups) == 1 else {}
    strategy = (weights.get("num_bits"), weights.get("type"), weights.get("strategy"), weights.get("symmetric"))
    if strategy == (8, "float", "channel", True):
        return WeightFormat.FP8_CHANNEL
    return WeightFormat.W4A16 if strategy == (4, "int", "group", True) and weights.get("group_size") == 128 else None


def _flags(question: Question) -> Flags:
    return Flags(max_model_len=question.max_model_len, max_num_batched_tokens=question.max_num_batched_tokens)


def _model(table: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Its name in the table.

    Raises:
        KeyError: it is not there.
    """
    wanted = signature(config)
    for name, known in table["models"].items():
        if known == wanted:
            return str(name)
    raise KeyError(wanted[0])


def _for_old(table: Mapping[str, Any], made: str, stored: WeightFormat, dtype: str, question: Question) -> int | None:
    """The index of the error with which a GPU older than the table's refuses whatever the shape; None: it does not."""
    capability = question.device.capability
    if capability >= (8, 0):
        return None
    known: Sequence[str] = sorted(table["old"][made])
    at_most = [each for each in known if tuple(map(int, each.split("."))) <= capability]
    found = table["old"][made][(at_most or known[:1])[-1]][f"{stored} {dtype}"]
    return None if found is None else int(found)


def _refusal(table: Mapping[str, Any], made: str, index: int, device: Device) -> Answer:
    kind, stage, where, text = table["errors"][index]
    # The reasons of kernels name the GPU that was asked about; their two spaces are vLLM's.
    text = re.sub(r"(?<=current compute  capability is )\d+", "{}{}".format(*device.capability), text)
    return Answer(
        Verdict.REFUSED,
        f"table of vLLM {made}",
        made,
        error=text.replace(NAME, device.name),
        error_type=kind,
        stage=stage,
        where=where,
    )
