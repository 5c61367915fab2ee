"""Plans for a person: tables, explanations, and the commands that run them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vlfleet.cli.options import program
from vlfleet.cli.plan_values import facts, serve_words, shell, up_words

if TYPE_CHECKING:
    from vlfleet.plan.plan import Plan

FIRST_PORT = 8000
"""Of the first fleet's gateway; further ones on the same machine get the next ones."""


def text(plans: Sequence[Plan], explain: str | None) -> list[str]:
    """All of it, line by line; with `explain` that explanation alone.

    Raises:
        VlfleetError: exit code 2, `explain` names nothing.
    """
    from vlfleet.plan.explain import explained
    from vlfleet.plan.render_table import folded, table

    lines: list[str] = []
    for number, plan in enumerate(plans):
        lines += [""] if number else []
        if len(plans) > 1:
            lines.append(f"FLEET {number + 1} of {len(plans)}")
        if explain:
            lines += explained(plan, explain)
            continue
        lines += table(plan)
        for line in plan.proof:
            lines += folded("proof: ", line)
        if plan.chosen:
            lines += ["", *commands(facts(plan), 0 if len(plans) == 1 else number + 1)]
        elif plan.changes:
            lines += ["", "What would make it fit, the cheapest first", *(f"  {change}" for change in plan.changes)]
    return lines


def commands(run: Mapping[str, Any], number: int) -> list[str]:
    """How to run it; `number` counts the fleets that share a machine, and is 0 of a single one."""
    if not run["served"]:
        return ["vlfleet does not serve this family yet; one replica is", *shell("vllm", serve_words(run))]
    more = [f"--name=fleet{number}", f"--port={FIRST_PORT + number - 1}"] if number else []
    lines = shell(program(), up_words(run, *more))
    if number:
        used = ",".join(str(index) for indices in run["gpus"] for index in indices)
        lines = [f"CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES={used} \\", *(f"  {line}" for line in lines)]
    return ["Run it", *(f"  {line}" for line in lines)]
