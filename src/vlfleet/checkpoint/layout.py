"""What tensors are called: the names on the hub, the other names under which the same tensors go round, and their part.

Known layouts, seen in files and in transformers' and vLLM's own renaming tables:
  `visual.*`, `model.layers.*`                    the hub's Qwen2-VL and Qwen2.5-VL; transformers 4.45 to 4.51 and 5
  `model.visual.*`, `model.language_model.*`      the hub's Qwen3-VL; trainers on transformers 4.52 to 4.57
  `visual.*`, `language_model.model.*`            saved from inside vLLM or SGLang
  `base_model.model.*`, `module.*` before these   saved through PEFT or a data-parallel wrapper
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

from vlfleet.families import Family


class Part(enum.StrEnum):
    """What a tensor belongs to."""

    VISION = "vision tower"
    MERGER = "merger"
    EMBEDDINGS = "embeddings"
    LANGUAGE = "language model"
    HEAD = "lm_head"


WRAPPERS = ("base_model.model.", "module.")
_HEAD = ("model.language_model.lm_head.", "language_model.lm_head.", "model.lm_head.", "lm_head.")
_VISION = ("model.visual.", "visual.")
_TEXT = ("model.language_model.model.", "model.language_model.", "language_model.model.", "language_model.", "model.")
_ADAPTER = (".lora_A.", ".lora_B.", ".lora_embedding_", ".lora_magnitude_vector", ".base_layer.", ".modules_to_save.")


def text_prefix(family: Family) -> str:
    """Before `layers.0...` in the hub's files of this family."""
    return "model.language_model." if family.model_type.startswith("qwen3") else "model."


def vision_prefix(family: Family) -> str:
    """Before `blocks.0...` in the hub's files of this family."""
    return "model.visual." if family.model_type.startswith("qwen3") else "visual."


def hub_name(name: str, family: Family) -> str:
    """The name that this tensor has on the hub; `name` itself when it is in no known layout."""
    bare = name
    for wrapper in WRAPPERS:
        bare = bare.removeprefix(wrapper)
    for prefixes, hub in ((_HEAD, "lm_head."), (_VISION, vision_prefix(family)), (_TEXT, text_prefix(family))):
        for prefix in prefixes:
            if bare.startswith(prefix):
                return hub + bare.removeprefix(prefix)
    return name


def part_of(hub: str) -> Part:
    """The part to which the tensor with this name on the hub belongs."""
    if hub.startswith("lm_head."):
        return Part.HEAD
    if hub.startswith(_VISION):
        return Part.MERGER if ".merger." in hub or ".deepstack_merger_list." in hub else Part.VISION
    return Part.EMBEDDINGS if ".embed_tokens." in hub else Part.LANGUAGE


def adapter_tensors(names: Iterable[str]) -> list[str]:
    """Those that belong to an adapter which was not merged into the weights."""
    return [name for name in names if any(mark in name for mark in _ADAPTER)]
