"""Where each module of the embedded engine's model lies when it is spread over several GPUs. Pure.

accelerate's "auto" fills GPU 0 with weights and leaves it no room for what is computed there: the vision tower's
activations. Here the first GPU keeps that room, the last one room for logits, and the layers are dealt out so that the
least that is left anywhere is as much as it can be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.plan import activation, kv
from vlfleet.plan.shape import ModelShape
from vlfleet.plan.tensors import Rank
from vlfleet.plan.terms import GIB, MIB
from vlfleet.plan.vision import image_tokens

CONTEXT_BYTES = 768 * MIB
"""CUDA's context and kernels on each GPU: 0.51 and 0.22 GiB of an H200 (vLLM 0.26.0, tests/doctor/healthy)."""
TEXT_TOKENS = 2048
"""Of a prompt beside its picture."""


@dataclass(frozen=True)
class DeviceMap:
    """For `from_pretrained(device_map=...)`."""

    modules: dict[str, int]
    """Device of each module, by its name in transformers 5."""
    used_bytes: tuple[int, ...]
    """Of each GPU, with everything that is computed there at its peak."""


def device_map(
    shape: ModelShape,
    free_bytes: Sequence[int],
    max_pixels: int,
    *,
    element_bytes: int = 2,
    kv_tokens: int = 16384,
    rows: int = 16,
) -> DeviceMap:
    """Over GPUs with so much free memory, in their order.

    `max_pixels` of the largest picture; `kv_tokens` of all sequences together; `rows` are decoded at once.

    Raises:
        VlfleetError: exit code 3, it does not fit.
    """
    layer = shape.layer_parameters * element_bytes + _kv_bytes(shape, kv_tokens, element_bytes)
    fixed = _fixed(shape, len(free_bytes), max_pixels, element_bytes, rows)
    room = [free - held for free, held in zip(free_bytes, fixed, strict=True)]
    counts = _deal(room, layer, shape.num_hidden_layers)
    used = tuple(held + count * layer for held, count in zip(fixed, counts, strict=True))
    last = len(free_bytes) - 1
    modules = {"model.visual": 0, "model.language_model.embed_tokens": 0, "model.language_model.rotary_emb": 0}
    devices = [device for device, count in enumerate(counts) for _ in range(count)]
    modules |= {f"model.language_model.layers.{number}": device for number, device in enumerate(devices)}
    modules["model.language_model.norm"] = last
    modules["lm_head"] = 0 if shape.tie_word_embeddings else last
    return DeviceMap(modules, used)


def vision_bytes(shape: ModelShape, tokens: int, element_bytes: int = 2) -> int:
    """Peak of transformers' vision tower over one picture, beside its weights.

    Numbers of one patch, with width e, MLP width f and head d: max(17e, 5e + 3f) + 4d and its pixels; Qwen3-VL
    max(19e, 7e + 3f) + 4d + deepstack_layers * out_hidden_size / 4. Counted with transformers 5.23 and sdpa: 17.26,
    17.26 and 20.78 times e for Qwen2-VL, Qwen2.5-VL and Qwen3-VL-2B; rotations are computed in 32 bits.
    """
    vision = shape.vision
    own = 2 if vision.num_position_embeddings else 0
    width, inner = vision.hidden_size, vision.intermediate_size
    numbers = max((17 + own) * width, (5 + own) * width + 3 * inner) + 4 * vision.head_dim + vision.patch_elements
    numbers += vision.deepstack_layers * vision.out_hidden_size // vision.patches_per_token + 32
    return tokens * vision.patches_per_token * numbers * element_bytes


def _kv_bytes(shape: ModelShape, tokens: int, element_bytes: int) -> int:
    return tokens * kv.token_bytes(shape, layers=1) * element_bytes // 2


def _fixed(shape: ModelShape, gpus: int, max_pixels: int, element_bytes: int, rows: int) -> list[int]:
    """What each GPU holds beside layers, at its widest moment: the tower and the language model take turns."""
    tokens = image_tokens(shape, max_pixels)
    whole = Rank(1, range(shape.num_hidden_layers))
    prefill = (tokens + TEXT_TOKENS) * activation.token_bytes(shape, whole) * element_bytes // 2
    table = shape.vocab_size * shape.hidden_size * element_bytes
    logits = rows * shape.vocab_size * (element_bytes + 4)
    seen = tokens * shape.vision.outputs_per_token * shape.hidden_size * element_bytes
    held = [CONTEXT_BYTES + prefill] * gpus
    held[0] = CONTEXT_BYTES + max(prefill, vision_bytes(shape, tokens, element_bytes)) + seen
    held[0] += shape.vision_parameters * element_bytes + table
    held[-1] += shape.hidden_size * element_bytes + logits
    if not shape.tie_word_embeddings:
        held[-1] += table
    elif gpus > 1:
        held[0] += logits
    return held


def _deal(room: Sequence[int], layer_bytes: int, layers: int) -> list[int]:
    """Layers of each GPU, such that the least that is left is as much as it can be.

    Every GPU that keeps `least` can take (room - least) // layer_bytes layers; the largest `least` with which all find
    a place is looked for. Whoever could take more than needed gives back, the fullest first.
    """
    low, high = 0, max(room)
    if min(room) < 0 or sum(each // layer_bytes for each in room) < layers:
        lack = max(layers * layer_bytes - sum(max(0, each) for each in room), -min(room), 1)
        raise VlfleetError(
            f"the model does not fit on {len(room)} GPU{'s' * (len(room) > 1)}: {lack / GIB:.1f} GiB too little",
            "lower max_pixels, use a smaller model or one more GPU",
            ExitCode.DOES_NOT_FIT,
        )
    while low < high:
        least = (low + high + 1) // 2
        if sum(max(0, each - least) // layer_bytes for each in room) >= layers:
            low = least
        else:
            high = least - 1
    counts = [max(0, each - low) // layer_bytes for each in room]
    while sum(counts) > layers:
        taking = [gpu for gpu, count in enumerate(counts) if count]
        fullest = min(taking, key=lambda gpu: room[gpu] - counts[gpu] * layer_bytes)
        counts[fullest] -= 1
    return counts
