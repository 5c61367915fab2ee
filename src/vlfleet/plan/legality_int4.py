"""What int4 weights ask of a cut, and vLLM's words where they do not get it. Pure.

A group of inputs shares a scale. Where a cut goes through a group, vLLM gives each rank `inputs // group` scales and
lets rank r begin at scale r * that (create_weights in auto_gptq.py, RowvLLMParameter in parameter.py): they lie half a
group off. Which kernel a layer gets decides whether anybody notices (can_implement in
model_executor/kernels/linear/mixed_precision/, 0.20 to 0.32; 0.26 and 0.32 were asked):

Marlin, Triton, AllSpark   refuse: "in_features per partition N is not divisible by group_size"
Machete (Hopper alone)     takes it: looks at multiples of 64 and 128, not at groups
Exllama (float16 alone)    takes it: asks whether the group divides all inputs, not a rank's
"""

from __future__ import annotations

from vlfleet.checkpoint.pad_size import MARLIN_MULTIPLE
from vlfleet.checkpoint.quantization import Format, Strategy
from vlfleet.plan.legality_case import HOPPER, INT4, Case

MARLIN_GROUPS = (32, 64, 128)
_MACHETE_INPUTS = 64
"""MACHETE_PREPACKED_BLOCK_SHAPE[0]."""
_NAMED_LAYER = (0, 25)
"""Since then pack-quantized says which layer; before, an assertion without a message (0.20.2 to 0.24.0)."""


def marlin_group(case: Case) -> str | None:
    scheme = case.scheme
    if scheme is None or scheme.format is not Format.GPTQ or scheme.strategy is not Strategy.GROUP:
        return None
    if scheme.group_size in MARLIN_GROUPS:
        return None
    groups = [-1, *MARLIN_GROUPS]
    return f"Marlin does not support group_size = {scheme.group_size}. Only group_sizes = {groups} are supported."


def awq_group(case: Case) -> str | None:
    """A rank's inputs of o_proj and down_proj must be whole groups."""
    if case.scheme is None or case.scheme.format is not Format.AWQ or case.shape.experts:
        return None
    if all(inputs % case.group == 0 for inputs in case.row_parallel_inputs):
        return None
    return (
        "The input size is not aligned with the quantized weight shape. "
        "This can be caused by too large tensor parallel size."
    )


def silent_group(case: Case) -> str | None:
    """GPTQ where Machete or Exllama takes the layer: vLLM refuses nothing, and multiplies with scales that lie off.

    On H200, vLLM 0.26, a 72B-shaped checkpoint did not come up at TP 2 (docs/measurements.md, "Padded int4"). vLLM's
    own classes say "starts" on meta tensors, where nothing is loaded and nothing computed.
    """
    if case.scheme is None or case.scheme.format is not Format.GPTQ or case.shape.experts:
        return None
    cut = _cut_group(case)
    return "" if cut and _unnoticed(case, cut) else None


def wna16_group(case: Case) -> str | None:
    """GPTQ and pack-quantized where a kernel, or the layer itself, refuses."""
    if case.scheme is None or case.scheme.format not in (Format.GPTQ, Format.PACKED) or case.shape.experts:
        return None
    inputs = _cut_group(case)
    if not inputs:
        return None
    if _unnoticed(case, inputs):
        return _whole_groups(case, inputs)
    if case.vllm < (0, 24) and inputs % MARLIN_MULTIPLE:
        return _no_kernel(_min_thread("input", inputs, "k", MARLIN_MULTIPLE))
    return _no_kernel(f"in_features per partition {inputs} is not divisible by group_size = {case.group}.")


def marlin_tile(case: Case) -> str | None:
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
    for size_k in case.row_parallel_inputs:
        if size_k % MARLIN_MULTIPLE:
            return _no_kernel(_min_thread("input", size_k, "k", MARLIN_MULTIPLE))
    return None


def experts_int4(case: Case) -> str | None:
    """0.26 and 0.32 load AWQ with smaller groups instead (MoeWNA16). Older ones and pack-quantized were not asked."""
    if not case.shape.experts or case.scheme is None or case.scheme.format not in INT4:
        return None
    if case.vllm >= (0, 26) and case.scheme.format is not Format.PACKED:
        return None
    return "size_k must divisible by BLOCK_SIZE_K" if case.shape.intermediate // case.tp % case.group else None


def _cut_group(case: Case) -> int:
    """A rank's inputs of the first layer with a group that straddles two ranks; 0: there is none."""
    return next((inputs for inputs in case.row_parallel_inputs if inputs % case.group), 0)


def _unnoticed(case: Case, inputs: int) -> bool:
    """Whether vLLM finds a kernel that does not look at groups: it asks Machete before Marlin, Exllama after it."""
    machete = case.capability[0] == HOPPER and inputs % _MACHETE_INPUTS == 0
    return machete or case.shape.float16 or case.capability < (8, 0)


def _whole_groups(case: Case, inputs: int) -> str:
    if case.vllm < _NAMED_LAYER:
        return ""
    return (
        f"Weight input_size_per_partition={inputs} for layer '…' is not divisible by group_size={case.group}. This "
        "happens when tensor_parallel_size splits the layer input into shards that are not a whole number of quant "
        "groups. Consider reducing tensor_parallel_size."
    )


def _no_kernel(reason: str) -> str:
    what = "Failed to find a kernel that can implement the WNA16 linear layer. Reasons: …"
    return f"{what} MarlinLinearKernel cannot implement due to: {reason} …"


def _min_thread(side: str, number: int, letter: str, minimum: int) -> str:
    space = " " if side == "output" else ""  # vLLM's own text has two spaces there
    return (
        f"Weight {side}_size_per_partition = {number} is not divisible by {space}min_thread_{letter} = {minimum}. "
        "Consider reducing tensor_parallel_size or running with --quantization gptq."
    )
