"""Measure a checkpoint by greedy generation through transformers: `python -m training.evaluate MODEL`.

Fonts, strings and wordings are ones never seen in training, and pictures are of any size (`exam.py`).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import pathlib
import time
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from torch import Tensor

from training import check, model, packing, tokenizer
from training.exam import TASKS, sample
from training.scoring import scores_of

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
        return self.proj(mixed.reshape(length, -1))  # type: ignore[no-any-return, unused-ignore]

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
            f"{task.name}: {json.dumps(report[task.name], ensure_ascii=False)} "
            f"drawn {drawn:.1f} s, all {time.time() - began:.1f} s",
            flush=True,
        )
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--samples", type=int, default=512)
    args = parser.parse_args()
    pool = Pool(max(1, (os.cpu_count() or 2) - 1))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    evaluate(args.model, pool, tokenizer.build(), args.samples, device)
    pool.close()


if __name__ == "__main__":
    main()
