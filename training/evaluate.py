"""Measure a checkpoint by greedy generation through transformers, on fonts, strings and sizes never seen in training.

`python -m training.evaluate MODEL` does so anywhere; `--stock` uses nothing but transformers' own preprocessing,
tokenizer, chat template and attention (slow; a check of the fast path).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import pathlib
import random
import time
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from PIL import Image
from torch import Tensor

from training import chat, check, geometry, model, packing, questions, scenes, tokenizer
from training.unseen import UNSEEN

SEED = 20261121


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """A conversation up to the question, the picture sizes as drawn, and the right answer."""

    task: str
    talk: chat.Conversation
    answer: str
    original: list[Image.Image]


@dataclasses.dataclass(frozen=True, slots=True)
class Task:
    """A row of the report: which scenes, which of `questions`' tasks, how long answers may be, how they are judged."""

    name: str
    kinds: tuple[str, ...]
    asked: tuple[str, ...]
    tokens: int = 24
    judge: str = "exact"
    history: int = 0
    system: bool = True


TASKS = (
    Task("colour of a shape", ("shape", "shapes"), ("colour",)),
    Task("shape", ("shape", "shapes"), ("shape",)),
    Task("number, 1-5 digits", ("number",), ("number", "read")),
    Task("word", ("word",), ("word", "read")),
    Task("count all, 1-9", ("shape", "shapes", "shapes", "shapes", "shapes", "shapes"), ("count",)),
    Task("count a kind or colour", ("shapes",), ("count_kind",)),
    Task("box of a shape", ("shape", "shapes", "shapes", "mixed"), ("box",), 80, "box"),
    Task("word or number with its box", ("word", "number", "mixed"), ("word_box",), 80, "box_text"),
    Task("invoice number", ("invoice",), ("field_invoice_number",), 32),
    Task("invoice date", ("invoice",), ("field_date",), 32),
    Task("invoice total", ("invoice",), ("field_total",), 32),
    Task("invoice vendor", ("invoice",), ("field_vendor",), 48),
    Task("invoice as JSON", ("invoice",), ("invoice_json",), 112, "fields"),
    Task("key-value by skeleton", ("invoice",), ("invoice_skeleton",), 144, "fields"),
    Task("whole text, 1-7 lines", ("lines",), ("ocr",), 192, "lines"),
    Task("text spotting, 1-7 lines", ("lines",), ("spot",), 512, "spots"),
    Task("one line of several", ("lines",), ("line",), 48),
    Task("caption", ("shape", "shapes"), ("describe",), 64),
    Task("relation or size", ("shapes",), ("relation",)),
    Task("two pictures", (), ("two_images",)),
    Task("nothing of the kind there: says so", ("word", "number", "lines", "shape", "shapes", "mixed", "invoice", "blank"), ("refuse",), 32),
    Task("later turn of a conversation", ("word", "lines", "shape", "shapes", "mixed", "invoice"), ("number", "word", "read", "colour", "shape", "count", "field_date", "field_total", "field_invoice_number"), 32, "exact", 2),
    Task("no system prompt", ("word", "number", "shape", "shapes", "invoice"), ("word", "number", "colour", "shape", "count", "field_total"), 32, system=False),
    Task("wordings never seen", ("word", "number", "shape", "shapes", "invoice"), ("unseen",), 112),
)  # fmt: skip


def find_turn(task: Task, rng: random.Random) -> tuple[scenes.Scene, scenes.Scene, questions.Turn]:
    """Return a scene as drawn, the same resized, and a turn of the task about it."""
    while True:
        drawn = chat.scene(rng, "eval", rng.choice(task.kinds))
        shown = scenes.fit(drawn)
        makers = questions.Questions(shown, rng).tasks()
        for _ in range(25):
            (maker,) = rng.choices([maker for _, maker in makers], [weight for weight, _ in makers])
            turn = maker()
            if turn.task in task.asked:
                return drawn, shown, turn


def unseen_turn(rng: random.Random, task: Task) -> tuple[scenes.Scene, scenes.Scene, questions.Turn]:
    while True:
        name = rng.choice(list(UNSEEN))
        kinds = {"number": "number", "word": "word", "colour": "shape", "shape": "shape", "count": "shapes"}
        drawn, shown, turn = find_turn(Task("", (kinds.get(name, "invoice"),), (name,)), rng)
        return drawn, shown, dataclasses.replace(turn, question=rng.choice(UNSEEN[name]))


