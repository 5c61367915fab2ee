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

An 11.9 M parameter checkpoint of the true Qwen2.5-VL architecture (`Qwen2_5_VLForConditionalGeneration`, M-RoPE,
window attention, dynamic resolution), trained from scratch on synthetic pictures. It loads unchanged wherever
Qwen2.5-VL does, and it really reads: words, numbers, lines of text, shapes, invoices. It exists so that a fleet can be
tried and tested without a download and without a GPU.

**It is a demo.** It reads synthetic pictures: printed Latin text of about 15 pixels and more (after resizing to at most
448 x 448 pixels in area), flat shapes, simple invoices. It does not understand photographs, handwriting, charts, videos
or general questions; it knows no facts, and its mistakes look as sure as its right answers. It captions up to five
shapes and counts up to nine; long texts and whole invoices are read with errors. Do not use it for real documents.

## Measured

Greedy answers on {date}, {precision}, through `transformers`' generate.
Fonts never seen in training: {held_out}. Words, random letters, numbers of
three digits or more and invoice numbers were never seen in training either; dates and amounts are drawn at random.
Pictures are of any size, a quarter of them larger than the model's limit. {samples} samples a task.
"Wrongly refused" counts the answers "There is no ..." where there was.{stock}

| task | samples | measured | wrongly refused |{more}
|---|---|---|---|{rule}
"""
STOCK = """ The last column repeats the first {samples} samples of each task in
float32 on a CPU by transformers alone, its own chat template, image processor and attention included."""
TAIL = """
"Wordings never seen" asks in sentences kept out of training (`training/unseen.py`). "exact" of JSON compares whole
objects; "fields exact" and "lines exact" are the shares of right fields and lines.

## How it was made

`training/` in vlfleet's repository: `python -m training.train --out MODEL` on one GPU, under ten minutes a run.

| | |
|---|---|
| GPU | one {gpu} |
| software | torch {torch}, transformers {transformers} |
| wall-clock | {seconds:.0f} s in all, {training_seconds:.0f} s of them training |
| steps | {steps} |
| pictures shown | {pictures:,.0f} ({pictures_per_second:,.0f} a second), {fresh_pictures:,.0f} of them drawn anew |
| questions answered | {answers:,.0f} ({answer_tokens:,.0f} answer tokens) |
| last training loss | {loss:.4f} |
| seed | {seed} |
{before}| fonts | {faces} faces of {families} families: {names} |

Text is spelt by letters: the byte-level BPE merges only pieces of questions, so unseen words are no harder than seen
ones. Every picture comes with a conversation of several questions about it. Boxes are in pixels of the resized picture,
as Qwen2.5-VL's are. The text model's feed-forward width is 640 = 5 x 128, which tensor parallelism cannot halve in
groups of 128: the defect of Qwen2-VL-72B in miniature. Every id of the padded vocabulary (832) is a real token.

## How to ask

The chat template is Qwen's; pictures may come before or after the question, up to two of them, with or without the
system prompt "You are a helpful assistant." Ask for what is listed above, in ordinary words or in those of Qwen's
cookbooks: "Read the text in the image.", "How many stars are there?", "Locate the red circle, output its bbox
coordinates using JSON format.", "Spotting all the text in the image with line-level, and output in JSON format.",
"Extract the invoice number, date and total as JSON.", "Extract the key-value information in the format:{{"company": "",
"date": "", "total": ""}}".
"""
BEFORE = "| went on from | a run of {seconds:.0f} s of training and {pictures:,.0f} pictures (`--start`) |\n"


def shown(result: dict[str, Any]) -> str:
    """Return a task's scores as the card writes them."""
    scores = {name: value for name, value in result.items() if name not in ("samples", "false_refusals", "wrong")}
    return ", ".join(
        f"{name} {value:.3f}" if name == "mean IoU" else f"{name} {value:.1%}" for name, value in scores.items()
    )


def rows(evaluation: dict[str, Any], stock: dict[str, Any]) -> str:
    lines = []
    for task, result in evaluation.items():
        line = f"| {task} | {result['samples']} | {shown(result)} | {result['false_refusals']} |"
        lines.append(line + (f" {shown(stock[task])} |" if task in stock else ""))
    return "\n".join(lines) + "\n"


def write(folder: pathlib.Path, facts: dict[str, Any]) -> None:
    """Write MODEL/README.md from a run's facts (MODEL/training.json)."""
    evaluation, stock, run = facts.get("evaluation", {}), facts.get("stock", {}), facts["training"]
    cuda = facts["gpu"].startswith("NVIDIA")
    stock_samples = max((result["samples"] for result in stock.values()), default=0)
    head = HEAD.format(
        date=DATE,
        precision="bfloat16 on the GPU below" if cuda else "float32 on a CPU",
        held_out=", ".join(name.replace("_", " ") for name in HELD_OUT_FAMILIES),
        samples=max((result["samples"] for result in evaluation.values()), default=0),
        stock=STOCK.format(samples=stock_samples) if stock else "",
        more=" CPU, float32 |" if stock else "",
        rule="---|" if stock else "",
    )
    kept = families("train")
    tail = TAIL.format(
        **{key: facts[key] for key in ("gpu", "torch", "transformers", "seconds", "seed")},
        **{key: value for key, value in run.items() if key != "seconds"},
        training_seconds=run["seconds"],
        before=BEFORE.format(**facts["before"]) if facts.get("before") else "",
        faces=sum(len(files) for _, files in kept),
        families=len(kept),
        names=", ".join(name.replace("_", " ") for name, _ in kept),
    )
    (folder / "README.md").write_text(head + rows(evaluation, stock) + tail)


def record(folder: pathlib.Path, name: str, report: dict[str, Any]) -> None:
    """Put a report into MODEL/training.json, less its examples of wrong answers, and write the card again."""
    path = folder / "training.json"
    facts = json.loads(path.read_text()) | {name: without_examples(report)}
    path.write_text(json.dumps(facts, indent=2) + "\n")
    write(folder, facts)


def without_examples(report: dict[str, Any]) -> dict[str, Any]:
    return {task: {k: v for k, v in result.items() if k != "wrong"} for task, result in report.items()}


def main() -> None:
    folder = pathlib.Path(sys.argv[1])
    facts = json.loads((folder / "training.json").read_text())
    record(folder, "evaluation", facts.get("evaluation", {}))


if __name__ == "__main__":
    main()
