"""vlfleet checkpoint normalise: the form of the hub, which every engine reads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlfleet.cli.options import AsJson, note

if TYPE_CHECKING:
    from vlfleet.checkpoint.normalise import Normalised, NormalisePlan


def normalise(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A checkpoint: folder or hub name. It stays as it is.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="The folder to make.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a checkpoint in the form of the hub, which vLLM 0.6 to 0.33, transformers 4.49 to 5 and SGLang read.

    Tensors keep their bytes. Shards that are as they should be are shared with SRC, not copied, where the filesystem
    allows it. After an interruption the same command goes on where it stopped.
    """
    from vlfleet.checkpoint.lint import lint
    from vlfleet.checkpoint.normalise import plan_normalise, write_normalised
    from vlfleet.cli.checkpoint_progress import Progress

    plan = plan_normalise(source)
    done: Normalised | None = None
    if not dry_run:
        with Progress("normalise", plan.total_bytes) as report:
            done = write_normalised(plan, target, report)
        for finding in lint(target):
            note(f"{finding.severity} {finding.code} stays: {finding.what}; {finding.remedy}")
    if as_json:
        import json

        print(json.dumps(facts(plan, target, done), indent=2))
    else:
        print("\n".join(summary(plan, done)))


def facts(plan: NormalisePlan, target: Path, done: Normalised | None) -> dict[str, Any]:
    """What --json prints. `shards` is null if nothing was written."""
    from dataclasses import asdict

    return {
        "source": str(plan.source),
        "target": str(target) if done else None,
        "changes": plan.changes,
        "shards": asdict(done) if done else None,
        "written_bytes": plan.written_bytes,
    }


def summary(plan: NormalisePlan, done: Normalised | None) -> list[str]:
    """For a person."""
    lines = list(plan.changes) or ["it has the form of the hub already"]
    if done is None:
        return [*lines, "nothing was written (--dry-run)"]
    ways = (
        (done.linked, "hard-linked: the same file under two names"),
        (done.cloned, "cloned, or copied where the filesystem cannot share"),
        (done.copied, "copied, since DST is on another filesystem"),
        (done.rewritten, "written with another header"),
    )
    return [*lines, *(f"{count} shard{'s' * (count > 1)} {how}" for count, how in ways if count)]
