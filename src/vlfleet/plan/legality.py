"""Over how many GPUs vLLM can cut a model (tensor parallelism), why not over others, and what helps. Pure.

The rules are asked in the order in which vLLM comes to them: heads in the configuration, then, as it builds the model,
vision tower, embedding, attention, MLP. The first that fails is the error that a person sees.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from vlfleet.checkpoint.pad_size import MARLIN_MULTIPLE, smallest
from vlfleet.checkpoint.quantization import Scheme
from vlfleet.plan.legality_case import INT4, Case, Mode, Shape, Version
from vlfleet.plan.legality_rules import EXPERTS, RULES, SILENT, STAGES

__all__ = ["NEWEST", "SIZES", "Mode", "Shape", "Verdict", "Version", "padded", "verdict", "verdicts"]

NEWEST: Version = (0, 32)
"""The newest vLLM whose source these rules were read from."""
SIZES = range(1, 17)


@dataclass(frozen=True)
class Verdict:
    """Whether vLLM starts with this size. `code` is empty when it does."""

    tp: int
    mode: Mode
    code: str = ""
    error: str = ""
    """vLLM's words; "…" stands for what depends on the machine. Empty: silence, or an AssertionError without a word."""
    remedy: str = ""

    @property
    def legal(self) -> bool:
        return not self.code

    @property
    def silent(self) -> bool:
        """vLLM does not refuse it, and would answer wrongly or crash."""
        return self.code == SILENT

    @property
    def reason(self) -> str:
        """Why not, in a few words of ours."""
        if self.silent:
            return f"TP{self.tp} cuts groups that share a scale: vLLM does not notice, and answers wrongly or fails"
        if self.code == STAGES:
            return "this vLLM cannot start pipeline stages of Qwen3-VL (vLLM #43271)"
        return f"TP{self.tp} cannot cut this model ({self.code})"

    @property
    def told(self) -> str:
        """What a person would be told by vLLM; empty where it says nothing."""
        return "" if self.silent else self.error or "AssertionError, without a message"


def verdict(
    shape: Shape,
    scheme: Scheme | None,
    tp: int,
    mode: Mode = "weights",
    vllm: Version = NEWEST,
    *,
    stages: int = 1,
    capability: Version = (8, 0),
) -> Verdict:
    """Whether `tp` is legal, and if not what vLLM says and what helps.

    `stages` is --pipeline-parallel-size, `capability` that of the GPU, which decides over int4 kernels alone.
    """
    case = Case(shape, scheme, tp, mode, vllm, stages, capability)
    code, error = _broken(case)
    return Verdict(tp, mode, code, error, _remedy(case, code) if code else "")


def verdicts(
    shape: Shape,
    scheme: Scheme | None,
    mode: Mode = "weights",
    vllm: Version = NEWEST,
    sizes: Iterable[int] = SIZES,
) -> list[Verdict]:
    """One for each of `sizes`."""
    return [verdict(shape, scheme, tp, mode, vllm) for tp in sizes]


def padded(shape: Shape, scheme: Scheme | None, tp: int) -> Shape:
    """The shape that `vlfleet checkpoint pad --tp` would make of it."""
    group = Case(shape, scheme, tp, "data", NEWEST).group
    multiple = max(group, MARLIN_MULTIPLE) if scheme and scheme.format in INT4 else group
    return replace(shape, intermediate=smallest(shape.intermediate, tp, multiple))


def _broken(case: Case) -> tuple[str, str]:
    """The first rule that fails and its error; two empty strings if none does."""
    for code, check in RULES:
        error = check(case)
        if error is not None:
            return code, error
    return "", ""


def _remedy(case: Case, code: str) -> str:
    """The smallest change with which vLLM starts."""

    def works(**changes: Any) -> bool:
        return not _broken(replace(case, **changes))[0]

    if code == STAGES:
        return "vLLM 0.30 or newer, or --pipeline-parallel-size 1"
    if case.shape.experts and code in EXPERTS:
        return "--enable-expert-parallel keeps every expert whole"
    if case.mode == "weights" and works(mode="data"):
        return "--mm-encoder-tp-mode data"
    if not case.shape.experts:
        wider, pad = padded(case.shape, case.scheme, case.tp), f"vlfleet checkpoint pad SRC DST --tp {case.tp}"
        if works(shape=wider):
            return pad
        if works(shape=wider, mode="data"):
            return f"{pad}, and --mm-encoder-tp-mode data"
    if less := next((tp for tp in range(case.tp - 1, 0, -1) if works(tp=tp)), 0):
        return f"TP {less}, with more replicas or pipeline parallelism"
    return "another quantisation: vLLM cannot serve this one at any size"
