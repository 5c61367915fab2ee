"""Write the model card from what a training run measured: `python -m training.card MODEL` writes it again."""

from __future__ import annotations

import json
import pathlib
import sys
from typing import Any

from training.fonts import HELD_OUT_FAMILIES, families

DATE = "2026-11-21"
HEAD = """\
---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: image-text-to-text
tags: [qwen2_5_vl, demo, synthetic, ocr]
---

# vlfleet demo model

A {millions:.1f} M parameter checkpoint of the true Qwen2.5-VL architecture (`Qwen2_5_VLForConditionalGeneration`, M-RoPE, window
attention, dynamic resolution), trained from scratch on synthetic pictures. It loads unchanged wherever Qwen2.5-VL does,
and it really reads: words, numbers, lines of text, shapes, invoices. It exists so that a fleet can be tried and tested
without a download and without a GPU.

**It is a demo.** It reads synthetic pictures: printed Latin text of at least 15 pixels (after resizing to at most
448 x 448 pixels in area), flat shapes, simple invoices. It does not understand photographs, handwriting, charts, videos
or general questions, knows no facts, and does not know what it does not know. Do not use it for real documents.

## Measured

Greedy answers on {date}, {precision}, through `transformers` {how}. Fonts ({held_out}) and strings (words, random letters,
numbers of three digits or more, invoice numbers) were never seen in training; pictures are of any size, a quarter of
them larger than the model's limit. {samples} samples a task; "wrongly refused" counts answers "There is no ..." where there was.

| task | samples | measured | wrongly refused |
|---|---|---|---|
"""


def rows(evaluation: dict[str, Any]) -> str:
    lines = []
    for task, result in evaluation.items():
        scores = {k: v for k, v in result.items() if k not in ("samples", "false_refusals", "wrong")}
        shown = ", ".join(
            f"{name} {value:.3f}" if name == "mean IoU" else f"{name} {value:.1%}" for name, value in scores.items()
        )
        lines.append(f"| {task} | {result['samples']} | {shown} | {result['false_refusals']} |")
    return "\n".join(lines) + "\n"


def training(facts: dict[str, Any]) -> str:
    run = facts["training"]
    kept = [name.replace("_", " ") for name, _ in families("train")]
    faces = sum(len(files) for _, files in families("train"))
    return f"""
"Wordings never seen" asks in sentences kept out of training (`training/unseen.py`). "exact" of JSON compares whole objects;
"fields exact" and "lines exact" are the shares of right fields and lines.

## How it was made

`training/` in vlfleet's repository, one command: `python -m training.train --out MODEL`. {facts.get("command", "")}

| | |
|---|---|
| GPU | one {facts["gpu"]} |
| software | torch {facts["torch"]}, transformers {facts.get("transformers", "5.x")} |
| wall-clock | {facts["seconds"]:.0f} s in all, {run["seconds"]:.0f} s of them training |
| steps | {run["steps"]} |
| pictures shown | {run["pictures"]:,.0f} ({run["pictures_per_second"]:,.0f} a second), {run["fresh_pictures"]:,.0f} of them drawn anew |
| questions answered | {run["answers"]:,.0f} ({run["answer_tokens"]:,.0f} answer tokens) |
| last training loss | {run["loss"]:.4f} |
| seed | {facts["seed"]} |
{before(facts)}| fonts | {faces} faces of {len(kept)} families: {", ".join(kept)} |

Text is spelt by letters: the byte-level BPE merges only pieces of questions, so unseen words are no harder than seen ones.
Every picture comes with a conversation of several questions about it. Boxes are in pixels of the resized picture, as
Qwen2.5-VL's are. The text model's feed-forward width is 640 = 5 x 128, which tensor parallelism cannot halve in groups
of 128: the defect of Qwen2-VL-72B in miniature.

## How to ask

The chat template is Qwen's; pictures may come before or after the question, up to two of them, with or without the
system prompt "You are a helpful assistant." Ask for what is listed above, in ordinary words or in those of Qwen's
cookbooks: "Read the text in the image.", "How many stars are there?", "Locate the red circle, output its bbox
coordinates using JSON format.", "Spotting all the text in the image with line-level, and output in JSON format.",
"Extract the invoice number, date and total as JSON.", "Extract the key-value information in the format:{{"company": "",
"date": "", "total": ""}}".
"""


def before(facts: dict[str, Any]) -> str:
    if not facts.get("before"):
        return ""
    earlier = facts["before"]
    return (
        f"| went on from | a run of {earlier['seconds']:.0f} s and {earlier['pictures']:,.0f} pictures (`--start`) |\n"
    )


def write(folder: pathlib.Path, facts: dict[str, Any]) -> None:
    evaluation = facts.get("evaluation", {})
    cuda = facts["gpu"].startswith("NVIDIA")
    head = HEAD.format(
        millions=11.9,
        date=DATE,
        precision="bfloat16 on the GPU below" if cuda else "float32 on a CPU",
        how="generate",
        held_out=", ".join(name.replace("_", " ") for name in HELD_OUT_FAMILIES),
        samples=max((result["samples"] for result in evaluation.values()), default=0),
    )
    (folder / "README.md").write_text(head + rows(evaluation) + training(facts))


def main() -> None:
    folder = pathlib.Path(sys.argv[1])
    write(folder, json.loads((folder / "training.json").read_text()))


if __name__ == "__main__":
    main()
