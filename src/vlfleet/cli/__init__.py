"""The command line. Each command is a thin module that imports what it needs when it runs: `--help` stays fast."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated

import typer

from vlfleet import __version__
from vlfleet.cli import (
    ask,
    batch,
    calibrate,
    chat,
    checkpoint,
    cordon,
    demo,
    doctor,
    down,
    keys,
    logs,
    page,
    plan,
    render,
    report,
    restart,
    route,
    status,
    top,
    up,
)
from vlfleet.errors import ExitCode, VlfleetError

app = typer.Typer(
    name="vlfleet",
    help="Serves a Qwen-VL model with several replicas behind one OpenAI-compatible port.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(value: bool) -> None:
    if value:
        print(f"vlfleet {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


app.command(cls=up.UpCommand)(up.up)
app.command(cls=plan.PlanCommand)(plan.plan)
app.command()(render.render)
app.command()(calibrate.calibrate)
app.command()(down.down)
app.command()(status.status)
app.command()(top.top)
app.command()(page.page)
app.command()(restart.restart)
app.command()(cordon.cordon)
app.command()(cordon.uncordon)
app.command()(cordon.drain)
app.command()(logs.logs)
app.command()(report.report)
app.command(cls=ask.AskCommand)(ask.ask)
app.command()(chat.chat)
app.command(cls=up.UpCommand)(batch.batch)
app.command()(demo.demo)
app.add_typer(checkpoint.app)
app.add_typer(doctor.app)
app.add_typer(keys.app)
app.add_typer(route.app)


@app.command()
def version() -> None:
    """Print the version."""
    print(f"vlfleet {__version__}")


def main() -> None:
    """Runs one command. What goes wrong is told as cause and remedy, without a traceback; the exit code is its kind."""
    try:
        app(prog_name="vlfleet")
    except VlfleetError as error:
        explain(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
    except Exception as error:
        sys.exit(_unexpected(error))


def explain(error: VlfleetError) -> None:
    print(f"error: {error.cause}", file=sys.stderr)
    if error.remedy:
        print(f"remedy: {error.remedy}", file=sys.stderr)


def _unexpected(error: Exception) -> ExitCode:
    """A fault of vlfleet itself: one line for the person, the traceback in a file for us."""
    if os.environ.get("VLFLEET_DEBUG"):
        traceback.print_exception(error)
        return ExitCode.FAILED
    from vlfleet.home import home

    where = home() / "crash.log"
    try:
        where.parent.mkdir(parents=True, exist_ok=True)
        where.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        remedy = f"this is a fault of vlfleet; {where} holds the details"
    except OSError:
        remedy = "this is a fault of vlfleet; VLFLEET_DEBUG=1 shows the details"
    explain(VlfleetError(f"{type(error).__name__}: {error}".splitlines()[0], remedy))
    return ExitCode.FAILED
