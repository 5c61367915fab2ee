"""vlfleet checkpoint lint: what of a checkpoint is known to break an engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from vlfleet.cli.options import AsJson
from vlfleet.errors import ExitCode

if TYPE_CHECKING:
    from vlfleet.checkpoint.lint_rule import Finding


def lint(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A checkpoint: folder or hub name.")],
    tp: Annotated[
        int | None,
        typer.Option(
            "--tp", "--tensor-parallel-size", help="GPUs that shall share the model; its groups must allow it."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find everything in a checkpoint that is known to break an engine, with what breaks and what helps.

    Reads headers and small files only. Exit code 1: an error was found; warnings alone are 0.
    """
    from vlfleet.checkpoint.lint import lint as look
    from vlfleet.checkpoint.lint_rule import Severity

    findings = look(model, tp)
    errors = sum(finding.severity is Severity.ERROR for finding in findings)
    if as_json:
        import json
        from dataclasses import asdict

        facts = {"errors": errors, "warnings": len(findings) - errors, "findings": [asdict(each) for each in findings]}
        print(json.dumps(facts, indent=2))
    else:
        print("\n".join(lines(findings)))
    if errors:
        raise typer.Exit(ExitCode.FAILED)


def lines(findings: Sequence[Finding]) -> list[str]:
    """For a person: what is wrong, then once for each rule what breaks and what helps."""
    if not findings:
        return ["clean: nothing here is known to break an engine"]
    shown = []
    for number, finding in enumerate(findings):
        where = f"{finding.where} " if finding.where else ""
        shown.append(f"{finding.severity} {finding.code}: {where}{finding.what}")
        if number + 1 == len(findings) or findings[number + 1].code != finding.code:
            shown += [f"  breaks: {finding.breaks}", f"  remedy: {finding.remedy}"]
    return shown
