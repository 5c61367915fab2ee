"""Train, export, evaluate and describe the demo model: `python -m training.train --out src/vlfleet/demo/model`.

Everything is bounded by --budget-seconds of wall-clock, evaluation included.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import pathlib
import platform
import shutil
import time
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from training import card, check, evaluate, feed, model, tokenizer
from training.configuration import new_network, write_configuration, write_json
from training.optim import Optimizer


def hub_name(name: str) -> str:
    return name.replace("model.visual.", "visual.").replace("model.language_model.", "model.")


def hub_names(parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return bfloat16 tensors by the names of Qwen2.5-VL's checkpoints (visual.*, model.layers.*; the head is tied)."""
    renamed = {}
    for name, tensor in parameters.items():
        if name.startswith("lm_head"):
            continue
        renamed[hub_name(name)] = tensor.detach().to(torch.bfloat16).cpu().contiguous()
    return renamed


def load_weights(network: Any, folder: pathlib.Path) -> None:
    """Put an exported checkpoint's weights into NETWORK."""
    tensors = load_file(folder / "model.safetensors")
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if not name.startswith("lm_head"):
                parameter.copy_(tensors[hub_name(name)])


def schedule(done: float, flat: float) -> float:
    """Return the rates' factor at a fraction of the run: 2 % warm-up, level until FLAT, then linear to zero."""
    return min(1.0, done / 0.02 + 0.01) if done < flat else max(0.0, (1.0 - done) / (1.0 - flat))


def safeguard(optimizer: Optimizer, kept: list[Tensor], losses: Tensor) -> list[Tensor]:
    """Return a copy of the training state; where a loss was not finite, go back to the last copy instead."""
    state = optimizer.state()
    if bool(losses.isfinite().all()):
        return [tensor.clone() for tensor in state]
    print("a loss was not finite: back to 250 steps ago", flush=True)
    with torch.no_grad():
        for tensor, copy in zip(state, kept, strict=bool(kept)):
            tensor.copy_(copy)
    return kept


def train(
    args: argparse.Namespace, network: Any, batches: feed.Feed, device: torch.device, until: float
) -> dict[str, float]:
    """Train NETWORK in place until the clock reaches UNTIL; returns counts and rates."""
    cuda = device.type == "cuda"
    torch.set_float32_matmul_precision("high")
    network.to(device)
    named = {name: p for name, p in network.named_parameters() if not name.startswith("lm_head")}
    packed = model.Packed(model.Shape(), named, torch.bfloat16 if cuda else torch.float32, compiled=cuda)
    optimizer = Optimizer(named, args.muon_rate, args.adam_rate)
    scale = model.normalisation(device)
    generator = torch.Generator(device).manual_seed(args.seed)
    totals = torch.zeros(4, dtype=torch.float64)
    began = time.time()
    losses: list[Tensor] = []
    step, logged = 0, began
    hard = False
    kept: list[Tensor] = []
    while (now := time.time()) < until and step < args.steps:
        done = max((now - began) / (until - began), step / args.steps)
        if not hard and done >= args.easy:
            batches.harden()
            hard = True
        batch = batches.next()
        pixels = (model.augment(batch["patches"], batch["patch_picture"], generator) - scale[0]) / scale[1]
        loss = packed.loss(pixels, batch)
        loss.backward()  # type: ignore[no-untyped-call, unused-ignore]
        optimizer.step(schedule(done, args.flat))
        losses.append(loss.detach())
        step += 1
        if step % 250 == 0:
            kept = safeguard(optimizer, kept, torch.stack(losses[-250:]))
        if step % args.log == 0:
            mean = torch.stack(losses[-args.log :]).nanmean().item()
            rate = args.log / (time.time() - logged)
            print(
                f"step {step} {time.time() - began:.0f} s loss {mean:.4f} {rate:.1f} steps/s drawn {batches.drawn}",
                flush=True,
            )
            logged = time.time()
        if step % 16 == 1:
            totals += batch["counts"].double().cpu()
    safeguard(optimizer, kept, torch.stack(losses[-(step % 250 or 250) :]))
    seconds = time.time() - began
    pictures = (totals / ((step + 15) // 16) * step).tolist()
    fresh = batches.drawn / max(1, batches.shown)
    return {
        "steps": step, "seconds": seconds, "pictures": pictures[1], "fresh_pictures": pictures[1] * fresh,
        "answers": pictures[2], "answer_tokens": pictures[3], "pictures_per_second": pictures[1] / seconds,
        "loss": torch.stack(losses[-50:]).nanmean().item(),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--budget-seconds", type=float, default=560.0)
    parser.add_argument("--evaluation-seconds", type=float, default=80.0, help="kept back for export and evaluation")
    parser.add_argument("--steps", type=int, default=10**9)
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    parser.add_argument("--keep", type=int, default=1500, help="batches kept on the device to be shown again")
    parser.add_argument("--samples", type=int, default=512, help="evaluation samples a task")
    parser.add_argument("--easy", type=float, default=0.12, help="fraction of the run with small pictures only")
    parser.add_argument("--flat", type=float, default=0.15, help="fraction of the run before the rates fall")
    parser.add_argument("--muon-rate", type=float, default=1e-3)
    parser.add_argument("--adam-rate", type=float, default=1e-3)
    parser.add_argument("--start", type=pathlib.Path, help="a checkpoint of this model to go on from")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log", type=int, default=200)
    args = parser.parse_args()
    began = time.time()
    encoder = tokenizer.build()
    batches = feed.Feed(args.workers, args.seed, args.keep)
    pool = evaluate.Pool(args.workers)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batches.start(device)
    write_configuration(args.out, encoder, model.Shape())
    network = new_network(args.out, args.seed)
    if args.start:
        load_weights(network, args.start)
    check.forward_equals_transformers(network, encoder)
    print(
        f"{sum(p.numel() for p in network.parameters())} parameters; ready after {time.time() - began:.0f} s",
        flush=True,
    )
    facts: dict[str, Any] = {
        "training": train(args, network, batches, device, began + args.budget_seconds - args.evaluation_seconds)
    }
    batches.stop()
    save_file(hub_names(dict(network.named_parameters())), args.out / "model.safetensors", metadata={"format": "pt"})
    print(f"exported after {time.time() - began:.0f} s: {json.dumps(facts['training'])}", flush=True)
    del network, batches
    if args.samples:
        report = evaluate.evaluate(args.out, pool, encoder, args.samples, device)
        facts["evaluation"] = card.without_examples(report)
    facts["seconds"] = time.time() - began
    facts["gpu"] = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or "CPU"
    facts["torch"] = torch.__version__
    facts["transformers"] = importlib.metadata.version("transformers")
    if args.start and (args.start / "training.json").exists():
        facts["before"] = json.loads((args.start / "training.json").read_text())["training"]
    facts["seed"] = args.seed
    write_json(args.out / "training.json", facts)
    card.write(args.out, facts)
    print(f"done after {time.time() - began:.0f} s", flush=True)
    shutil.rmtree(args.out / "__pycache__", ignore_errors=True)


if __name__ == "__main__":
    main()
