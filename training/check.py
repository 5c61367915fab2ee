"""Proof that what training computes is what transformers computes: pixels, ids, positions, visual tokens, logits.

`python -m training.check` runs everything on the CPU; `training.train` runs `forward_equals_transformers` at its start.
"""

from __future__ import annotations

import pathlib
import random
import tempfile
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training import chat, configuration, geometry, model, packing, tokenizer


def pack(items: list[packing.Encoded]) -> dict[str, Tensor]:
    """Return a batch (as `packing.fill` packs it) that holds the given conversations, as tensors."""
    left = iter(items)
    stop = packing.Encoded([0] * packing.TOKENS, [], np.zeros((3, 0), np.int64), [], [], [], 0)
    buffer = bytearray(packing.BATCH_BYTES)
    arrays = packing.views(memoryview(buffer))
    limit, packing.LONGEST_SEQUENCE = packing.LONGEST_SEQUENCE, packing.TOKENS
    try:
        packing.fill(arrays, lambda: next(left, stop))
    finally:
        packing.LONGEST_SEQUENCE = limit
    batch = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return batch | {name: batch[name].long() for name in ("visual_at", "targets")}


def cut(batch: dict[str, Tensor], tokens: int, patches: int) -> dict[str, Tensor]:
    """Return a batch without its filler."""
    short = {name: batch[name][:patches] for name in ("patches", "patch_row", "patch_column")}
    short["visual_at"] = batch["visual_at"][: patches // 4]
    short |= {name: batch[name][:tokens] for name in ("ids", "targets", "weights")}
    short["positions"] = batch["positions"][:, :tokens]
    for name, end in (("window_ends", patches), ("picture_ends", patches), ("sequence_ends", tokens)):
        short[name] = batch[name].clamp(max=end)
    return short


def samples(encoder: tokenizer.Encoder, count: int, seed: int = 5) -> list[packing.Encoded]:
    rng = random.Random(seed)
    made: list[packing.Encoded] = []
    while len(made) < count:
        item = packing.encode(encoder, chat.conversation(rng))
        # All sorts of sizes, but small enough for a quick check; every other one without sides that windows divide.
        if item.grids and sum(grid.tokens for grid in item.grids) < 130:
            made.append(item)
    return made


def pixel_values(item: packing.Encoded) -> Tensor:
    """Return transformers' `pixel_values` (patches, 1176) of a conversation."""
    parts = []
    for grid, patches in zip(item.grids, item.patches, strict=True):
        whole = np.empty((grid.tokens, 4 * geometry.PATCH_BYTES), np.uint8)
        whole[grid.order] = patches.reshape(grid.tokens, -1)
        flat = model.normalise(
            torch.from_numpy(whole.reshape(-1, geometry.PATCH_BYTES)), model.normalisation(torch.device("cpu"))
        )
        parts.append(flat.view(-1, 3, 1, 196).expand(-1, -1, 2, -1).reshape(-1, 1176))
    return torch.cat(parts)


def grids(item: packing.Encoded) -> Tensor:
    return torch.tensor([[1, grid.rows * 2, grid.columns * 2] for grid in item.grids])


@torch.no_grad()
def forward_equals_transformers(network: Any, encoder: tokenizer.Encoder, count: int = 4) -> float:
    """Return the largest difference in hidden states between the packed forward pass and transformers (CPU, float32).

    Raises AssertionError above 1e-4, or where position ids differ.
    """
    items = samples(encoder, count)
    tokens, patches = sum(len(item.ids) for item in items), sum(grid.patches for item in items for grid in item.grids)
    batch = cut(pack(items), tokens, patches)
    packed = model.Packed(model.Shape(), dict(network.named_parameters()), torch.float32, compiled=False)
    ours = packed.hidden(model.normalise(batch["patches"], model.normalisation(torch.device("cpu"))), batch)
    ours = model.rms_norm(ours, packed.norm, packed.shape.norm_eps, torch.float32)
    at, worst = 0, 0.0
    for item in items:
        ids = torch.tensor([item.ids])
        kinds = (ids == encoder.ids["<|image_pad|>"]).int()
        positions, _ = network.model.get_rope_index(ids, mm_token_type_ids=kinds, image_grid_thw=grids(item))
        assert torch.equal(positions[-3:, 0].long(), torch.from_numpy(item.positions)), "position ids differ"
        theirs = network.model(
            input_ids=ids, pixel_values=pixel_values(item), image_grid_thw=grids(item), mm_token_type_ids=kinds
        ).last_hidden_state[0]
        worst = max(worst, float((theirs - ours[at : at + len(item.ids)]).abs().max()))
        at += len(item.ids)
    assert worst < 1e-4, f"hidden states differ by {worst}"
    print(f"packed forward pass = transformers to {worst:.1e} on {count} conversations", flush=True)
    return worst


def pixels_equal_processor(folder: pathlib.Path, count: int = 20) -> float:
    """Return the largest difference of pixel values from transformers' image processor, over pictures of any size."""
    from transformers import AutoImageProcessor

    from training import drawing, scenes

    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    rng, worst = random.Random(3), 0.0
    for _ in range(count):
        scene = scenes.shapes_scene(rng)
        fitted = drawing.fit(scene).image
        item = packing.Encoded(
            [],
            [],
            np.zeros((3, 0), np.int64),
            [geometry.grid_of(fitted)],
            [geometry.window_ordered_patches(fitted)],
            [],
            0,
        )
        theirs = processor(images=[scene.image], return_tensors="pt")
        assert theirs["image_grid_thw"].tolist() == grids(item).tolist(), "grids differ"
        worst = max(worst, float((theirs["pixel_values"] - pixel_values(item)).abs().max()))
    assert worst < 1e-5, f"pixels differ by {worst}"
    print(f"pixels = image processor to {worst:.1e} on {count} pictures", flush=True)
    return worst


def ids_equal_template(folder: pathlib.Path, encoder: tokenizer.Encoder, count: int = 40) -> None:
    """Check that transformers' tokenizer and the chat template give the ids that training uses."""
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(folder)
    rng = random.Random(4)
    for _ in range(count):
        talk = chat.conversation(rng)
        if talk[0].role != "system":
            continue
        messages = []
        for message in talk:
            parts: list[dict[str, str]] = [{"type": "image"} for _ in message.images]
            parts.insert(0 if message.text_first else len(parts), {"type": "text", "text": message.text})
            messages.append({"role": message.role, "content": parts if message.images else message.text})
        text = theirs.apply_chat_template(messages, tokenize=False)
        item = packing.encode(encoder, talk)
        pad = "<|image_pad|>"
        for grid in item.grids:
            text = text.replace(pad, "<hole>" * grid.tokens, 1)
        ids = theirs(text.replace("<hole>", pad), add_special_tokens=False).input_ids
        assert ids == item.ids, (
            theirs.convert_ids_to_tokens(ids),
            encoder.tokenizer.decode(item.ids, skip_special_tokens=False),
        )
    print(f"ids = chat template on {count} conversations; {type(theirs).__name__}", flush=True)


def main() -> None:
    encoder = tokenizer.build()
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        configuration.write_configuration(folder, encoder, model.Shape())
        ids_equal_template(folder, encoder)
        pixels_equal_processor(folder)
        network = configuration.new_network(folder, 1).eval()
        with torch.no_grad():
            # Larger weights than at the start of training, so that no part of the model is negligible.
            for name, parameter in network.named_parameters():
                if parameter.ndim > 1:
                    parameter.mul_(2.0)
                elif "bias" in name:
                    parameter.normal_(0, 0.1)
        forward_equals_transformers(network, encoder, 8)


if __name__ == "__main__":
    main()
