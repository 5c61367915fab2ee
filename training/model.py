"""The model: its configuration in the hub's flat layout, and a lean forward pass over packed batches.

The forward pass reads the parameters of transformers' own `Qwen2_5_VLForConditionalGeneration` and computes the same
function (`training/check.py` proves it); it exists because transformers loops in Python over every attention window.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (the field's own name)

from training import packing
from training.geometry import PATCH_BYTES
from training.tokenizer import VOCABULARY

MEAN = (0.48145466, 0.4578275, 0.40821073)  # OpenAI CLIP, as in Qwen2.5-VL's preprocessor_config.json
STD = (0.26862954, 0.26130258, 0.27577711)


@dataclasses.dataclass(frozen=True)
class Shape:
    """The sizes of the model. `intermediate` is five groups of 128, which tensor parallelism cannot halve."""

    hidden: int = 256
    heads: int = 4
    kv_heads: int = 2
    layers: int = 8
    intermediate: int = 640
    vision_depth: int = 6
    full_attention: tuple[int, ...] = (2, 5)
    rope_theta: float = 10000.0
    norm_eps: float = 1e-6
    sections: tuple[int, int, int] = (8, 12, 12)

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads


def config(shape: Shape, ids: dict[str, int]) -> dict[str, Any]:
    """Return config.json in the flat layout of Qwen2.5-VL-7B-Instruct, which every engine reads."""
    return {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "attention_dropout": 0.0,
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "vision_token_id": ids["<|vision_pad|>"],
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "hidden_act": "silu",
        "hidden_size": shape.hidden,
        "initializer_range": 0.02,
        "intermediate_size": shape.intermediate,
        "max_position_embeddings": 4096,
        "max_window_layers": shape.layers,
        "model_type": "qwen2_5_vl",
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
        "rms_norm_eps": shape.norm_eps,
        "rope_theta": shape.rope_theta,
        "sliding_window": 4096,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.49.0",
        "use_cache": True,
        "use_sliding_window": False,
        "vision_config": {
            "depth": shape.vision_depth,
            "hidden_act": "silu",
            "hidden_size": shape.hidden,
            "intermediate_size": shape.intermediate,
            "num_heads": shape.heads,
            "in_chans": 3,
            "in_channels": 3,
            "out_hidden_size": shape.hidden,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "spatial_patch_size": 14,
            "temporal_patch_size": 2,
            "tokens_per_second": 2,
            "window_size": 112,
            "fullatt_block_indexes": list(shape.full_attention),
            "model_type": "qwen2_5_vl",
        },
        "rope_scaling": {"type": "mrope", "mrope_section": list(shape.sections)},
        "vocab_size": VOCABULARY,
    }


def attention(q: Tensor, k: Tensor, v: Tensor, ends: Tensor, longest: int, causal: bool) -> Tensor:
    """Return attention within each run of `ends`, for q, k, v of shape (tokens, heads, head_dim)."""
    if q.is_cuda:
        return torch.ops.aten._flash_attention_forward(q, k, v, ends, ends, longest, longest, 0.0, causal, False)[0]  # type: ignore[no-any-return, unused-ignore]
    out = torch.zeros_like(q)
    bounds = ends.tolist()
    for start, stop in itertools.pairwise(bounds):
        if stop > start:
            a, b, c = (t[start:stop].transpose(0, 1)[None] for t in (q, k, v))
            out[start:stop] = F.scaled_dot_product_attention(a, b, c, is_causal=causal)[0].transpose(0, 1)
    return out


def rms_norm(x: Tensor, weight: Tensor, eps: float, kind: torch.dtype) -> Tensor:
    return (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight).to(kind)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.float().chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return (x.float() * cos[:, None] + turned * sin[:, None]).to(x.dtype)


def gated(x: Tensor, gate: Tensor, up: Tensor, down: Tensor, biases: tuple[Tensor, Tensor, Tensor] | None) -> Tensor:
    b = biases or (None, None, None)
    return linear(F.silu(linear(x, gate, b[0])) * linear(x, up, b[1]), down, b[2])


def vision_block(
    x: Tensor,
    w: list[Tensor],
    cos: Tensor,
    sin: Tensor,
    ends: Tensor,
    longest: int,
    heads: int,
    eps: float,
    kind: torch.dtype,
) -> Tensor:
    norm1, qkv, qkv_b, proj, proj_b, norm2, gate, gate_b, up, up_b, down, down_b = w
    q, k, v = linear(rms_norm(x, norm1, eps, kind), qkv, qkv_b).view(x.shape[0], 3, heads, -1).unbind(1)
    mixed = attention(rotate(q, cos, sin), rotate(k, cos, sin), v.contiguous(), ends, longest, False)
    x = x + linear(mixed.reshape(x.shape), proj, proj_b)
    return x + gated(rms_norm(x, norm2, eps, kind), gate, up, down, (gate_b, up_b, down_b))


def text_block(
    x: Tensor,
    w: list[Tensor],
    cos: Tensor,
    sin: Tensor,
    ends: Tensor,
    heads: int,
    kv_heads: int,
    eps: float,
    kind: torch.dtype,
) -> Tensor:
    norm1, q_w, q_b, k_w, k_b, v_w, v_b, out, norm2, gate, up, down = w
    tokens = x.shape[0]
    h = rms_norm(x, norm1, eps, kind)
    q = linear(h, q_w, q_b).view(tokens, heads, -1)
    k = linear(h, k_w, k_b).view(tokens, kv_heads, -1)
    v = linear(h, v_w, v_b).view(tokens, kv_heads, -1)
    k = rotate(k, cos, sin).repeat_interleave(heads // kv_heads, dim=1)
    v = v.repeat_interleave(heads // kv_heads, dim=1)
    mixed = attention(rotate(q, cos, sin), k, v, ends, packing.LONGEST_SEQUENCE, True)
    x = x + linear(mixed.reshape(x.shape), out)
    return x + gated(rms_norm(x, norm2, eps, kind), gate, up, down, None)


def embed_patches(pixels: Tensor, weight: Tensor) -> Tensor:
    """Return patch embeddings of (patches, 588) normalised pixels: both frames are equal, so their filters add up."""
    return linear(pixels, weight.sum(2).flatten(1)).float()


def merge(x: Tensor, w: list[Tensor], eps: float, kind: torch.dtype) -> Tensor:
    norm, first, first_b, second, second_b = w
    h = rms_norm(x, norm, eps, kind).view(x.shape[0] // 4, -1)
    return linear(F.gelu(linear(h, first, first_b)), second, second_b)


def answer_loss(
    x: Tensor, norm: Tensor, embedding: Tensor, targets: Tensor, weights: Tensor, eps: float, kind: torch.dtype
) -> Tensor:
    logits = linear(rms_norm(x, norm, eps, kind), embedding).float()
    losses = F.cross_entropy(logits, targets, reduction="none")
    return (losses * weights).sum() / weights.sum()


def frequencies(count: int, theta: float, device: torch.device) -> Tensor:
    return theta ** (-torch.arange(count, device=device, dtype=torch.float32) / count)


class Packed:
    """The training forward pass; `parameters` are those of the transformers model, by name."""

    VISION = (
        "norm1.weight",
        "attn.qkv.weight",
        "attn.qkv.bias",
        "attn.proj.weight",
        "attn.proj.bias",
        "norm2.weight",
        "mlp.gate_proj.weight",
        "mlp.gate_proj.bias",
        "mlp.up_proj.weight",
        "mlp.up_proj.bias",
        "mlp.down_proj.weight",
        "mlp.down_proj.bias",
    )
    TEXT = (
        "input_layernorm.weight",
        "self_attn.q_proj.weight",
        "self_attn.q_proj.bias",
        "self_attn.k_proj.weight",
        "self_attn.k_proj.bias",
        "self_attn.v_proj.weight",
        "self_attn.v_proj.bias",
        "self_attn.o_proj.weight",
        "post_attention_layernorm.weight",
        "mlp.gate_proj.weight",
        "mlp.up_proj.weight",
        "mlp.down_proj.weight",
    )
    MERGER = ("ln_q.weight", "mlp.0.weight", "mlp.0.bias", "mlp.2.weight", "mlp.2.bias")

    def __init__(self, shape: Shape, parameters: dict[str, Tensor], kind: torch.dtype, compiled: bool) -> None:
        self.shape, self.kind = shape, kind
        self.vision = [
            [parameters[f"model.visual.blocks.{i}.{name}"] for name in self.VISION] for i in range(shape.vision_depth)
        ]
        self.text = [
            [parameters[f"model.language_model.layers.{i}.{name}"] for name in self.TEXT] for i in range(shape.layers)
        ]
        self.merger = [parameters[f"model.visual.merger.{name}"] for name in self.MERGER]
        self.patch = parameters["model.visual.patch_embed.proj.weight"]
        self.embedding = parameters["model.language_model.embed_tokens.weight"]
        self.norm = parameters["model.language_model.norm.weight"]
        # One compilation serves all blocks of a kind: they are functions of their weights.
        wrap: Any = (lambda f: torch.compile(f, dynamic=False)) if compiled else (lambda f: f)
        self.vision_block, self.text_block = wrap(vision_block), wrap(text_block)
        self.embed_patches, self.merge, self.answer_loss = wrap(embed_patches), wrap(merge), wrap(answer_loss)

    def vision_rotary(self, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        inverse = frequencies(self.shape.head_dim // 4, 10000.0, rows.device)
        angles = torch.cat((rows.float()[:, None] * inverse, columns.float()[:, None] * inverse), dim=-1)
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos(), angles.sin()

    def text_rotary(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        inverse = frequencies(self.shape.head_dim // 2, self.shape.rope_theta, positions.device)
        axis = torch.repeat_interleave(
            torch.arange(3, device=positions.device),
            torch.tensor(self.shape.sections, device=positions.device),
            output_size=sum(self.shape.sections),
        )
        angles = positions.float()[axis].T * inverse
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos(), angles.sin()

    def see(self, pixels: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Return visual tokens (patches / 4, hidden), in window order, of normalised pixels (patches, 588)."""
        shape = self.shape
        cos, sin = self.vision_rotary(batch["patch_row"], batch["patch_column"])
        x = self.embed_patches(pixels.to(self.kind), self.patch)
        for index, weights in enumerate(self.vision):
            full = index in shape.full_attention
            ends, longest = (
                (batch["picture_ends"], packing.LONGEST_PICTURE)
                if full
                else (batch["window_ends"], packing.LONGEST_WINDOW)
            )
            x = self.vision_block(x, weights, cos, sin, ends, longest, shape.heads, shape.norm_eps, self.kind)
        return self.merge(x, self.merger, shape.norm_eps, self.kind)  # type: ignore[no-any-return, unused-ignore]

    def hidden(self, pixels: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Return the last hidden states (tokens, hidden), before the final norm."""
        shape = self.shape
        x = F.embedding(batch["ids"], self.embedding)
        x = x.index_copy(0, batch["visual_at"], self.see(pixels, batch).float())
        cos, sin = self.text_rotary(batch["positions"])
        for weights in self.text:
            x = self.text_block(
                x, weights, cos, sin, batch["sequence_ends"], shape.heads, shape.kv_heads, shape.norm_eps, self.kind
            )
        return x

    def loss(self, pixels: Tensor, batch: dict[str, Tensor]) -> Tensor:
        x = self.hidden(pixels, batch)
        targets, weights = batch["targets"], batch["weights"]
        loss: Tensor = self.answer_loss(x, self.norm, self.embedding, targets, weights, self.shape.norm_eps, self.kind)
        return loss


def normalise(patches: Tensor, mean_std: Tensor) -> Tensor:
    """Return (patches, 588) uint8 pixels as the processor's normalised floats; mean_std is `normalisation(device)`."""
    return (patches.float() - mean_std[0]) / mean_std[1]


def normalisation(device: torch.device) -> Tensor:
    each = PATCH_BYTES // 3
    return torch.tensor(
        [[255 * m for m in MEAN for _ in range(each)], [255 * s for s in STD for _ in range(each)]], device=device
    )


def augment(patches: Tensor, picture: Tensor, generator: torch.Generator) -> Tensor:
    """Return uint8 pixels as floats with a random contrast, brightness, tint and noise for each picture."""
    device = patches.device
    rand = torch.rand(packing.SEQUENCES, 6, device=device, generator=generator)
    noise = (rand[:, 0] < 0.3) * rand[:, 1].square() * 18.0
    contrast = 1.0 + (rand[:, 2] - 0.5) * 0.24
    tint = (torch.rand(packing.SEQUENCES, 3, device=device, generator=generator) - 0.5) * 12.0 + (
        rand[:, 3:4] - 0.5
    ) * 24.0
    at = picture.long()
    pixels = (patches.float() - 128.0) * contrast[at, None] + 128.0
    pixels = (pixels.view(-1, 3, PATCH_BYTES // 3) + tint[at, :, None]).view(-1, PATCH_BYTES)
    pixels = pixels + torch.randn(pixels.shape, device=device, generator=generator) * noise[at, None]
    return pixels.clamp(0.0, 255.0)
