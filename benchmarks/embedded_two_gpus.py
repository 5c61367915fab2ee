"""Two small GPUs for one embedded engine: the planner's device map against accelerate's "auto", on the largest picture.

A Qwen2.5-VL-7B of random weights is written to FOLDER (17 GB). Both GPUs are held to the least memory that the map
asks for; then the largest picture is seen, read with 2,048 tokens of text, and three tokens are decoded.

    python -m benchmarks.embedded_two_gpus /tmp/seven
"""

from __future__ import annotations

import argparse
import gc
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from vlfleet.checkpoint import CheckpointInfo, preflight
from vlfleet.demo import model_path
from vlfleet.engine.embedded import model as embedded
from vlfleet.engine.embedded.args import EngineArgs
from vlfleet.engine.embedded.kv import BatchCache
from vlfleet.engine.embedded.preprocess import Medium
from vlfleet.engine.embedded.spread import spread
from vlfleet.errors import VlfleetError
from vlfleet.plan import published
from vlfleet.plan.device_map import CONTEXT_BYTES, TEXT_TOKENS
from vlfleet.plan.terms import GIB

GRID = (1, 128, 160)
"""Patches of the largest picture: 5,120 visual tokens, 4 megapixels."""
TOKENS = {"image_token_id": 151655, "video_token_id": 151656, "vision_start_token_id": 151652}


def write(folder: Path) -> None:
    config = TOKENS | published.find("qwen2.5-vl-7b")[1]
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        whole = transformers.Qwen2_5_VLForConditionalGeneration(transformers.Qwen2_5_VLConfig.from_dict(dict(config)))
    whole.save_pretrained(folder)
    torch.set_default_dtype(torch.float32)
    for file in model_path().iterdir():
        if file.suffix != ".safetensors" and not (folder / file.name).exists():
            shutil.copy(file, folder)
    (folder / "config.json").write_text(json.dumps(config))


def least_gib(info: CheckpointInfo, args: EngineArgs) -> float:
    """That each of two GPUs must have for the map, in steps of a quarter."""
    size = 4.0
    while True:
        try:
            spread(info, args, [int(size * GIB)] * 2, 2)
        except VlfleetError:
            size += 0.25
        else:
            return size


def attempt(info: CheckpointInfo, args: EngineArgs) -> str:
    """What became of it."""
    try:
        model = embedded.Model(info, args)
        layers = [model.layer_devices.count(f"cuda:{gpu}") for gpu in (0, 1)]
        pixels = np.random.default_rng(0).standard_normal((GRID[1] * GRID[2], 1176)).astype(np.float32)
        seen = model.see(Medium(pixels, GRID))
        cache, length = BatchCache(), TEXT_TOKENS + len(seen)
        text = [5] * TEXT_TOKENS + [0] * len(seen)
        model.prefill(text, [(TEXT_TOKENS, seen)], [list(range(length))] * 3, cache)
        for step in range(3):
            model.decode([7], [length + step], cache)
    except (RuntimeError, VlfleetError) as error:  # out of memory, or what a launch makes of it
        return f"failed: {str(error)[:160]}"
    return f"fine: {layers} layers"


def tried(info: CheckpointInfo, args: EngineArgs) -> dict[str, Any]:
    """With the memory that it took beside CUDA's context."""
    gc.collect()
    torch.cuda.empty_cache()
    for gpu in (0, 1):
        torch.cuda.reset_peak_memory_stats(gpu)
    began = time.monotonic()
    said = attempt(info, args)
    seconds = round(time.monotonic() - began, 1)
    peaks = [round(torch.cuda.max_memory_allocated(gpu) / GIB, 2) for gpu in (0, 1)]
    return {"said": said, "peak_gib": peaks, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    if not folder.exists():
        write(folder)
    info = replace(preflight(folder), max_pixels=GRID[1] * GRID[2] * 196)
    args = EngineArgs(folder)
    size, total = least_gib(info, args), torch.cuda.mem_get_info(0)[1]
    held: Any = lambda gpu=0: (int(size * GIB), total)  # noqa: E731
    torch.cuda.mem_get_info = held
    print(json.dumps({"map": "ours", "gib_each": "all", **tried(info, args)}))
    for gpu in (0, 1):
        torch.cuda.set_per_process_memory_fraction((size * GIB - CONTEXT_BYTES) / total, gpu)
    ours = embedded._device_map
    for name, mapped in (("ours", ours), ("accelerate's auto", lambda *_: "auto")):
        embedded._device_map = mapped
        print(json.dumps({"map": name, "gib_each": size, **tried(info, args)}))


if __name__ == "__main__":
    main()
