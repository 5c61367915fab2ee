"""A plan as a person reads it, at 100 columns. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from vlfleet.plan.demand import Workload
from vlfleet.plan.limits import told
from vlfleet.plan.plan import Judged, Plan
from vlfleet.plan.terms import GIB

WIDTH = 100
_REFUSED = 8
_HEAD = ("LAYOUT", "WEIGHTS", "VISION", "REQ/S", "TTFT p95", "TPOT p95", "IN TIME", "KV TOKENS", "BOTTLENECK")
NOT_PREDICTED = "not predicted"


def table(plan: Plan) -> list[str]:
    """Everything but the command."""
    lines = [*head(plan), ""]
    if plan.chosen is None:
        lines.append("Nothing fits.")
    else:
        lines += choices((plan.chosen, *plan.runners_up))
        lines += ["", *memory_line(plan.chosen), *folded("limits: ", told(plan.inputs, plan.chosen.candidate))]
    if plan.padded:
        lines += ["", *wider(plan)]
    if plan.refused:
        lines += ["", *refusals(plan.refused)]
    if plan.gains:
        lines += ["", "What the options buy, in closed form"]
        for gain in plan.gains:
            lines += folded(f"  {gain.option}: ", gain.why)
    for note in plan.notes:
        lines += folded("note: ", note)
    return lines


def head(plan: Plan) -> list[str]:
    """The question."""
    inputs = plan.inputs
    count, gpu = len(inputs.machine.gpus), inputs.gpu
    billions = inputs.model.shape.parameters / 1e9
    link = f", {plan.link.label}" if plan.link is not None else ""
    return [
        *folded("", f"{inputs.model.name} ({billions:.1f} B, {inputs.model.quantised}; from {inputs.model.source})"),
        f"{count} x {gpu.name} of {inputs.device.total_bytes / GIB:.1f} GiB{link}; vLLM {inputs.version}",
        *folded("demand: ", demand_line(inputs.workload)),
    ]


def demand_line(workload: Workload) -> str:
    """The workload in one sentence."""
    parts = []
    if workload.concurrency is not None:
        parts.append(f"{workload.concurrency} request{'s' * (workload.concurrency > 1)} in flight")
    else:
        parts.append(f"{workload.request_rate:g} requests/s")
    if workload.media:
        sizes = ", ".join(f"{size.width}x{size.height}" for size in workload.images)
        repeated = f", {100 * workload.repeated_share:.0f} % of {workload.working_set} that come again"
        pictures = "picture" if workload.media == 1 else "pictures"
        parts.append(f"{workload.media} {pictures} ({sizes}{repeated if workload.repeated_share else ''})")
    parts.append(f"{workload.prompt_tokens} text tokens in, {workload.output_tokens} out")
    if workload.ttft_p95_seconds is not None:
        parts.append(f"TTFT p95 {seconds(workload.ttft_p95_seconds)}")
    if workload.tpot_p95_seconds is not None:
        parts.append(f"TPOT p95 {seconds(workload.tpot_p95_seconds)}")
    return ", ".join(parts)


def choices(judged: Sequence[Judged], chosen: str = ">") -> list[str]:
    """A row each; the first has the mark of what was chosen."""
    rows = [_HEAD, *(row(each) for each in judged)]
    widths = [max(len(line[column]) for line in rows) for column in range(len(_HEAD))]
    lines = []
    for number, line in enumerate(rows):
        mark = chosen if number == 1 and chosen else " "
        cells = [
            f"{cell:<{width}}" if at < 3 or at == 8 else f"{cell:>{width}}"
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        lines.append(f"{mark} {'  '.join(cells)}"[:WIDTH].rstrip())
    if any(each.speed and not each.speed.simulated for each in judged):
        lines.append("  ~ in closed form; the other rows are simulated")
    return lines


def wider(plan: Plan) -> list[str]:
    """What a padded checkpoint could do, and the commands that make it."""
    lines = ["With a padded checkpoint, which is not there yet", *choices([each.judged for each in plan.padded], "")]
    now = plan.inputs.model.shape.intermediate_size
    for each in plan.padded:
        lines += folded("  -> ", f"{each.command} ({now:,} to {each.intermediate_size:,}), then plan for it")
    return lines


def row(judged: Judged) -> tuple[str, ...]:
    """What the table says of one candidate."""
    c, speed, plan = judged.candidate, judged.speed, judged.memory
    weights = c.quantization or "as is"
    tokens = f"{plan.kv_tokens:,}" if plan else ""
    if speed is None:
        return (c.layout, weights, c.mode, NOT_PREDICTED, "", "", "", tokens, "")
    near = "" if speed.simulated else "~"
    return (
        c.layout,
        weights,
        c.mode,
        f"{near}{speed.requests_per_second:.3g}",
        f"{near}{seconds(speed.ttft.p95)}",
        f"{near}{seconds(speed.tpot.p95)}",
        f"{100 * speed.within_slo:.0f} %",
        tokens,
        speed.bottleneck.removeprefix("GPU: "),
    )


def memory_line(judged: Judged) -> list[str]:
    """Where the memory of a GPU goes, of each pipeline stage."""
    if judged.memory is None:
        return []
    lines = []
    for number, rank in enumerate(judged.memory.ranks):
        terms = sorted((term for term in rank.terms if abs(term.bytes) >= GIB / 20), key=lambda term: -term.bytes)
        stage = f" of stage {number}" if len(judged.memory.ranks) > 1 else ""
        lines += folded(f"a GPU{stage}, GiB: ", ", ".join(f"{term.name} {term.bytes / GIB:.1f}" for term in terms))
    return lines


def refusals(refused: Sequence[Judged]) -> list[str]:
    """Two lines each: why, and what would help."""
    lines = ["Refused"]
    odd = [judged for judged in refused if is_odd(judged)]
    for judged in [each for each in refused if each not in odd[1:]][:_REFUSED]:
        assert judged.refusal is not None
        c, refusal = judged.candidate, judged.refusal
        name = c.layout + (f" {c.quantization}" if c.quantization else "")
        if odd[1:] and judged is odd[0]:
            name = "TP" + " ".join(str(each.candidate.tensor_parallel_size) for each in odd)
        said = f'; "{refusal.error}"' if refusal.error and refusal.kind == "legality" else ""
        lines += folded(f"  {name:<15} ", f"{refusal.reason}{said}")
        if refusal.change:
            lines += folded(" " * 18 + "-> ", refusal.change)
    if (left := len(refused) - len(odd[1:]) - _REFUSED) > 0:
        lines.append(f"  and {left} more (--json lists all)")
    return lines


def is_odd(judged: Judged) -> bool:
    """A size that nobody tries, and that no rule allows: one line is enough for all of them."""
    c = judged.candidate
    legality = judged.refusal is not None and judged.refusal.kind == "legality"
    return legality and c.tensor_parallel_size.bit_count() > 1


def seconds(value: float) -> str:
    """As a person says it: 1.41 s, 35 ms."""
    if value == float("inf"):
        return "never"
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.0f} ms"


def folded(first: str, text: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_long_words=False,
        break_on_hyphens=False,
    )
