"""What must divide what when vLLM cuts a model for tensor parallelism, and with which words it refuses. Pure.

Texts: vLLM 0.20.2 to 0.26.0 and 0.32.0. All but C7 and C8 were raised by vLLM 0.26 or 0.32 when it was asked
(plan/oracle); those two stand in the source of 0.23 and 0.32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from vlfleet.checkpoint.layout_files import section, size, text_of
from vlfleet.checkpoint.pad_size import MARLIN_MULTIPLE, VOCABULARY_MULTIPLE, smallest
from vlfleet.checkpoint.quantization import Format, Scheme, Strategy
from vlfleet.families import Family

Mode = Literal["weights", "data"]
"""--mm-encoder-tp-mode: the vision tower is cut across the ranks, or every rank holds it whole."""
Version = tuple[int, int]
INT4 = (Format.AWQ, Format.GPTQ, Format.PACKED)
MARLIN_GROUPS = (32, 64, 128)


@dataclass(frozen=True)
class Shape:
    """What of a model the rules ask for."""

    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    intermediate: int
    """Of an expert, if the model has experts."""
    experts: bool
    vision_heads: int
    vision_intermediate: int
    gated_vision: bool
    """Qwen2.5-VL's vision MLP has a gate, and is a merged layer in vLLM."""

    @staticmethod
    def of(config: dict[str, Any], family: Family) -> Shape:
        """From config.json.

        Raises:
            VlfleetError: it lacks a size.
        """
        text, vision = text_of(config), section(config, "vision_config")
        heads = size(text, "num_attention_heads")
        experts = family.model_type.endswith("_moe")
        inner = vision.get("intermediate_size") or int(vision.get("embed_dim", 1280) * vision.get("mlp_ratio", 4))
        return Shape(
            heads=heads,
            kv_heads=size(text, "num_key_value_heads", heads),
            head_dim=size(text, "head_dim", size(text, "hidden_size") // heads),
            vocabulary=size(text, "vocab_size"),
            intermediate=size(text, "moe_intermediate_size" if experts else "intermediate_size"),
            experts=experts,
            vision_heads=size(vision, "num_heads", 16),
            vision_intermediate=int(inner),
            gated_vision=family.model_type == "qwen2_5_vl",
        )


@dataclass(frozen=True)
class Case:
    """One question: may this model be cut so?"""

    shape: Shape
    scheme: Scheme | None
    """Of the language model's linear layers; None: not quantised."""
    tp: int
    mode: Mode
    vllm: Version

    @property
    def group(self) -> int:
        """Inputs that must stay on one rank."""
        if self.scheme is None:
            return 1
        return {Strategy.GROUP: self.scheme.group_size, Strategy.BLOCK: self.scheme.block[1]}.get(
            self.scheme.strategy, 1
        )


Rule = tuple[str, Callable[[Case], str | None]]
"""Code, and the error if the rule is broken."""


def _heads(case: Case) -> str | None:
    if case.shape.heads % case.tp == 0:
        return None
    heads = f"Total number of attention heads ({case.shape.heads})"
    return f"{heads} must be divisible by tensor parallel size ({case.tp})."


def _vision_heads(case: Case) -> str | None:
    if case.mode == "data" or case.shape.vision_heads % case.tp == 0:
        return None
    return _indivisible(case.shape.vision_heads, case.tp)


def _vision_mlp(case: Case) -> str | None:
    if case.mode == "data" or case.shape.vision_intermediate % case.tp == 0:
        return None
    return "" if case.shape.gated_vision else _indivisible(case.shape.vision_intermediate, case.tp)


def _vocabulary(case: Case) -> str | None:
    rows = smallest(case.shape.vocabulary, 1, VOCABULARY_MULTIPLE)
    return _indivisible(rows, case.tp) if rows % case.tp else None


def _kv_heads(case: Case) -> str | None:
    """Each rank has some of them whole, or several ranks have the same one."""
    few, many = sorted((case.shape.kv_heads, case.tp))
    return _indivisible(many, few) if many % few else None


def _mlp(case: Case) -> str | None:
    """gate and up are one merged layer: an assertion without a message."""
    return "" if case.shape.intermediate % case.tp else None


def _marlin_group(case: Case) -> str | None:
    scheme = case.scheme
    if scheme is None or scheme.format is not Format.GPTQ or scheme.strategy is not Strategy.GROUP:
        return None
    if scheme.group_size in MARLIN_GROUPS:
        return None
    groups = [-1, *MARLIN_GROUPS]
    return f"Marlin does not support group_size = {scheme.group_size}. Only group_sizes = {groups} are supported."


def _awq_group(case: Case) -> str | None:
    """A rank's inputs of o_proj and down_proj must be whole groups."""
    if case.scheme is None or case.scheme.format is not Format.AWQ or case.shape.experts:
        return None
    aligned = all(inputs % case.group == 0 for inputs in _row_parallel_inputs(case))
    return (
        None
        if aligned
        else (
            "The input size is not aligned with the quantized weight shape. "
            "This can be caused by too large tensor parallel size."
        )
    )


def _wna16_group(case: Case) -> str | None:
    """On Hopper vLLM may find another kernel (Machete), which does not look at groups: refused here all the same."""
    if case.scheme is None or case.scheme.format not in (Format.GPTQ, Format.PACKED) or case.shape.experts:
        return None
    for inputs in _row_parallel_inputs(case):
        if inputs % case.group:
            if case.vllm < (0, 24) and inputs % MARLIN_MULTIPLE:
                return _no_kernel(_min_thread("input", inputs, "k", MARLIN_MULTIPLE))
            return _no_kernel(f"in_features per partition {inputs} is not divisible by group_size = {case.group}.")
    return None


def _marlin_tile(case: Case) -> str | None:
    """Up to 0.23; later the last tile is filled up."""
    if case.vllm >= (0, 24) or case.scheme is None or case.shape.experts:
        return None
    if case.scheme.format not in (Format.GPTQ, Format.PACKED):
        return None
    shape = case.shape
    outputs = ((shape.heads // case.tp + 2 * max(1, shape.kv_heads // case.tp)) * shape.head_dim,)
    for size_n in (*outputs, 2 * shape.intermediate // case.tp):
        if size_n % 64:
            return _no_kernel(_min_thread("output", size_n, "n", 64))
    for size_k in _row_parallel_inputs(case):
        if size_k % MARLIN_MULTIPLE:
            return _no_kernel(_min_thread("input", size_k, "k", MARLIN_MULTIPLE))
    return None


def _fp8_block(case: Case) -> str | None:
    """A rank's inputs of o_proj and down_proj must be whole blocks; the outputs of merged layers may cut one."""
    if case.scheme is None or case.scheme.strategy is not Strategy.BLOCK:
        return None
    inputs = _row_parallel_inputs(case)[: 1 if case.shape.experts else 2]
    wrong = next((each for each in inputs if each % case.group), 0)
    what = f"Weight input_size_per_partition = {wrong} is not divisible by weight quantization block_k = {case.group}."
    return what if wrong else None


def _experts_fp8(case: Case) -> str | None:
    """0.32 refines the scales instead. 0.27 to 0.31 were not looked at, and count as 0.26."""
    if not case.shape.experts or case.vllm >= (0, 32) or case.scheme is None:
        return None
    inner, block_n = case.shape.intermediate // case.tp, case.scheme.block[0]
    if case.scheme.strategy is not Strategy.BLOCK or inner % block_n == 0:
        return None
    return (
        f"The output_size of gate's and up's weight = {inner} is not divisible by "
        f"weight quantization block_n = {block_n}."
    )


def _experts_int4(case: Case) -> str | None:
    """0.26 and 0.32 load AWQ with smaller groups instead (MoeWNA16). Older ones and pack-quantized were not asked."""
    if not case.shape.experts or case.scheme is None or case.scheme.format not in INT4:
        return None
    if case.vllm >= (0, 26) and case.scheme.format is not Format.PACKED:
        return None
    return "size_k must divisible by BLOCK_SIZE_K" if case.shape.intermediate // case.tp % case.group else None


def _row_parallel_inputs(case: Case) -> tuple[int, ...]:
    """Of o_proj and down_proj on one rank; whole on a single one, where no rule asks for them."""
    if case.tp == 1:
        return ()
    return (case.shape.heads // case.tp * case.shape.head_dim, case.shape.intermediate // case.tp)


def _indivisible(number: int, by: int) -> str:
    return f"{number} is not divisible by {by}"


def _no_kernel(reason: str) -> str:
    what = "Failed to find a kernel that can implement the WNA16 linear layer. Reasons: …"
    return f"{what} MarlinLinearKernel cannot implement due to: {reason} …"


def _min_thread(side: str, number: int, letter: str, minimum: int) -> str:
    space = " " if side == "output" else ""  # vLLM's own text has two spaces there
    return (
        f"Weight {side}_size_per_partition = {number} is not divisible by {space}min_thread_{letter} = {minimum}. "
        "Consider reducing tensor_parallel_size or running with --quantization gptq."
    )


RULES: tuple[Rule, ...] = (
    ("C1", _heads),
    ("C3", _vision_heads),
    ("C4", _vision_mlp),
    ("C2", _vocabulary),
    ("KV", _kv_heads),
    ("MLP", _mlp),
    ("C8", _marlin_group),
    ("C5", _awq_group),
    ("C6", _wna16_group),
    ("C7", _marlin_tile),
    ("C9", _fp8_block),
    ("C10", _experts_fp8),
    ("C6", _experts_int4),
)
"""The codes are those of research and documentation; KV and MLP never come first for a published model."""
