"""Writes int4 checkpoints of random weights in the shape of Qwen2.5-VL-72B, and what they dequantise to. numpy only.

Scales have four significant bits, so every weight (at most 15 steps of a scale) is a bfloat16 exactly: the bf16
checkpoint holds the same numbers as the int4 ones. What does not differ between formats (vision tower, embeddings,
lm_head, norms) lies in a shard of its own, which all formats share by a hard link.
"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlfleet.checkpoint import read_header

Array = np.ndarray[Any, Any]
GROUP = 128
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""Nibble k of an int32 holds output AWQ_ORDER[k] of its eight."""
HEADER_BYTES = 1 << 18
DTYPES = {"uint16": "BF16", "float16": "F16", "int32": "I32"}
"""bfloat16 is kept as uint16."""
SPECIAL = {
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
    "eos_token_id": "<|im_end|>",
}


@dataclass(frozen=True)
class Shape:
    """Sizes of a model; the defaults are the 72B's, cut to two layers."""

    hidden: int = 8192
    intermediate: int = 29568
    heads: int = 64
    kv_heads: int = 8
    layers: int = 2
    vocabulary: int = 152064
    vision_hidden: int = 1280
    vision_intermediate: int = 3456
    vision_heads: int = 16
    vision_depth: int = 2

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads

    def linears(self) -> dict[str, tuple[int, int]]:
        """(outputs, inputs) of each linear layer of a decoder layer."""
        keys = self.kv_heads * self.head_dim
        sizes = {"q": (self.hidden, self.hidden), "k": (keys, self.hidden), "v": (keys, self.hidden)}
        found = {f"self_attn.{name}_proj": size for name, size in sizes.items()}
        found["self_attn.o_proj"] = (self.hidden, self.hidden)
        found["mlp.gate_proj"] = found["mlp.up_proj"] = (self.intermediate, self.hidden)
        return found | {"mlp.down_proj": (self.hidden, self.intermediate)}


SMALL = Shape(256, 640, 4, 2, 2, 832, 256, 640, 4, 2)
"""The bundled model's, for a machine without a GPU."""


Layers = Callable[..., Iterator[tuple[str, Array]]]


