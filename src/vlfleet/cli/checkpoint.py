"""vlfleet checkpoint: commands on a checkpoint's files. None of them needs a GPU, none changes its source."""

from __future__ import annotations

import typer

from vlfleet.cli import (
    checkpoint_inspect,
    checkpoint_lint,
    checkpoint_normalise,
    checkpoint_pad,
    checkpoint_quantise,
    checkpoint_verify,
)

app = typer.Typer(
    name="checkpoint",
    help="Looks into a checkpoint, and mends it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.command()(checkpoint_inspect.inspect)
app.command()(checkpoint_verify.verify)
app.command()(checkpoint_lint.lint)
app.command()(checkpoint_normalise.normalise)
app.command()(checkpoint_pad.pad)
app.command()(checkpoint_quantise.quantise)
