"""vlfleet checkpoint verify: is it whole, is it sound, is it the same as before, does it answer?"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlfleet.cli.options import AsJson, note
from vlfleet.errors import ExitCode

if TYPE_CHECKING:
    from vlfleet.checkpoint.verify import Verification
    from vlfleet.demo.probe import Probe

SHOWN = 10
"""Problems of one kind that are printed; --json has them all."""


def verify(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A checkpoint: folder or hub name.")],
    checksums_only: Annotated[
        bool, typer.Option("--checksums-only", help="Only read and compare: no structure, no NaN.")
    ] = False,
    probe: Annotated[
        bool, typer.Option("--probe", help="Then start an engine and ask about a bundled picture.")
    ] = False,
    base_url: Annotated[
        str, typer.Option(metavar="URL", help="Probe this running server instead of starting an engine.")
    ] = "",
    engine: Annotated[
        str, typer.Option(help="For --probe: vllm or embedded.", show_default="vllm with a GPU, else embedded")
    ] = "",
    manifest: Annotated[
        Path | None,
        typer.Option(help="Where checksums are kept.", show_default="MODEL/vlfleet-manifest.json"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check every shard, tensor and number of a checkpoint, and its checksums against a manifest.

    The first good run writes the manifest. After Ctrl-C the same command goes on where it stopped. Exit code 1: a
    problem was found.
    """
    from vlfleet.checkpoint.verify import plan_verification
    from vlfleet.checkpoint.verify import verify as read
    from vlfleet.cli.checkpoint_progress import Progress

    plan = plan_verification(model, checksums_only=checksums_only, manifest=manifest)
    try:
        with Progress("verify", plan.total_bytes) as report:
            found = read(plan, report)
    except KeyboardInterrupt:
        note("stopped; the same command goes on from here")
        raise
    probed = probe_of(plan.path, engine, base_url) if (probe or base_url) and found.sound else None
    if as_json:
        import json

        print(json.dumps(facts(found, probed), indent=2))
    else:
        print("\n".join(summary(found, probed)))
    if not found.sound or (probed is not None and probed.problems):
        raise typer.Exit(ExitCode.FAILED)


def probe_of(path: Path, engine: str, base_url: str) -> Probe:
    from vlfleet.demo.probe import ask_server, probe_checkpoint
    from vlfleet.fleet.engines import default_engine

    if base_url:
        import asyncio

        return asyncio.run(ask_server(path, base_url))
    name = engine or default_engine()
    note(f"starting the engine {name!r} for a probe")
    return probe_checkpoint(path, name, note)


def facts(found: Verification, probed: Probe | None) -> dict[str, Any]:
    """What --json prints."""
    from dataclasses import asdict

    return {
        "path": str(found.path),
        "sound": found.sound,
        "problems": [asdict(problem) for problem in found.problems],
        "files": found.files,
        "bytes": found.bytes,
        "resumed_bytes": found.resumed_bytes,
        "manifest": str(found.manifest),
        "manifest_outcome": found.outcome,
        "probe": asdict(probed) if probed else None,
    }


def summary(found: Verification, probed: Probe | None) -> list[str]:
    """For a person."""
    counts = Counter(problem.kind for problem in found.problems)
    lines = []
    shown: Counter[str] = Counter()
    for problem in found.problems:
        shown[problem.kind] += 1
        if shown[problem.kind] <= SHOWN:
            lines.append(f"{problem.kind}: {problem}")
        elif shown[problem.kind] == counts[problem.kind]:
            lines.append(f"{problem.kind}: {counts[problem.kind] - SHOWN} more")
    read = f"{found.files} files, {found.bytes / 1e9:.2f} GB"
    if found.sound:
        lines.append(f"sound: {read}; {found.manifest.name} {found.outcome}")
    else:
        remedy = "download what is named again"
        if found.outcome == "differs":
            remedy += f"; if you changed it yourself, delete {found.manifest.name}"
        lines.append(f"{len(found.problems)} problem{'s' * (len(found.problems) > 1)} in {read}; {remedy}")
    if probed:
        tokens = f"{probed.visual_tokens} visual tokens, {probed.expected_visual_tokens} expected"
        lines += [f"probe: {problem}" for problem in probed.problems]
        lines.append(f"probe: {probed.picture}, {tokens}: {probed.answer!r}")
    return lines
