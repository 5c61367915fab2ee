"""vlfleet doctor: what is wrong, and what to do about it."""

from __future__ import annotations

import typer

from vlfleet.cli import doctor_log, doctor_machine, doctor_rules
from vlfleet.cli.options import AsJson

app = typer.Typer(
    name="doctor",
    help="Look at this machine, or explain an engine's log: what is wrong, and what to do.",
    invoke_without_command=True,
    rich_markup_mode=None,
)
app.command()(doctor_log.log)
app.command()(doctor_rules.rules)


@app.callback()
def machine(
    context: typer.Context,
    model: doctor_machine.Model = "",
    nodes: doctor_machine.Nodes = "",
    quick: doctor_machine.Quick = False,
    verbose: doctor_machine.Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Look at this machine: what would make an engine fail, what would slow it, and what to do about it.

    Driver, GPUs, copies between GPUs compared byte by byte, an all-reduce, the installed vLLM, limits, disks, network,
    environment. Exit code 0: nothing would fail; 4: something would.
    """
    if context.invoked_subcommand is None:
        doctor_machine.machine(model, nodes, quick, verbose, as_json)
