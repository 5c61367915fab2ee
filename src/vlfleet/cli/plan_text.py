"""Plans for a person: tables, explanations, and the commands that run them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vlfleet.cli.options import program
from vlfleet.cli.plan_values import facts, serve_words, shell, up_words

if TYPE_CHECKING:
    from vlfleet.plan.plan import Plan


def text(plans: Sequence[Plan], explain: str | None) -> list[str]:
    """All of it, line by line; with `explain` that explanation alone.

    Raises:
        VlfleetError: exit code 2, `explain` names nothing.
    """
    from vlfleet.plan.explain import explained
    from vlfleet.plan.render_table import table

    lines: list[str] = []
    for number, plan in enumerate(plans):
        lines += [""] if number else []
        if len(plans) > 1:
            lines.append(f"FLEET {number + 1} of {len(plans)}")
        if explain:
            lines += explained(plan, explain)
            continue
        lines += table(plan)
        lines += [f"proof: {line}" for line in plan.proof]
        if plan.chosen:
            lines += ["", *commands(facts(plan), "" if len(plans) == 1 else f"fleet{number + 1}")]
        elif plan.changes:
            lines += ["", "What would make it fit, the cheapest first", *(f"  {change}" for change in plan.changes)]
    return lines


def commands(run: Mapping[str, Any], name: str) -> list[str]:
    """How to run it; with a `name` where several fleets share a machine."""
    if not run["served"]:
        return ["vlfleet does not serve this family yet; one replica is", *shell("vllm", serve_words(run))]
    more = [f"--name={name}"] if name else []
    lines = shell(program(), up_words(run, *more))
    if name:
        used = ",".join(str(index) for indices in run["gpus"] for index in indices)
        lines[0] = f"CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES={used} {lines[0]}"
    return ["Run it", *(f"  {line}" for line in lines)]
