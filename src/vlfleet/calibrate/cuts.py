"""The same model with fewer layers: what grows with them and what does not then tell themselves apart. Pure.

A cut model is described by a config.json of its own and not by --hf-overrides: vLLM ignores a flat
{"num_hidden_layers": 2} for Qwen2.5-VL and Qwen3-VL without a word, and whoever reads the folder sees what runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from vlfleet.plan.shape import ModelShape

DEEP_LAYERS, DEEP_VISION = 28, 32
"""Of the larger cut, with which speed is measured: a 7B whole. At 4 and 12 layers an H200 waits for the CPU that
prepares its steps, and a fit to that made its memory 1.29 times as fast as the datasheet. The vision tower's are a
multiple of 8: Qwen2.5-VL looks at the whole picture in every eighth."""
_FEWEST = 2
_SHARE = 0.5
"""Of a GPU's memory that the weights of a cut may take."""


@dataclass(frozen=True)
class Depth:
    """How many layers a cut keeps."""

    layers: int
    """Of the language model."""
    vision: int
    """Of the vision tower."""


def depths(shape: ModelShape, memory_bytes: int) -> tuple[Depth, Depth]:
    """A shallow and a deep cut of `shape` whose weights leave half of `memory_bytes` free (0: not known, no limit).

    They are equal only where the model has two layers or fewer, or where not even that fits.
    """
    deep = Depth(min(DEEP_LAYERS, shape.num_hidden_layers), min(DEEP_VISION, shape.vision.depth))
    while memory_bytes and deep.layers > _FEWEST and 2 * cut_shape(shape, deep).parameters > _SHARE * memory_bytes:
        deep = replace(deep, layers=deep.layers - 1)
    return Depth(max(min(_FEWEST, deep.layers), deep.layers // 3), max(1, deep.vision // 2)), deep


def cut_shape(shape: ModelShape, depth: Depth) -> ModelShape:
    """The sizes of the cut."""
    vision = replace(shape.vision, depth=depth.vision)
    return replace(shape, num_hidden_layers=depth.layers, vision=vision)


def cut_config(config: Mapping[str, Any], depth: Depth) -> dict[str, Any]:
    """config.json of the cut, flat or with `text_config` as `config` is."""
    found = {**config, "vision_config": _vision(config["vision_config"], depth.vision)}
    if "num_hidden_layers" in found:
        found |= _text(found, depth.layers)
    if isinstance(found.get("text_config"), dict):
        found["text_config"] = {**found["text_config"], **_text(found["text_config"], depth.layers)}
    return found


def _text(config: Mapping[str, Any], layers: int) -> dict[str, Any]:
    """What changes in the section of the language model."""
    changed: dict[str, Any] = {"num_hidden_layers": layers}
    if config.get("layer_types"):
        changed["layer_types"] = config["layer_types"][:layers]
    if config.get("max_window_layers"):
        changed["max_window_layers"] = min(layers, config["max_window_layers"])
    return changed


def _vision(config: Mapping[str, Any], depth: int) -> dict[str, Any]:
    """Qwen3-VL's outputs for the first language layers are taken from as many vision layers, closer together."""
    changed: dict[str, Any] = {"depth": depth}
    if full := config.get("fullatt_block_indexes"):
        changed["fullatt_block_indexes"] = [index for index in full if index < depth]
    if taken := config.get("deepstack_visual_indexes"):
        changed["deepstack_visual_indexes"] = [index * depth // config["depth"] for index in taken]
    return {**config, **changed}
