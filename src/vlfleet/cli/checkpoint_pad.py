"""vlfleet checkpoint pad: an intermediate size that N ranks can share."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlfleet.cli.options import AsJson, note

if TYPE_CHECKING:
    from vlfleet.checkpoint.pad import PadPlan


def pad(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A checkpoint: folder or hub name. It stays as it is.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="The folder to make.")],
    tp: Annotated[int, typer.Option("--tp", "--tensor-parallel-size", help="GPUs that shall share the model.")],
    group_size: Annotated[
        int | None,
        typer.Option(help="Make each rank's part a multiple of this; for bf16 that is to be quantised: 128."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    as_json: AsJson = False,
) -> None:
    """Append zero neurons to the MLP, so that N GPUs can share it; the answers stay the same.

    For bf16, AWQ, GPTQ, compressed-tensors and FP8: no requantisation, no calibration, no GPU. Streams from SRC to DST;
    after an interruption the same command goes on where it stopped.
    """
    from vlfleet.checkpoint.locate import locate
    from vlfleet.checkpoint.pad import plan_pad, write_padded
    from vlfleet.cli.checkpoint_progress import Progress

    plan = plan_pad(locate(source), tp, group_size)
    for line in plan.notes:
        note(f"note: {line}")
    write = plan.needed and not dry_run
    if write:
        with Progress("pad", plan.rewrite.total_bytes) as report:
            write_padded(plan, target, report)
    if as_json:
        _print_json(facts(plan, target if write else None))
    else:
        print(summary(plan, target, done=write))


def facts(plan: PadPlan, target: Path | None) -> dict[str, Any]:
    """What --json prints. `target` is null if nothing was written."""
    return {
        "source": str(plan.source),
        "target": str(target) if target else None,
        "needed": plan.needed,
        "tensor_parallel_size": plan.tp,
        "formats": plan.formats,
        "multiple_per_rank": plan.multiple,
        "intermediate_size": {"before": plan.before, "after": plan.after},
        "shards": {"written": len(plan.rewrite.changed), "shared": _shared(plan)},
        "written_bytes": plan.rewrite.written_bytes,
        "notes": plan.notes,
    }


def summary(plan: PadPlan, target: Path, *, done: bool) -> str:
    """For a person."""
    rank = plan.after // plan.tp
    parts = f"{rank} = {rank // plan.multiple} x {plan.multiple}" if plan.multiple > 1 else str(rank)
    if not plan.needed:
        more = "" if plan.multiple > 1 else "; if it is to be quantised, say in which groups: --group-size 128"
        return f"nothing to do: {plan.before} is legal for TP {plan.tp} ({plan.formats[0]}, {parts} a rank){more}"
    count = len(plan.rewrite.changed)
    written = f"{count} shard{'s' * (count > 1)}, {plan.rewrite.written_bytes / 1e9:.2f} GB"
    also = f", {_shared(plan)} shared with SRC" if _shared(plan) else ""
    lines = [
        f"intermediate_size {plan.before} -> {plan.after}: {parts} for each of {plan.tp} ranks",
        f"{', '.join(plan.formats)}: {written}{also}",
    ]
    serve = f"vllm serve {shlex.quote(str(target))} --tensor-parallel-size {plan.tp}"
    return "\n".join([*lines, f"ready: {serve}" if done else "nothing was written (--dry-run)"])


def _shared(plan: PadPlan) -> int:
    return len(plan.rewrite.shards) - len(plan.rewrite.changed)


def _print_json(content: dict[str, Any]) -> None:
    import json

    print(json.dumps(content, indent=2))
