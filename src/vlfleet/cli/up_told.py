"""How `vlfleet up` tells of its plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vlfleet.cli.options import program
from vlfleet.errors import ExitCode, VlfleetError

if TYPE_CHECKING:
    from vlfleet.plan.plan import Plan


def refused(plan: Plan, name: str) -> VlfleetError:
    """Where a legal layout is too large, what would fit; where none is legal, in vLLM's words why."""
    refusals = [judged.refusal for judged in plan.refused if judged.refusal]
    if refusals and all(refusal.kind == "legality" for refusal in refusals):
        first = refusals[0]
        cause = f"{first.reason}; vLLM would say: {first.error}" if first.error else first.reason
        return VlfleetError(cause, first.change or "leave --tensor-parallel-size out", ExitCode.USAGE)
    reason = f": {refusals[0].reason}" if refusals else ""
    gpus = len(plan.inputs.machine.gpus)
    cause = f"{name} does not fit on {gpus} x {plan.inputs.gpu.name}{reason}"
    remedy = "; or ".join(plan.changes) or "use more or larger GPUs"
    return VlfleetError(cause, f"{remedy}; or --no-plan, to let vLLM try", ExitCode.DOES_NOT_FIT)


def line(plan: Plan, preset: str | None, name: str) -> str:
    """What was chosen and why, the limits that come with it, and the command that says more; `name` is the model's."""
    from vlfleet.plan.demand import GENERAL
    from vlfleet.plan.limits import told

    assert plan.chosen is not None
    chosen = plan.chosen
    gpus = " ".join(str(index) for indices in plan.placement for index in indices)
    what = f"{chosen.candidate.layout}{' in fp8' if chosen.candidate.quantization == 'fp8' else ''}"
    why = f"{chosen.goodput:.3g} requests/s" + ("" if chosen.in_time else ", not all in time")
    if plan.runners_up:
        why += f" ({plan.runners_up[0].candidate.layout}: {plan.runners_up[0].goodput:.3g})"
    more = f"{program()} plan {name}{f' --for {preset}' if preset else ''} --explain speed"
    use = "general use" if preset in (None, GENERAL) else preset
    limits = told(plan.inputs, chosen.candidate)
    return f"planned for {use}: {what} on GPU {gpus}, {why}; {limits}; `{more}` says why"


def facts(plan: Plan, preset: str | None) -> dict[str, Any]:
    """The section "plan" of `vlfleet up --dry-run --json`."""
    from vlfleet.cli.plan_json import judged_facts
    from vlfleet.plan.demand import GENERAL

    assert plan.chosen is not None
    return {
        "for": preset or GENERAL,
        "gpu": plan.inputs.gpu.name,
        "gpus": [list(indices) for indices in plan.placement],
        "chosen": judged_facts(plan.chosen),
        "runners_up": [
            {"layout": each.candidate.layout, "requests_per_second": each.goodput} for each in plan.runners_up
        ],
    }