def sample(number: int, task: Task) -> Sample:
    """Return sample NUMBER of a task, the same every time."""
    rng = random.Random(f"{SEED}/{task.name}/{number}")
    system = [chat.Message("system", "You are a helpful assistant.")] if task.system else []
    if not task.kinds:
        while True:
            talk = chat.about_two(rng, "eval", 3)
            images = [image for message in talk for image in message.images]
            if len(images) == 2:
                at = rng.choice([i for i, message in enumerate(talk) if message.task == "two_images" and i > 0])
                return Sample(task.name, [*system, *talk[:at]], talk[at].text, images)
    drawn, shown, turn = unseen_turn(rng, task) if task.asked == ("unseen",) else find_turn(task, rng)
    talk = []
    if task.history:
        talk = chat.about(rng, shown, task.history)
        said = {message.text for message in talk if message.role == "assistant"}
        if turn.answer in said:
            # The answer was given away: ask something else about another picture.
            return sample(number + 100000, task)
    question = chat.Message("user", turn.question, [] if talk else [shown.image])
    return Sample(task.name, [*system, *talk, question], turn.answer, [drawn.image])


_encoder: tokenizer.Encoder | None = None


def _prepare(request: tuple[int, int, int]) -> list[tuple[packing.Encoded, str]]:
    global _encoder
    _encoder = _encoder or tokenizer.build()
    index, first, last = request
    done = []
    for number in range(first, last):
        made = sample(number, TASKS[index])
        done.append((packing.encode(_encoder, made.talk, generate=True), made.answer))
    return done


class Pool:
    """Worker processes that draw evaluation samples; made before CUDA is first used, since they are forked."""

    def __init__(self, workers: int) -> None:
        self.pool = multiprocessing.get_context("fork").Pool(workers)

    def samples(self, index: int, count: int) -> Iterator[tuple[packing.Encoded, str]]:
        requests = [(index, first, min(first + 16, count)) for first in range(0, count, 16)]
        for part in self.pool.imap(_prepare, requests):
            yield from part

    def close(self) -> None:
        self.pool.terminate()


def fast_windows() -> None:
    """Let transformers' vision attention use one variable-length call instead of a Python loop over windows (CUDA)."""
    from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as hf

    def forward(
        self: Any,
        hidden_states: Tensor,
        cu_seqlens: Tensor,
        rotary_pos_emb: Any = None,
        position_embeddings: Any = None,
        **_: Any,
    ) -> Tensor:
        length = hidden_states.shape[0]
        q, k, v = self.qkv(hidden_states).reshape(length, 3, self.num_heads, -1).unbind(1)
        q, k = hf.apply_rotary_pos_emb_vision(q, k, *position_embeddings)
        ends = cu_seqlens.int()
        longest = int((ends[1:] - ends[:-1]).max())
        mixed = model.attention(q, k, v.contiguous(), ends, longest, causal=False)
        return self.proj(mixed.reshape(length, -1))  # type: ignore[no-any-return]

    hf.Qwen2_5_VLVisionAttention.forward = forward


@torch.inference_mode()
def generate(network: Any, encoder: tokenizer.Encoder, items: list[packing.Encoded], most: int) -> list[str]:
    """Return greedy answers to a left-padded batch."""
    device, kind = network.device, network.dtype
    pad, longest = encoder.ids["<|endoftext|>"], max(len(item.ids) for item in items)
    ids = torch.tensor([[pad] * (longest - len(item.ids)) + item.ids for item in items])
    mask = torch.tensor([[0] * (longest - len(item.ids)) + [1] * len(item.ids) for item in items])
    pixels = torch.cat([check.pixel_values(item).to(kind) for item in items if item.grids])
    out = network.generate(
        input_ids=ids.to(device),
        attention_mask=mask.to(device),
        pixel_values=pixels.to(device),
        image_grid_thw=torch.cat([check.grids(item) for item in items if item.grids]).to(device),
        mm_token_type_ids=(ids == encoder.ids["<|image_pad|>"]).int().to(device),
        max_new_tokens=most,
        do_sample=False,
    )
    return [
        text.strip() for text in encoder.tokenizer.decode_batch(out[:, longest:].tolist(), skip_special_tokens=True)
    ]


