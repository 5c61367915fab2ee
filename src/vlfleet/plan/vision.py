"""Pictures in vLLM: tokens of the largest medium, the encoder's budget, and what the vision tower needs. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vlfleet.families.resize import MAX_ASPECT_RATIO
from vlfleet.plan.flags import Flags, Sizes
from vlfleet.plan.shape import ModelShape
from vlfleet.plan.tensors import HALF
from vlfleet.plan.terms import Term

QWEN2_VIDEO_FRAMES = 14
"""_MAX_FRAMES_PER_VIDEO in models/qwen2_vl.py: frames of the video that the memory is measured with."""
QWEN3_VIDEO_PIXELS = 25_165_824
"""`longest_edge` of Qwen3-VL's video_preprocessor_config.json on the hub: pixels of two frames."""


@dataclass(frozen=True)
class Budget:
    """What `MultiModalBudget` (multimodal/encoder_budget.py) comes to."""

    tokens: int
    """Visual tokens that are encoded in one step at most."""
    cache_tokens: int
    """Visual tokens whose outputs are kept: the encoder cache."""
    modality: str
    """Of the medium with which memory is measured; empty when pictures and videos are both switched off."""
    tokens_per_item: int
    items: int
    """How many of these are encoded at once while memory is measured."""

    @property
    def profiled_tokens(self) -> int:
        return self.tokens_per_item * self.items


def image_tokens(shape: ModelShape, max_pixels: int) -> int:
    """Of the largest picture: the most tokens within `max_pixels` whose rectangle is not thinner than 1 to 200."""
    for tokens in range(max_pixels // shape.vision.token_side_pixels**2, 0, -1):
        rows = next(side for side in range(math.isqrt(tokens), 0, -1) if tokens % side == 0)
        if tokens // rows <= MAX_ASPECT_RATIO * rows:
            return tokens
    return 0


def video_tokens(shape: ModelShape, max_pixels: int, max_model_len: int, *, limited: bool = False) -> int:
    """Of the video with which memory is measured.

    Qwen2-VL and Qwen2.5-VL: as many frames as max_model_len holds, at most 14, each as large as a picture, two to a
    token. Qwen3-VL: two frames of the video processor's size; `limited` says that max_pixels was given, which then
    holds for both frames together.
    """
    if shape.model_type.startswith("qwen3"):
        pixels = min(QWEN3_VIDEO_PIXELS, max_pixels) if limited else QWEN3_VIDEO_PIXELS
        return image_tokens(shape, pixels // shape.vision.temporal_patch_size)
    frame = image_tokens(shape, max_pixels)
    if not frame:
        return 0
    pair = shape.vision.temporal_patch_size
    frames = min(max(max_model_len // frame * pair, 1), QWEN2_VIDEO_FRAMES)
    return frame * -(-frames // pair)


def budget(shape: ModelShape, flags: Flags, settled: Sizes, max_pixels: int) -> Budget:
    """`max_pixels` are those of the checkpoint's processor; flags.max_pixels goes before it."""
    pixels = flags.max_pixels or max_pixels
    tokens, limits = {}, {"image": flags.images_per_prompt, "video": flags.videos_per_prompt}
    if limits["image"]:
        tokens["image"] = image_tokens(shape, pixels)
    if limits["video"]:
        limited = flags.max_pixels is not None
        tokens["video"] = video_tokens(shape, pixels, settled.max_model_len, limited=limited)
    if not any(tokens.values()):
        return Budget(0, 0, "", 0, 0)
    most, modality = max((count, kind) for kind, count in tokens.items())
    size = max(settled.max_num_batched_tokens, most)  # encoder_cache_size is max_num_batched_tokens too
    per_prompt = max(1, min(limits[modality], settled.max_model_len // most))
    items = max(1, min(size // most, settled.max_num_seqs * per_prompt))
    return Budget(size, size, modality, most, items)


def patch_bytes(shape: ModelShape, vision_parallel_size: int = 1, *, compiled: bool = True) -> int:
    """Of one patch at the vision tower's peak, pixels included.

    The widest moment of a block, in numbers of 16 bits, with width e, MLP width f, head d, and t ranks; `compiled`
    is false under --enforce-eager, where vLLM's own kernels stand in for plain PyTorch:
      Qwen2-VL    3e + 8e/t + d eager, 3e + 12e/t + d compiled (QuickGELU in four steps)
      Qwen2.5-VL  max(3e + 8e/t, 3e + 3f/t) + d eager, max(3e + 8e/t, 5e + 3f/t) + d compiled (norms out of place)
      Qwen3-VL    max(4e + 8e/t, 4e + 2f/t) + d + deepstack_layers * out_hidden_size / 4
    and with t > 1 one more e, the all-reduce's result. Lifetimes read in vLLM 0.26.0's models/qwen*_vl.py; counted
    with 0.32.0's own towers on the CPU (14.81, 15.06 and 14.73 times e), not measured on a GPU.
    """
    vision, ranks = shape.vision, vision_parallel_size
    width, inner = vision.hidden_size, -(-vision.intermediate_size // ranks)
    attention = 3 * width + 8 * width // ranks
    if shape.model_type == "qwen2_vl":
        peak = 3 * width + 12 * width // ranks if compiled else attention
    elif vision.gated:
        peak = max(attention, (5 if compiled else 3) * width + 3 * inner)
    else:
        peak = width + max(attention, 3 * width + 2 * inner)
        peak += vision.deepstack_layers * vision.out_hidden_size // vision.patches_per_token
    peak += vision.head_dim + (width if ranks > 1 else 0)
    return (peak + vision.patch_elements) * HALF


def peak_bytes(shape: ModelShape, tokens: int, items: int, flags: Flags, tensor_parallel_size: int) -> int:
    """Of the busiest rank while `items` media of `tokens` visual tokens together are encoded.

    In data mode each rank has whole media to itself and the whole tower; the outputs of all are then gathered.
    """
    compiled = not flags.enforce_eager
    if flags.mm_encoder_tp_mode != "data" or tensor_parallel_size == 1:
        return tokens * shape.vision.patches_per_token * patch_bytes(shape, tensor_parallel_size, compiled=compiled)
    busiest = -(-items // tensor_parallel_size) * (tokens // max(items, 1))
    encode = busiest * shape.vision.patches_per_token * patch_bytes(shape, compiled=compiled)
    return max(encode, cache_bytes(shape, busiest * (1 + tensor_parallel_size)))


def cache_bytes(shape: ModelShape, tokens: int) -> int:
    """Of the outputs for `tokens` visual tokens, on every rank of the first stage."""
    return tokens * shape.hidden_size * shape.vision.outputs_per_token * HALF


def cache_term(shape: ModelShape, found: Budget) -> Term:
    return Term(
        "encoder cache",
        cache_bytes(shape, found.cache_tokens),
        "max(max_num_batched_tokens, tokens of the largest medium) * hidden_size * (1 + deepstack layers) * 2",
        (("tokens", found.cache_tokens), ("hidden_size", shape.hidden_size)),
        "v1/core/encoder_cache_manager.py",
    )
