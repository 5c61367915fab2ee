"""vlfleet checkpoint inspect: what a checkpoint is, and over how many GPUs it can be cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlfleet.cli.options import AsJson

if TYPE_CHECKING:
    from vlfleet.checkpoint.inspection import Inspection
    from vlfleet.plan.legality import Verdict


def inspect(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A checkpoint: folder or hub name.")],
    as_json: AsJson = False,
) -> None:
    """Show what a checkpoint is: parameters, quantisation, images, disk, and legal tensor-parallel sizes.

    Reads headers only: milliseconds, whatever the model's size.
    """
    from vlfleet.checkpoint.inspection import inspect as look
    from vlfleet.plan.legality import Shape, verdicts

    found = look(model)
    shape = Shape.of(found.config, found.family)
    modes = {
        "weights": verdicts(shape, found.scheme, "weights"),
        "data": verdicts(shape, found.scheme, "data"),
    }
    if as_json:
        import json

        print(json.dumps(facts(found, modes), indent=2))
    else:
        print("\n".join([*head(found), "", *parts(found), "", *legality(modes)]))


def facts(found: Inspection, modes: dict[str, list[Verdict]]) -> dict[str, Any]:
    """What --json prints."""
    from dataclasses import asdict

    from vlfleet.plan.legality import NEWEST

    scheme = found.scheme
    return {
        "path": str(found.path),
        "family": found.family.name,
        "architecture": found.family.architecture,
        "parameters": found.parameters,
        "parts": {each.part.value: {**asdict(each), "part": each.part.value} for each in found.parts},
        "tied_embeddings": found.tied,
        "shards": found.shards,
        "tensors": found.tensors,
        "tensor_bytes": found.tensor_bytes,
        "disk_bytes": found.disk_bytes,
        "quantization": {
            **asdict(scheme),
            "from_config": found.from_config,
            "parts": [part.value for part in found.quantization.parts],
            "layers": len(found.quantization.modules),
            "mixed": len(found.quantization.schemes) > 1,
        }
        if scheme and found.quantization
        else None,
        "disagreements": found.disagreements,
        "min_pixels": found.min_pixels or None,
        "max_pixels": found.max_pixels or None,
        "min_visual_tokens": found.min_visual_tokens or None,
        "max_visual_tokens": found.max_visual_tokens or None,
        "max_position_embeddings": found.max_position_embeddings,
        "kv_bytes_per_token": found.kv_bytes_per_token,
        "tensor_parallel": {
            "vllm": ".".join(map(str, NEWEST)),
            **{
                mode: {
                    "legal": [each.tp for each in found_sizes if each.legal],
                    "refused": [
                        {"tp": each.tp, "rule": each.code, "error": each.error, "remedy": each.remedy}
                        for each in found_sizes
                        if not each.legal
                    ],
                }
                for mode, found_sizes in modes.items()
            },
        },
    }


def head(found: Inspection) -> list[str]:
    """For a person: a line a fact."""
    files = f"{found.shards} shard{'s' * (found.shards > 1)}"
    lines = [
        f"{found.path.name}: {found.family.name}, {found.parameters:,} parameters, "
        f"{found.disk_bytes / 1e9:.2f} GB on disk in {files}",
        f"quantisation  {quantisation(found)}",
        f"context       {found.max_position_embeddings:,} tokens of {found.kv_bytes_per_token:,} bytes",
    ]
    if found.max_pixels:
        tokens = f"{found.min_visual_tokens:,} to {found.max_visual_tokens:,} visual tokens"
        lines.append(f"a picture     {tokens} ({found.min_pixels:,} to {found.max_pixels:,} pixels)")
    else:
        lines.append("a picture     preprocessor_config.json cannot be read: see `vlfleet checkpoint lint`")
    return [*lines, *(f"WARNING       {each}" for each in found.disagreements)]


def quantisation(found: Inspection) -> str:
    if found.quantization is None or found.scheme is None:
        return "none"
    where = ", ".join(
        f"{each.part.value} {each.quantised_layers} of {each.linear_layers} layers"
        for each in found.parts
        if each.quantised_layers
    )
    said = f"; {' and '.join(found.from_config)} as config.json says" if found.from_config else ""
    more = f"; {len(found.quantization.schemes) - 1} more schemes" if len(found.quantization.schemes) > 1 else ""
    return f"{found.scheme} ({where}{more}{said})"


def parts(found: Inspection) -> list[str]:
    rows = [("PART", "PARAMETERS", "GB", "DTYPES")]
    rows += [
        (each.part.value, f"{each.parameters:,}", f"{each.bytes / 1e9:.3f}", " ".join(each.dtypes))
        for each in found.parts
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}  {d}" for a, b, c, d in rows]
    return [*lines, "lm_head is the embedding (tied)"] if found.tied else lines


def legality(modes: dict[str, list[Verdict]]) -> list[str]:
    """Legal sizes of both modes, then the refusals."""
    from vlfleet.plan.legality import NEWEST

    lines = [f"TENSOR PARALLEL SIZES that vLLM {'.'.join(map(str, NEWEST))} accepts (up to 16)"]
    for mode, found in modes.items():
        legal = " ".join(str(each.tp) for each in found if each.legal) or "none"
        lines.append(f"--mm-encoder-tp-mode {mode:<8} {legal}")
    return [*lines, *refusals(modes["weights"], modes["data"])]


def refusals(weights: Sequence[Verdict], data: Sequence[Verdict]) -> list[str]:
    """One line a rule, with vLLM's words for the first size; a second one if more than a smaller size would help."""
    same: dict[tuple[str, str, str], list[Verdict]] = {}
    for cut, whole in zip(weights, data, strict=True):
        both = cut.code == whole.code
        for each, where in ((cut, "" if both else " weights"), *(() if both else ((whole, " data"),))):
            if not each.legal:
                helps = "" if each.remedy.startswith("TP ") else each.remedy.replace(f"--tp {each.tp}", "--tp N")
                same.setdefault((each.code, where, helps), []).append(each)
    lines = []
    for (code, where, helps), found in same.items():
        sizes = ranges([each.tp for each in found])
        lines.append(f"refused {sizes}{where}: {code} {found[0].told or found[0].reason}")
        if helps:
            lines.append(f"  remedy: {helps}")
    return lines


def ranges(sizes: Sequence[int]) -> str:
    """3 5-7 9-15"""
    runs: list[list[int]] = []
    for each in sizes:
        if runs and each == runs[-1][-1] + 1:
            runs[-1].append(each)
        else:
            runs.append([each])
    return " ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
