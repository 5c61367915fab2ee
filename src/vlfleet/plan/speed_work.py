"""What one rank computes: the products, the attention and the bytes of a model that is cut over GPUs. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from vlfleet.plan.legality_case import Mode
from vlfleet.plan.operators import Arithmetic, Gemm
from vlfleet.plan.quantized import Quantized
from vlfleet.plan.shape import ModelShape

ACTIVATION_BYTES = 2
PIXEL_BYTES = 4
"""vLLM keeps processed pixels as float32."""
WINDOW_PATCHES = 64
"""Qwen2.5-VL: 112 x 112 pixels (`window_size` of its config.json)."""
_FULL_EVERY = 8
"""Qwen2.5-VL: layers 7, 15, 23 and 31 see the whole picture (`fullatt_block_indexes`); of the others, all do."""
_EIGHT_BITS: dict[str, Arithmetic] = {"fp8": "fp8", "int8": "int8"}
_VISION = ("visual.blocks.0.mlp.down_proj", "model.visual.blocks.0.mlp.down_proj")
_LANGUAGE = ("model.layers.0.mlp.down_proj", "model.language_model.layers.0.mlp.down_proj")


@dataclass(frozen=True)
class Cut:
    """How a model is laid over the GPUs of one replica, by vLLM's names."""

    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    mm_encoder_tp_mode: Mode = "weights"
    kv_cache_dtype: str = "auto"
    compile_mm_encoder: bool = False

    @property
    def kv_cache_bytes(self) -> int:
        """Of one number."""
        return 1 if self.kv_cache_dtype.startswith("fp8") else 2


class Work:
    """One rank's share of a model. A pipeline's stages together, as one rank: each works while the others do."""

    def __init__(self, shape: ModelShape, cut: Cut) -> None:
        self.shape = shape
        self.cut = cut
        tp = cut.tensor_parallel_size
        self.vision_ranks = 1 if cut.mm_encoder_tp_mode == "data" else tp
        self.kv_heads = max(1, shape.num_key_value_heads // tp)
        self.heads = shape.num_attention_heads / tp
        self.full_layers = shape.vision.depth
        """Of the vision tower, those whose patches see the whole picture; the others see windows."""
        if shape.model_type == "qwen2_5_vl":
            self.full_layers = shape.vision.depth // _FULL_EVERY
        self.language = self._language(tp)
        self.experts = self._experts(tp)
        self.head = Gemm(n=shape.vocab_size // tp, k=shape.hidden_size)
        self.vision = self._vision(self.vision_ranks)
        self.merger = self._merger(self.vision_ranks)
        kv_numbers = 2 * shape.num_hidden_layers * self.kv_heads * shape.head_dim
        self.kv_bytes_per_token = kv_numbers * cut.kv_cache_bytes
        self.embedding_bytes = shape.hidden_size * shape.vision.outputs_per_token * ACTIVATION_BYTES
        """Of one visual token, as the vision tower hands it over."""
        self.pixel_bytes_per_patch = shape.vision.patch_elements * PIXEL_BYTES
        inner = shape.moe_intermediate_size * shape.num_experts_per_tok or shape.intermediate_size
        turned = (self.heads + self.kv_heads) * shape.head_dim
        self.elementwise_per_token = shape.num_hidden_layers * (8 * shape.hidden_size + 2 * turned + 3 * inner / tp)
        """Numbers read and written by two norms with their sums, rotation and activation, fused as inductor does."""
        vision_inner = shape.vision.intermediate_size / self.vision_ranks
        self.vision_elementwise_per_patch = shape.vision.depth * (20 * shape.vision.hidden_size + 3 * vision_inner)
        """Two norms, two sums, rotation of q and k with its copies, activation: each a kernel of its own."""

    def read_share(self, tokens: float) -> float:
        """Of the experts, how many at least one of `tokens` tokens goes to, when each goes to a few at random."""
        if not self.shape.num_experts:
            return 1.0
        return 1.0 - float((1.0 - self.shape.num_experts_per_tok / self.shape.num_experts) ** max(0.0, tokens))

    def _language(self, tp: int) -> tuple[Gemm, ...]:
        """Products that every token goes through."""
        s = self.shape
        queries = s.num_attention_heads * s.head_dim // tp
        keys = self.kv_heads * s.head_dim
        sizes = [(queries + 2 * keys, s.hidden_size), (s.hidden_size, queries)]
        if not s.num_experts:
            sizes += [(2 * s.intermediate_size // tp, s.hidden_size), (s.hidden_size, s.intermediate_size // tp)]
        return tuple(self._linear(n, k, _LANGUAGE) for n, k in sizes)

    def _experts(self, tp: int) -> tuple[Gemm, ...]:
        """Products of all experts together, as if one: a token goes through a few of them."""
        s = self.shape
        if not s.num_experts:
            return ()
        inner = s.moe_intermediate_size // tp
        up, down = self._linear(2 * inner, s.hidden_size, _LANGUAGE), self._linear(s.hidden_size, inner, _LANGUAGE)
        return (replace(up, n=up.n * s.num_experts), replace(down, n=down.n * s.num_experts))

    def _linear(self, n: int, k: int, names: tuple[str, ...], count: int = 0) -> Gemm:
        """A layer of the model, quantised if its checkpoint says so."""
        scheme, count = self.shape.quantized, count or self.shape.num_hidden_layers
        if scheme is None or not scheme.covers(*names):
            return Gemm(n, k, count)
        return Gemm(n, k, count, _weight_bytes(scheme), _EIGHT_BITS.get(scheme.kind, "fp16"))

    def _vision(self, ranks: int) -> tuple[Gemm, ...]:
        """By patch."""
        v = self.shape.vision
        width, inner = v.hidden_size, v.intermediate_size // ranks
        sizes = [(3 * width // ranks, width), (width, width // ranks), ((1 + v.gated) * inner, width), (width, inner)]
        return (Gemm(width, v.patch_elements), *(self._linear(n, k, _VISION, v.depth) for n, k in sizes))

    def _merger(self, ranks: int) -> tuple[Gemm, ...]:
        """By visual token."""
        v = self.shape.vision
        wide = v.hidden_size * v.patches_per_token
        count = v.outputs_per_token
        return (Gemm(wide // ranks, wide, count), Gemm(v.out_hidden_size, wide // ranks, count))


def _weight_bytes(scheme: Quantized) -> float:
    """Of one weight with its share of scales and zero points: `Quantized.linear`, for a layer as large as they are."""
    side = 128 * 32
    return sum(scheme.linear(side, side)) / side**2
