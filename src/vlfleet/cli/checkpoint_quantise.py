"""vlfleet checkpoint quantise: a smaller checkpoint out of a bf16 one."""

from __future__ import annotations

import contextlib
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlfleet.cli.options import AsJson, note

if TYPE_CHECKING:
    from vlfleet.checkpoint.quantise import QuantisePlan


def quantise(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A bf16 checkpoint: folder or hub name. It stays.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="The folder to make.")],
    scheme: Annotated[str, typer.Option(help="fp8 (any CPU, no calibration), awq, gptq or w8a8.")],
    tp: Annotated[int, typer.Option("--tp", "--tensor-parallel-size", help="GPUs that shall share the model.")] = 1,
    calibration: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Pictures like yours, for awq, gptq, w8a8; else three bundled ones."),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Calibration samples.")] = 128,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it takes and costs.")] = False,
    as_json: AsJson = False,
) -> None:
    """Quantise the language model of a checkpoint; the vision tower stays as it is.

    fp8 streams from SRC to DST, and goes on after an interruption. awq (int4), gptq (int4) and w8a8 (INT8) drive
    llm-compressor (pip install 'vlfleet[quantise]'), which wants the whole model in memory, and a GPU.
    """
    from vlfleet import demo
    from vlfleet.checkpoint.locate import locate
    from vlfleet.checkpoint.quantise import plan_quantise, write_quantised
    from vlfleet.checkpoint.quantise_calibration import pictures_in
    from vlfleet.checkpoint.quantise_calibration import samples as choose
    from vlfleet.cli.checkpoint_progress import Progress

    pictures = pictures_in(calibration) if calibration else demo.images()
    plan = plan_quantise(locate(source), scheme, tp, choose(pictures, samples) if scheme != "fp8" else ())
    for line in plan.notes:
        note(f"note: {line}")
    if plan.samples and not calibration:
        note("note: calibrated with three bundled pictures; --calibration FOLDER with yours makes a better model")
    if not dry_run:
        with contextlib.redirect_stdout(sys.stderr), Progress("quantise", plan.target_bytes) as report:
            write_quantised(plan, target, report)
    if as_json:
        _print_json(facts(plan, target=None if dry_run else target))
    elif dry_run:
        print("\n".join(f"{name:<10}{text}" for name, text in costs(plan)))
    else:
        print(f"ready: vllm serve {shlex.quote(str(target))}" + (f" --tensor-parallel-size {tp}" if tp > 1 else ""))


def costs(plan: QuantisePlan) -> list[tuple[str, str]]:
    """What it takes and costs, for a person."""
    from vlfleet.checkpoint.quantise import FP8_MEMORY_BYTES, SCHEMES, fp8_rate
    from vlfleet.checkpoint.quantise_cost import ASSUMED_FLOPS, quality

    padded = f"; intermediate_size {plan.before} -> {plan.after} for TP {plan.tp}" if plan.after > plan.before else ""
    lines = [
        ("scheme", SCHEMES[plan.scheme]),
        ("layers", f"{plan.layers} of the language model{padded}; vision tower, embeddings and lm_head stay"),
        ("size", f"{plan.source_bytes / 1e9:.2f} -> {plan.target_bytes / 1e9:.2f} GB"),
    ]
    if plan.calibration:
        need = plan.calibration
        work = f"{need.flops / 1e15:.3g} PFLOP for {len(plan.samples)} samples of {need.tokens} tokens together"
        lines.append(("time", f"{work}: {_duration(need.seconds)} at {ASSUMED_FLOPS / 1e12:.0f} TFLOP/s (assumed)"))
        memory = f"{need.host_bytes / 2**30:.1f} GiB of the host for the model; on the GPU one decoder layer at a time"
        lines.append(("memory", f"{memory} (estimates, nothing was measured)"))
    else:
        rate = fp8_rate()
        text = f"{_duration(plan.source_bytes / rate)} at {rate / 1e9:.2f} GB/s, measured here now, disks not counted"
        lines += [("time", text), ("memory", f"{FP8_MEMORY_BYTES / 2**30:.2f} GiB whatever the model's size")]
    return lines + [("quality", text) for text in quality(plan.scheme, plan.parameters)]


def facts(plan: QuantisePlan, target: Path | None) -> dict[str, Any]:
    """What --json prints. `target` is null if nothing was written."""
    from vlfleet.checkpoint.quantise_cost import quality

    need = plan.calibration
    return {
        "source": str(plan.source),
        "target": str(target) if target else None,
        "scheme": plan.scheme,
        "tensor_parallel_size": plan.tp,
        "layers": plan.layers,
        "intermediate_size": {"before": plan.before, "after": plan.after},
        "source_bytes": plan.source_bytes,
        "target_bytes": plan.target_bytes,
        "calibration": {
            "samples": len(plan.samples),
            "tokens": need.tokens,
            "estimated_flops": need.flops,
            "estimated_seconds": need.seconds,
            "host_bytes": need.host_bytes,
        }
        if need
        else None,
        "quality": quality(plan.scheme, plan.parameters),
        "notes": plan.notes,
    }


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _print_json(content: dict[str, Any]) -> None:
    import json

    print(json.dumps(content, indent=2))
