"""What must divide what when vLLM cuts a model for tensor parallelism, and with which words it refuses. Pure.

Texts: vLLM 0.20.2 to 0.26.0 and 0.32.0. All but C7 and C8 were raised by vLLM 0.26 or 0.32 when it was asked
(plan/oracle); those two stand in the source of 0.23 and 0.32. int4 has rules enough for a file: `legality_int4`.
"""

from __future__ import annotations

from collections.abc import Callable

from vlfleet.checkpoint.pad_size import VOCABULARY_MULTIPLE, smallest
from vlfleet.checkpoint.quantization import Strategy
from vlfleet.plan.legality_case import Case
from vlfleet.plan.legality_int4 import awq_group, experts_int4, marlin_group, marlin_tile, silent_group, wna16_group

Rule = tuple[str, Callable[[Case], str | None]]
"""Code, and the error if the rule is broken."""
STAGES, SILENT = "PP", "C6 unnoticed"
EXPERTS = ("C6", "C10", "MLP")
"""Rules that whole experts on each rank (--enable-expert-parallel) do not break."""
_ARCHITECTURES_SINCE = (0, 30)
"""vLLM PR #43272 for issue #43271: in 0.30.0's wheel (models/qwen3_vl.py), not in 0.29.0's."""


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


def _stages(case: Case) -> str | None:
    """Qwen3-VL, dense or of experts, in pipeline stages: nobody tells the inner model which class it is.

    0.26 was asked; 0.20.2 and 0.29 have the same line. It fails at any size, once the vision tower is built.
    """
    broken = case.shape.nested and case.stages > 1 and case.vllm < _ARCHITECTURES_SINCE
    return "No model architectures are specified" if broken else None


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


def _fp8_block(case: Case) -> str | None:
    """A rank's inputs of o_proj and down_proj must be whole blocks; the outputs of merged layers may cut one."""
    if case.scheme is None or case.scheme.strategy is not Strategy.BLOCK:
        return None
    inputs = case.row_parallel_inputs[: 1 if case.shape.experts else 2]
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


def _indivisible(number: int, by: int) -> str:
    return f"{number} is not divisible by {by}"


RULES: tuple[Rule, ...] = (
    ("C1", _heads),
    ("C3", _vision_heads),
    ("C4", _vision_mlp),
    (STAGES, _stages),
    ("C2", _vocabulary),
    ("KV", _kv_heads),
    ("MLP", _mlp),
    ("C8", marlin_group),
    ("C5", awq_group),
    (SILENT, silent_group),
    ("C6", wna16_group),
    ("C7", marlin_tile),
    ("C9", _fp8_block),
    ("C10", _experts_fp8),
    ("C6", experts_int4),
)
"""The codes are those of research and documentation; KV and MLP never come first for a published model."""
