"""`vlfleet render`: a plan as a command, a systemd unit, a compose file or Kubernetes manifests."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlfleet.errors import ExitCode, VlfleetError

if TYPE_CHECKING:
    from vlfleet.plan.render import Run

FORMS = ("command", "systemd", "compose", "k8s")
_MAKE = "make one with `vlfleet plan MODEL --json > plan.json`"


def render(
    form: Annotated[str, typer.Argument(metavar="FORM", help="command, systemd, compose, k8s.")],
    plan: Annotated[
        str, typer.Argument(metavar="[PLAN]", help="What `vlfleet plan --json` wrote; -: standard input.")
    ] = "-",
    fleet: Annotated[
        int, typer.Option(min=1, help="Which fleet of the plan, where GPUs of several kinds make several.")
    ] = 1,
) -> None:
    """Print what runs a plan: vlfleet plan MODEL --gpus 4xRTX4090 --json | vlfleet render systemd"""
    from vlfleet.plan import render as forms

    if form not in FORMS:
        raise VlfleetError(f"{form} is no form", f"one of {', '.join(FORMS)}", ExitCode.USAGE)
    facts = run_section(plan, fleet)
    run = run_of(facts)
    if form != "k8s" and not facts["served"]:
        cause = "vlfleet does not serve this family yet"
        raise VlfleetError(cause, "`vlfleet render k8s` runs vLLM itself", ExitCode.USAGE)
    if form == "command":
        from vlfleet.cli.options import program
        from vlfleet.cli.plan_values import shell

        print("\n".join(shell(program(), run.up)))
    elif form == "systemd":
        print(forms.systemd(run, shutil.which("vlfleet") or "/usr/local/bin/vlfleet"), end="")
    else:
        print(forms.compose(run) if form == "compose" else forms.kubernetes(run), end="")


def run_section(plan: str, fleet: int) -> dict[str, Any]:
    """The section "run" of a plan's fleet.

    Raises:
        VlfleetError: exit code 2, no plan; 3, one in which nothing fits.
    """
    try:
        content = sys.stdin.read() if plan == "-" else Path(plan).read_text(encoding="utf-8")
        fleets = json.loads(content)["fleets"]
        chosen = [each["run"] for each in fleets]
    except (OSError, ValueError, KeyError, TypeError):
        name = "standard input" if plan == "-" else plan
        raise VlfleetError(f"{name} holds no plan", _MAKE, ExitCode.USAGE) from None
    if fleet > len(chosen):
        raise VlfleetError(f"the plan has {len(chosen)} fleet(s)", f"--fleet 1 to {len(chosen)}", ExitCode.USAGE)
    if chosen[fleet - 1] is None:
        raise VlfleetError(
            "nothing fits in this plan", "; or ".join(fleets[fleet - 1]["changes"]), ExitCode.DOES_NOT_FIT
        )
    return dict(chosen[fleet - 1])


def run_of(facts: dict[str, Any]) -> Run:
    """The section as what is rendered.

    Raises:
        VlfleetError: exit code 2, it is not whole.
    """
    from vlfleet.cli.plan_values import serve_words, up_words
    from vlfleet.plan.render import Run

    try:
        return Run(
            model=str(facts["model"]),
            vllm=str(facts["vllm"]),
            gpus=tuple(int(index) for indices in facts["gpus"] for index in indices),
            replicas=int(facts["replicas"]),
            world_size=facts["tensor_parallel_size"] * facts["pipeline_parallel_size"],
            up=tuple(up_words(facts)),
            serve=tuple(serve_words(facts)),
        )
    except (KeyError, TypeError, ValueError):
        raise VlfleetError("the plan is not whole", _MAKE, ExitCode.USAGE) from None
