"""The checkpoint's files but the weights, and the network that they describe."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import torch

from training import model, tokenizer
from training.geometry import MAX_PIXELS, MIN_PIXELS

PREPROCESSOR: dict[str, Any] = {
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": list(model.MEAN),
    "image_processor_type": "Qwen2VLImageProcessor",
    "image_std": list(model.STD),
    "max_pixels": MAX_PIXELS,
    "merge_size": 2,
    "min_pixels": MIN_PIXELS,
    "patch_size": 14,
    "processor_class": "Qwen2_5_VLProcessor",
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": {"longest_edge": MAX_PIXELS, "shortest_edge": MIN_PIXELS},
    "temporal_patch_size": 2,
}


def write_json(path: pathlib.Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


def write_configuration(folder: pathlib.Path, encoder: tokenizer.Encoder, shape: model.Shape) -> None:
    """Write every file of the checkpoint but the weights and the card."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(encoder, folder)
    write_json(folder / "config.json", model.config(shape, encoder.ids))
    write_json(folder / "preprocessor_config.json", PREPROCESSOR)
    end, pad = encoder.ids["<|im_end|>"], encoder.ids["<|endoftext|>"]
    # Greedy by the temperature, as Qwen2.5-VL's own file says it: vLLM reads that, and does not read do_sample.
    generation = {"bos_token_id": pad, "do_sample": True, "eos_token_id": [end, pad], "pad_token_id": pad}
    generation |= {"temperature": 1e-6}
    write_json(folder / "generation_config.json", generation)


def new_network(folder: pathlib.Path, seed: int) -> Any:
    """Return transformers' model with random weights (normal, 0.02), in float32."""
    from transformers import AutoConfig, Qwen2_5_VLForConditionalGeneration

    torch.manual_seed(seed)
    network = Qwen2_5_VLForConditionalGeneration._from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32)
    return network.float()