def pack(values: Array, axis: int, order: tuple[int, ...] = tuple(range(8))) -> Array:
    """Eight neighbours (0 to 15) along `axis` of a matrix into an int32, the first of `order` in its lowest bits."""
    rows = values if axis == 1 else values.T
    words = np.zeros((rows.shape[0], rows.shape[1] // 8), np.uint32)
    for place, number in enumerate(order):
        words |= rows[:, number::8].astype(np.uint32) << np.uint32(4 * place)
    return np.ascontiguousarray(words if axis == 1 else words.T).view(np.int32)


def random_int4(
    random: np.random.Generator, outputs: int, inputs: int, *, symmetric: bool
) -> tuple[Array, Array, Array]:
    """Values [inputs, outputs], zero points and scales [inputs / GROUP, outputs]; weights of about 1 / sqrt(inputs)."""
    groups = inputs // GROUP
    values = random.integers(0, 256, (inputs, outputs // 2), np.uint8)
    values = np.stack([values & 15, values >> 4], -1).reshape(inputs, outputs)
    low, high = (8, 9) if symmetric else (6, 10)
    zeros = random.integers(low, high, (groups, outputs), np.uint8)
    mantissas = random.integers(8, 16, (groups, outputs)).astype(np.float32)
    exponent = np.floor(np.log2(1 / (4.6 * np.sqrt(inputs)))) - 3  # 4.6: deviation of evenly spread values
    return values, zeros, (mantissas * np.float32(2.0**exponent)).astype(np.float16)


def bf16(values: Array) -> Array:
    """float32 that is exact in bfloat16, as uint16."""
    words = values.view(np.uint32)
    if (words & 0xFFFF).any():
        raise ValueError("a number does not fit into bfloat16")
    return (words >> np.uint32(16)).astype(np.uint16)


def spread(random: np.random.Generator, shape: tuple[int, ...], exponent: int) -> Array:
    """bfloat16 of either sign, between 2^exponent and twice that: quick to make, whatever the size."""
    words = random.integers(0, 1 << 16, shape, np.uint16)
    return (words & np.uint16(0x807F)) | np.uint16((127 + exponent) << 7)


def linear(form: str, values: Array, zeros: Array, scales: Array) -> Iterator[tuple[str, Array]]:
    """The tensors of one layer in `form` (awq, gptq, bf16), by the last part of their names."""
    if form == "bf16":
        steps = values.astype(np.float32) - np.repeat(zeros, GROUP, 0)
        steps *= np.repeat(scales.astype(np.float32), GROUP, 0)
        yield "weight", np.ascontiguousarray(bf16(steps).T)
    elif form == "awq":
        yield "qweight", pack(values, 1, AWQ_ORDER)
        yield "qzeros", pack(zeros, 1, AWQ_ORDER)
        yield "scales", scales
    else:
        yield "qweight", pack(values, 0)
        yield "qzeros", pack(zeros - 1, 1)
        yield "scales", scales
        yield "g_idx", (np.arange(values.shape[0]) // GROUP).astype(np.int32)


def layer(form: str, shape: Shape, number: int, *, symmetric: bool) -> Iterator[tuple[str, Array]]:
    """A decoder layer's linear layers; the same numbers in every form that is as symmetric."""
    for place, (name, (outputs, inputs)) in enumerate(shape.linears().items()):
        random = np.random.default_rng((number, place))
        stored = random_int4(random, outputs, inputs, symmetric=symmetric)
        for part, array in linear(form, *stored):
            yield f"model.layers.{number}.{name}.{part}", array


def rest(shape: Shape) -> Iterator[tuple[str, Array]]:
    """Everything else, in bfloat16."""
    random, one = np.random.default_rng(99), np.uint16(0x3F80)
    yield "model.embed_tokens.weight", spread(random, (shape.vocabulary, shape.hidden), -1)
    yield "lm_head.weight", spread(random, (shape.vocabulary, shape.hidden), -6)
    yield "model.norm.weight", np.full(shape.hidden, one)
    for number in range(shape.layers):
        head = f"model.layers.{number}"
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"{head}.{name}.weight", np.full(shape.hidden, one)
        for name in "qkv":
            outputs = shape.linears()[f"self_attn.{name}_proj"][0]
            yield f"{head}.self_attn.{name}_proj.bias", spread(random, (outputs,), -6)
    width, inner = shape.vision_hidden, shape.vision_intermediate
    yield "visual.patch_embed.proj.weight", spread(random, (width, 3, 2, 14, 14), -6)
    for number in range(shape.vision_depth):
        head = f"visual.blocks.{number}"
        sizes = {"attn.qkv": (3 * width, width), "attn.proj": (width, width), "mlp.down_proj": (width, inner)}
        sizes |= {"mlp.gate_proj": (inner, width), "mlp.up_proj": (inner, width)}
        for name, size in sizes.items():
            yield f"{head}.{name}.weight", spread(random, size, -6)
            yield f"{head}.{name}.bias", np.zeros(size[0], np.uint16)
        for name in ("norm1", "norm2"):
            yield f"{head}.{name}.weight", np.full(width, one)
    merged = 4 * width
    yield "visual.merger.ln_q.weight", np.full(width, one)
    for name, size in {"0": (merged, merged), "2": (shape.hidden, merged)}.items():
        yield f"visual.merger.mlp.{name}.weight", spread(random, size, -7)
        yield f"visual.merger.mlp.{name}.bias", np.zeros(size[0], np.uint16)


def noise(form: str, shape: Shape, number: int, *, symmetric: bool) -> Iterator[tuple[str, Array]]:
    """`layer` for who only moves bytes: AWQ's tensors, all bits random; ten times as quick."""
    random = np.random.default_rng(number)
    for name, (outputs, inputs) in shape.linears().items():
        for part, size, dtype in (
            ("qweight", (inputs, outputs // 8), np.int32),
            ("qzeros", (inputs // GROUP, outputs // 8), np.int32),
            ("scales", (inputs // GROUP, outputs), np.float16),
        ):
            raw = random.bytes(size[0] * size[1] * np.dtype(dtype).itemsize)
            yield f"model.layers.{number}.{name}.{part}", np.frombuffer(raw, dtype).reshape(size)


def save(file: Path, tensors: Iterator[tuple[str, Array]]) -> None:
    """A safetensors file, one tensor in memory at a time; room for the header is left before what is not known yet."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    with file.open("wb") as stream:
        stream.seek(8 + HEADER_BYTES)
        for name, array in tensors:
            start, end = end, end + array.nbytes
            entries[name] = {"dtype": DTYPES[array.dtype.name], "shape": array.shape, "data_offsets": (start, end)}
            array.tofile(stream)
        stream.seek(0)
        stream.write(struct.pack("<Q", HEADER_BYTES) + json.dumps(entries).encode().ljust(HEADER_BYTES))


def config(shape: Shape, tokenizer: Path, form: str, *, symmetric: bool) -> dict[str, Any]:
    """config.json, flat as on the hub."""
    added = json.loads((tokenizer / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    ids = {entry["content"]: entry["id"] for entry in added}
    section = shape.head_dim // 8
    made: dict[str, Any] = {name: ids[content] for name, content in SPECIAL.items()}
    made |= {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"], "model_type": "qwen2_5_vl", "hidden_act": "silu",
        "hidden_size": shape.hidden, "intermediate_size": shape.intermediate, "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads, "num_key_value_heads": shape.kv_heads, "rms_norm_eps": 1e-6,
        "rope_theta": 1e6, "max_position_embeddings": 4096, "max_window_layers": shape.layers,
        "use_sliding_window": False, "sliding_window": 4096, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
        "vocab_size": shape.vocabulary, "attention_dropout": 0.0, "initializer_range": 0.02,
        "rope_scaling": {"type": "mrope", "mrope_section": [section, section * 3 // 2, section * 3 // 2]},
        "vision_config": {
            "model_type": "qwen2_5_vl", "depth": shape.vision_depth, "hidden_act": "silu", "in_chans": 3,
            "in_channels": 3, "hidden_size": shape.vision_hidden, "intermediate_size": shape.vision_intermediate,
            "num_heads": shape.vision_heads, "out_hidden_size": shape.hidden, "patch_size": 14, "window_size": 112,
            "spatial_merge_size": 2, "spatial_patch_size": 14, "temporal_patch_size": 2, "tokens_per_second": 2,
            "fullatt_block_indexes": [shape.vision_depth - 1],
        },
    }  # fmt: skip
    if form != "bf16":
        quantization: dict[str, Any] = {"bits": 4, "group_size": GROUP, "quant_method": form}
        if form == "awq":
            quantization |= {"version": "gemm", "zero_point": True, "modules_to_not_convert": ["visual"]}
        else:
            quantization |= {"sym": symmetric, "desc_act": False, "checkpoint_format": "gptq", "true_sequential": True}
        made["quantization_config"] = quantization
    return made


PREPROCESSOR = {
    "image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor", "min_pixels": 12544,
    "max_pixels": 200704, "size": {"shortest_edge": 12544, "longest_edge": 200704}, "patch_size": 14, "merge_size": 2,
    "temporal_patch_size": 2, "image_mean": [0.48145466, 0.4578275, 0.40821073], "resample": 3,
    "image_std": [0.26862954, 0.26130258, 0.27577711], "do_resize": True, "do_rescale": True, "do_normalize": True,
    "do_convert_rgb": True, "rescale_factor": 1 / 255,
}  # fmt: skip


def write(
    folder: Path,
    form: str,
    shape: Shape,
    tokenizer: Path,
    *,
    shared: Path,
    symmetric: bool = False,
    made_by: Layers = layer,
    per_shard: int = 2,
) -> Path:
    """A checkpoint in `form` (awq, gptq, bf16). `shared` is a file of what all forms share, made if it is not there."""
    folder.mkdir(parents=True)
    if not shared.exists():
        save(shared, rest(shape))
    (folder / "model-rest.safetensors").hardlink_to(shared)
    for first in range(0, shape.layers, per_shard):
        numbers = range(first, min(first + per_shard, shape.layers))
        parts = (part for number in numbers for part in made_by(form, shape, number, symmetric=symmetric))
        save(folder / f"model-layers-{first:03d}.safetensors", parts)
    tensors = [tensor for file in sorted(folder.glob("*.safetensors")) for tensor in read_header(file)]
    index: dict[str, Any] = {"metadata": {"total_size": sum(tensor.end - tensor.start for tensor in tensors)}}
    index["weight_map"] = {tensor.name: tensor.file.name for tensor in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(config(shape, tokenizer, form, symmetric=symmetric), indent=1))
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR, indent=1))
    (folder / "generation_config.json").write_text('{"do_sample": false}')
    for file in tokenizer.iterdir():
        if file.suffix in (".json", ".jinja", ".txt") and not (folder / file.name).exists():
            shutil.copy(file, folder / file.name)
    return folder