def overlap(a: list[float], b: list[float]) -> float:
    """Return the intersection over union of two boxes."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def _boxes(answer: str) -> list[dict[str, Any]]:
    """Return the entries of a JSON answer that have a box; raises ValueError for anything else."""
    entries = json.loads(answer)
    if not isinstance(entries, list) or any(len(entry["bbox_2d"]) != 4 for entry in entries):
        raise ValueError("not a list of boxes")
    return entries


def judge(how: str, answer: str, right: str) -> dict[str, float]:
    """Return named scores in [0, 1] of one answer."""
    if how == "exact":
        return {"exact": float(answer == right)}
    if how == "lines":
        return {"exact": float(answer == right), "lines exact": _share(answer.split("\n"), right.split("\n"))}
    try:
        given: Any = json.loads(answer)
        wanted: Any = json.loads(right)
        scores = {"valid JSON": 1.0}
        if how == "fields":
            if not isinstance(given, dict):
                raise ValueError("not an object")
            return scores | {
                "exact": float(given == wanted),
                "fields exact": sum(given.get(k) == v for k, v in wanted.items()) / len(wanted),
            }
        entries, truth = _boxes(answer), _boxes(right)
        pairs = list(zip(entries, truth, strict=False))
        ious = [overlap(a["bbox_2d"], b["bbox_2d"]) for a, b in pairs]
        scores["mean IoU"] = sum(ious) / max(len(truth), len(entries), 1)
        if how != "box":
            scores["text exact"] = sum(a.get("text_content") == b["text_content"] for a, b in pairs) / max(
                len(truth), 1
            )
        return scores
    except (ValueError, KeyError, TypeError):
        return {"valid JSON": 0.0, "exact": 0.0, "fields exact": 0.0, "mean IoU": 0.0, "text exact": 0.0}


def _share(given: list[str], wanted: list[str]) -> float:
    return sum(a == b for a, b in zip(given, wanted, strict=False)) / len(wanted)


def scores_of(task: Task, answers: list[str], rights: list[str]) -> dict[str, Any]:
    """Return the mean scores of a task, its sample count, and how often it wrongly said that nothing is there."""
    how = {
        "box": ("valid JSON", "mean IoU"),
        "box_text": ("valid JSON", "mean IoU", "text exact"),
        "spots": ("valid JSON", "mean IoU", "text exact"),
        "fields": ("valid JSON", "exact", "fields exact"),
        "lines": ("exact", "lines exact"),
    }.get(task.judge, ("exact",))
    judged = [judge(task.judge, a, r) for a, r in zip(answers, rights, strict=True)]
    means = {name: sum(j.get(name, 0.0) for j in judged) / len(judged) for name in how}
    refused = sum(
        a.startswith(("There is no", "There are no")) and not r.startswith(("There is no", "There are no"))
        for a, r in zip(answers, rights, strict=True)
    )
    wrong = [
        (r, a) for a, r, j in zip(answers, rights, judged, strict=True) if min(j.get(name, 0.0) for name in how) < 0.7
    ][:4]
    return {
        "samples": len(answers),
        **{name: round(value, 4) for name, value in means.items()},
        "false_refusals": refused,
        "wrong": wrong,
    }


def load(folder: pathlib.Path, device: torch.device, kind: torch.dtype) -> Any:
    from transformers import Qwen2_5_VLForConditionalGeneration

    return Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=kind).to(device).eval()


def evaluate(
    folder: pathlib.Path,
    pool: Pool,
    encoder: tokenizer.Encoder,
    count: int,
    device: torch.device,
    until: float = float("inf"),
    batch: int = 512,
) -> dict[str, Any]:
    """Return every task's scores, bfloat16 on a GPU and float32 on a CPU; stops starting tasks after UNTIL."""
    cuda = device.type == "cuda"
    if cuda:
        fast_windows()
    network = load(folder, device, torch.bfloat16 if cuda else torch.float32)
    report: dict[str, Any] = {}
    for index, task in enumerate(TASKS):
        began = time.time()
        if began > until:
            print(f"out of time: {task.name} not measured", flush=True)
            continue
        pairs = list(pool.samples(index, count))
        drawn = time.time() - began
        answers: list[str] = []
        for first in range(0, count, batch):
            answers += generate(network, encoder, [item for item, _ in pairs[first : first + batch]], task.tokens)
        report[task.name] = scores_of(task, answers, [right for _, right in pairs])
        print(
            f"{task.name}: {json.dumps(report[task.name], ensure_ascii=False)} drawn {drawn:.1f} s, all {time.time() - began:.1f} s",
            flush=True,
        )
    return report


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
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--stock", action="store_true")
    parser.add_argument("--only", default="", help="part of a task's name")
    args = parser.parse_args()
    if args.stock:
        stock(args.model, args.samples, args.only)
        return
    pool = Pool(max(1, (os.cpu_count() or 2) - 1))
    evaluate(
        args.model, pool, tokenizer.build(), args.samples, torch.device("cuda" if torch.cuda.is_available() else "cpu")
    )
    pool.close()


if __name__ == "__main__":
    main()
