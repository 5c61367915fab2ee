"""Why the numbers of a plan are what they are: each term with its formula, its figures and its source. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.plan.plan import Judged, Plan
from vlfleet.plan.render_table import NOT_PREDICTED, folded, seconds
from vlfleet.plan.speed import Speed
from vlfleet.plan.terms import GIB, Term

_MEMORY, _SPEED = "memory", "speed"


def explained(plan: Plan, what: str) -> list[str]:
    """`what` is "memory", "speed", or (part of) the name of a term of either.

    Raises:
        VlfleetError: exit code 2, no such term; 3, nothing fits and so there is nothing to explain.
    """
    judged = plan.chosen or next((each for each in plan.refused if each.memory), None)
    if judged is None:
        raise VlfleetError("nothing fits, so there is nothing to explain", "", ExitCode.DOES_NOT_FIT)
    if what == _MEMORY:
        return memory_lines(plan, judged)
    if what == _SPEED:
        return speed_lines(judged)
    return _terms(judged, what)


def memory_lines(plan: Plan, judged: Judged) -> list[str]:
    """Every term of each pipeline stage; they add up to the GPU's memory."""
    lines = []
    for number, rank in enumerate(judged.memory.ranks if judged.memory else ()):
        whole = sum(term.bytes for term in rank.terms)
        lines.append(
            f"{judged.candidate.layout}, stage {number}: {whole / GIB:.2f} GiB of each {plan.inputs.gpu.name}, "
            f"{rank.available_kv_bytes / GIB:.2f} GiB available for the KV cache in vLLM's words"
        )
        for term in sorted(rank.terms, key=lambda each: -abs(each.bytes)):
            lines += term_lines(term)
        lines.append(f"  a token of context takes {rank.kv_bytes_per_token:,} bytes of each GPU")
    if judged.refusal:
        lines += folded("refused: ", judged.refusal.error or judged.refusal.reason)
    return lines


def term_lines(term: Term) -> list[str]:
    """A term in two or three lines."""
    lines = [f"  {term.bytes / GIB:8.3f} GiB  {term.name}"]
    if term.formula:
        figures = ", ".join(f"{name} {value:,.0f}" for name, value in term.numbers)
        lines += folded(" " * 16, f"= {term.formula}{f'; {figures}' if figures else ''}")
    if term.source:
        lines += folded(" " * 16, f"from {term.source}")
    if term.fitted:
        lines += folded(" " * 16, f"fitted: {term.fitted}")
    return lines


def speed_lines(judged: Judged) -> list[str]:
    """What a request takes, and what is busy."""
    speed = judged.speed
    if speed is None:
        return [NOT_PREDICTED]
    how = "simulated, event by event" if speed.simulated else "in closed form"
    lines = [
        f"{judged.candidate.layout}, {how}: {speed.requests_per_second:.3g} requests/s, "
        f"{speed.images_per_second:.3g} pictures/s, {speed.output_tokens_per_second:,.0f} tokens/s",
        _percentiles("TTFT", speed.ttft.p50, speed.ttft.p95, speed.ttft.p99),
        _percentiles("TPOT", speed.tpot.p50, speed.tpot.p95, speed.tpot.p99),
        f"  {speed.running:.1f} requests run at once in a replica; {100 * speed.encoder_hits:.0f} % of the pictures "
        f"are in the encoder cache, {100 * speed.prefix_hits:.0f} % of prompt tokens in the KV cache",
        "  busy: " + ", ".join(f"{name} {100 * share:.0f} %" for name, share in speed.busy.items()),
        f"  bottleneck: {speed.bottleneck}",
        "GPU time of one request",
    ]
    return [*lines, *_operators(speed)]


def _operators(speed: Speed) -> list[str]:
    whole = sum(each.seconds for each in speed.operators) or 1.0
    return [f"  {1000 * s:9.2f} ms  {100 * s / whole:5.1f} %  {name}" for name, s in speed.operators]


def _percentiles(name: str, *values: float) -> str:
    return f"  {name} p50 {seconds(values[0])}, p95 {seconds(values[1])}, p99 {seconds(values[2])}"


def _terms(judged: Judged, what: str) -> list[str]:
    wanted, lines = what.lower(), []
    known: list[str] = []
    for number, rank in enumerate(judged.memory.ranks if judged.memory else ()):
        known += [term.name for term in rank.terms]
        found = [term for term in rank.terms if wanted in term.name.lower()]
        lines += [f"stage {number}"] if found else []
        lines += [line for term in found for line in term_lines(term)]
    operators: Sequence[tuple[str, float]] = judged.speed.operators if judged.speed else ()
    known += [name for name, _ in operators]
    lines += [f"  {1000 * s:.2f} ms of GPU time a request: {name}" for name, s in operators if wanted in name.lower()]
    if not lines:
        names = ", ".join(dict.fromkeys(known))
        raise VlfleetError(f"--explain {what}: no such term", f"memory, speed, or one of: {names}", ExitCode.USAGE)
    return lines
