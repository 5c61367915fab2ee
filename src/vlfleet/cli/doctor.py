"""vlfleet doctor: what is wrong, and what to do about it."""

from __future__ import annotations

import typer

from vlfleet.cli import doctor_log, doctor_rules

app = typer.Typer(
    name="doctor",
    help="Explains what is wrong, and what to do about it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.command()(doctor_log.log)
app.command()(doctor_rules.rules)


@app.callback()
def _group() -> None:
    """Explain what is wrong, and what to do about it."""
