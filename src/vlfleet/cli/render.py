"""`vlfleet render`: a plan as a command, a systemd unit, a compose file or Kubernetes manifests; and what Prometheus
and Grafana need to watch a fleet."""

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
"""Of a plan."""
WATCHING = ("prometheus", "prometheus-rules", "grafana")
"""Of any fleet."""
GATEWAY = "127.0.0.1:8000"
_MAKE = "make one with `vlfleet plan MODEL --json > plan.json`"


def render(
    form: Annotated[str, typer.Argument(metavar="FORM", help=", ".join((*FORMS, *WATCHING)) + ".")],
    plan: Annotated[
        str,
        typer.Argument(
            metavar="[PLAN]",
            help=f"What `vlfleet plan --json` wrote; -: standard input. Of prometheus: the gateway ({GATEWAY}).",
        ),
    ] = "-",
    fleet: Annotated[
        int, typer.Option(min=1, help="Which fleet of the plan, where GPUs of several kinds make several.")
    ] = 1,
    slo_ttft: Annotated[float, typer.Option(min=0.001, help="Of prometheus-rules: what `vlfleet up` was given.")] = 5.0,
    slo_share: Annotated[
        float, typer.Option(min=0.5, max=0.99999, help="Of prometheus-rules: what `vlfleet up` was given.")
    ] = 0.99,
) -> None:
    """Print what runs a plan, or what watches a fleet: vlfleet plan MODEL --json | vlfleet render systemd"""
    if form in WATCHING:
        print(watching(form, plan, slo_ttft, slo_share), end="")
        return
    if form not in FORMS:
        raise VlfleetError(f"{form} is no form", f"one of {', '.join((*FORMS, *WATCHING))}", ExitCode.USAGE)
    from vlfleet.plan import render as forms

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


def watching(form: str, given: str, slo_ttft: float, slo_share: float) -> str:
    """A file for Prometheus or Grafana; only `prometheus` takes a second word, which is the gateway's address.

    Raises:
        VlfleetError: exit code 2, there is another.
    """
    from vlfleet.watch.alerts import all_rules
    from vlfleet.watch.alerts_fleet import Slo
    from vlfleet.watch.dashboards import grafana, prometheus

    if form == "prometheus":
        target = GATEWAY if given == "-" else given.removeprefix("http://").removesuffix("/v1").rstrip("/")
        if "/" in target or ":" not in target:
            raise VlfleetError(f"{given} is no address of a gateway", f"as in {GATEWAY}", ExitCode.USAGE)
        return prometheus.config(target)
    if given != "-":
        raise VlfleetError(f"{form} takes no plan", f"vlfleet render {form}", ExitCode.USAGE)
    if form == "grafana":
        return grafana.dashboard()
    promised = Slo(slo_ttft, slo_share)
    return prometheus.rules_file(all_rules(promised), promised)


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
