"""What vLLM itself says to a plan: its model class on meta tensors, or the table made with it beforehand."""

from __future__ import annotations

from dataclasses import replace

from vlfleet.plan.memory import RankMemory
from vlfleet.plan.oracle.prove import prove
from vlfleet.plan.oracle.question import Answer, Device, Question, Verdict
from vlfleet.plan.plan import Candidate, Inputs, Judged, Plan
from vlfleet.plan.render_table import is_odd
from vlfleet.plan.terms import GIB, MIB

_REFUSALS = 4
"""Of those shown, that are asked about."""
_WEIGHTS = ("language layers", "vision tower", "embedding", "head", "position tables")
CLOSE = 1e-4
"""Share of the weights by which vLLM's own count may differ before it is called a difference."""


def proved(plan: Plan, python: str | None) -> Plan:
    """The plan with what vLLM says to its choice and to its refusals. `python` can import vLLM; None: none here.

    Importing vLLM takes 5 s of a core, each answer less than one; nothing is asked twice, and of the sizes that nobody
    tries (3, 5, 6, 7), which share a line, only the first is.
    """
    refused = [judged for judged in plan.refused if judged.refusal and judged.refusal.kind == "legality"]
    odd = [judged for judged in refused if is_odd(judged)]
    shown = [judged for judged in refused if judged not in odd[1:]][:_REFUSALS]
    asked = [*([plan.chosen] if plan.chosen else []), *shown]
    if not asked:
        return plan
    # An installed vLLM answers for its own release; the version names the one that the table is asked for.
    answers = prove([question(plan.inputs, judged.candidate) for judged in asked], python, plan.inputs.version)
    lines = [_line(judged, answer) for judged, answer in zip(asked, answers, strict=True)]
    return replace(plan, proof=tuple(lines))


def question(inputs: Inputs, candidate: Candidate) -> Question:
    """The candidate in the oracle's words."""
    flags = candidate.flags
    partition = ",".join(map(str, flags.layer_partition or ()))
    return Question(
        model=inputs.model.path or inputs.model.config,
        device=Device(inputs.gpu.name, inputs.gpu.capability, inputs.device.total_bytes),
        tensor_parallel_size=candidate.tensor_parallel_size,
        pipeline_parallel_size=candidate.pipeline_parallel_size,
        quantization=candidate.quantization,
        mm_encoder_tp_mode=flags.mm_encoder_tp_mode,
        enable_expert_parallel=flags.enable_expert_parallel,
        max_model_len=flags.max_model_len,
        max_num_batched_tokens=flags.max_num_batched_tokens,
        env={"VLLM_PP_LAYER_PARTITION": partition} if partition else {},
    )


def _line(judged: Judged, answer: Answer) -> str:
    """One answer, beside what the plan says."""
    name = f"{judged.candidate.layout} {judged.candidate.mode}".strip()
    if answer.verdict is Verdict.UNKNOWN:
        return f"{name}: not proven: {answer.error}"
    if answer.verdict is Verdict.REFUSED:
        said = answer.error or f"{answer.error_type or 'an exception'} without a message"
        agrees = "as planned" if judged.refusal else "NOT AS PLANNED"
        return f'{name}: {answer.source} refuses it, {agrees}: "{said}"'
    if judged.refusal and not judged.refusal.error:
        return f"{name}: {answer.source} does not refuse it, as planned: {judged.refusal.reason}"
    if judged.refusal:
        return f"{name}: {answer.source} starts it, NOT AS PLANNED"
    parts, ranks = [], judged.memory.ranks if judged.memory else ()
    for stage, (rank, counted) in enumerate(zip(ranks, answer.ranks, strict=False)):
        planned = weight_bytes(rank)
        off = planned - counted.total
        same = "the same" if abs(off) <= CLOSE * counted.total else "NOT the same"
        where = f" of stage {stage}" if len(answer.ranks) > 1 else ""
        parts.append(f"{counted.total / GIB:.3f} GiB of weights a GPU{where}, planned {off / MIB:+.2f} MiB, {same}")
    return f"{name}: {answer.source} starts it; {'; '.join(parts)}"


def weight_bytes(rank: RankMemory) -> int:
    """Of the rank's tensors, without what the allocator rounds up."""
    return sum(rank.term(name).bytes for name in _WEIGHTS)
