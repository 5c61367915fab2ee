"""What the rules of `legality` are asked about: a model, how it is stored, and how which vLLM is to cut it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from vlfleet.checkpoint.layout_files import section, size, text_of
from vlfleet.checkpoint.quantization import Format, Scheme, Strategy
from vlfleet.families import Family

Mode = Literal["weights", "data"]
"""--mm-encoder-tp-mode: the vision tower is cut across the ranks, or every rank holds it whole."""
Version = tuple[int, int]
INT4 = (Format.AWQ, Format.GPTQ, Format.PACKED)
HOPPER = 9


@dataclass(frozen=True)
class Shape:
    """What of a model the rules ask for."""

    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    intermediate: int
    """Of an expert, if the model has experts."""
    experts: bool
    vision_heads: int
    vision_intermediate: int
    gated_vision: bool
    """Qwen2.5-VL's vision MLP has a gate, and is a merged layer in vLLM."""
    nested: bool = False
    """The language model has a configuration of its own, without `architectures` (Qwen3-VL)."""
    float16: bool = False
    """What vLLM computes in; else bfloat16."""

    @staticmethod
    def of(config: dict[str, Any], family: Family) -> Shape:
        """From config.json.

        Raises:
            VlfleetError: it lacks a size.
        """
        text, vision = text_of(config), section(config, "vision_config")
        heads = size(text, "num_attention_heads")
        experts = family.model_type.endswith("_moe")
        inner = vision.get("intermediate_size") or int(vision.get("embed_dim", 1280) * vision.get("mlp_ratio", 4))
        return Shape(
            heads=heads,
            kv_heads=size(text, "num_key_value_heads", heads),
            head_dim=size(text, "head_dim", size(text, "hidden_size") // heads),
            vocabulary=size(text, "vocab_size"),
            intermediate=size(text, "moe_intermediate_size" if experts else "intermediate_size"),
            experts=experts,
            vision_heads=size(vision, "num_heads", 16),
            vision_intermediate=int(inner),
            gated_vision=family.model_type == "qwen2_5_vl",
            nested=family.model_type.startswith("qwen3"),
            float16="float16" in (config.get(key) or text.get(key) for key in ("dtype", "torch_dtype")),
        )


@dataclass(frozen=True)
class Case:
    """One question: may this model be cut so?"""

    shape: Shape
    scheme: Scheme | None
    """Of the language model's linear layers; None: not quantised."""
    tp: int
    mode: Mode
    vllm: Version
    stages: int = 1
    """--pipeline-parallel-size."""
    capability: Version = (8, 0)
    """Of the GPU: which kernels vLLM may take."""

    @property
    def group(self) -> int:
        """Inputs that must stay on one rank."""
        if self.scheme is None:
            return 1
        return {Strategy.GROUP: self.scheme.group_size, Strategy.BLOCK: self.scheme.block[1]}.get(
            self.scheme.strategy, 1
        )

    @property
    def row_parallel_inputs(self) -> tuple[int, ...]:
        """Of o_proj and down_proj on one rank; whole on a single one, where no rule asks for them."""
        if self.tp == 1:
            return ()
        return (self.shape.heads // self.tp * self.shape.head_dim, self.shape.intermediate // self.tp)
