"""Measure a checkpoint by transformers alone: `python -m training.stock MODEL --samples 50` (CPU, float32, slow).

Its own chat template, image processor and attention: a check of the fast path in `evaluate.py`. `--record` puts the
figures into MODEL/training.json and the card.
"""

from __future__ import annotations

import argparse
import json
import pathlib
from typing import Any

import torch

from training import card, geometry
from training.evaluate import load
from training.exam import TASKS, Sample, sample
from training.scoring import scores_of


def stock_answer(network: Any, text_side: Any, image_side: Any, made: Sample, most: int) -> str:
    """Return the answer by transformers alone: chat template, image processor, stock attention."""
    messages = []
    for message in made.talk:
        parts: list[dict[str, str]] = [{"type": "image"} for _ in message.images]
        parts.insert(0 if message.text_first else len(parts), {"type": "text", "text": message.text})
        messages.append({"role": message.role, "content": parts})
    text = text_side.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    seen = image_side(images=made.original, return_tensors="pt")
    for grid in seen["image_grid_thw"].tolist():
        text = text.replace("<|image_pad|>", "<hole>" * (grid[1] * grid[2] // geometry.MERGE**2), 1)
    ids = text_side(text.replace("<hole>", "<|image_pad|>"), return_tensors="pt", add_special_tokens=False).input_ids
    kinds = (ids == text_side.convert_tokens_to_ids("<|image_pad|>")).int()
    out = network.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        mm_token_type_ids=kinds,
        max_new_tokens=most,
        do_sample=False,
        **seen,
    )
    return str(text_side.decode(out[0, ids.shape[1] :], skip_special_tokens=True)).strip()


def stock(folder: pathlib.Path, count: int, only: str = "") -> dict[str, Any]:
    """Return every task's scores on the CPU in float32, by transformers alone."""
    from transformers import AutoImageProcessor, AutoTokenizer

    network = load(folder, torch.device("cpu"), torch.float32)
    text_side, image_side = (
        AutoTokenizer.from_pretrained(folder),
        AutoImageProcessor.from_pretrained(folder, backend="pil"),
    )
    report: dict[str, Any] = {}
    for task in TASKS:
        if only not in task.name:
            continue
        made = [sample(number, task) for number in range(count)]
        answers = [stock_answer(network, text_side, image_side, one, task.tokens) for one in made]
        report[task.name] = scores_of(task, answers, [one.answer for one in made])
        print(f"{task.name}: {json.dumps(report[task.name], ensure_ascii=False)}", flush=True)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--samples", type=int, default=50)
    parser.add_argument("--only", default="", help="part of a task's name")
    parser.add_argument("--record", action="store_true")
    args = parser.parse_args()
    report = stock(args.model, args.samples, args.only)
    if args.record:
        card.record(args.model, "stock", report)


if __name__ == "__main__":
    main()
