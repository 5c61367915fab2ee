"""The published Qwen-VL models: their configuration as on the hub, and checkpoints of their shapes that take no disk.

Sizes: the config.json of each on the hub. Parameter counts: `total_size` of their indexes (2 bytes each), and
transformers' own classes on meta tensors.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlfleet.checkpoint.headers import BITS
from vlfleet.checkpoint.layout_expected import expected
from vlfleet.families import KNOWN_FAMILIES

Shapes = dict[str, tuple[str, tuple[int, ...]]]
"""dtype and shape by name."""
SHARD_BYTES = 4_000_000_000
"""What the hub's shards have at most."""


@dataclass(frozen=True)
class Published:
    """One model, with its exact parameter counts."""

    name: str
    model_type: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    intermediate: int
    vocab: int
    tied: bool
    vision_mlp: int
    total: int
    vision: int
    """Vision tower and merger."""
    embed: int
    lm_head: int
    language: int
    """Layers and the last norm."""

    @property
    def config(self) -> dict[str, Any]:
        """config.json."""
        return {"qwen2_vl": _qwen2, "qwen2_5_vl": _qwen2_5}.get(self.model_type, _qwen3)(self)


def _rows(model_type: str, *rows: tuple[Any, ...]) -> list[Published]:
    return [Published(row[0], model_type, *row[1:]) for row in rows]


MODELS = {
    model.name: model
    for model in (
        *_rows(
            "qwen2_vl",
            ("Qwen2-VL-2B", 28, 1536, 12, 2, 8960, 151936, True, 5120,
             2_208_985_600, 665_271_296, 233_373_696, 0, 1_310_340_608),
            ("Qwen2-VL-7B", 28, 3584, 28, 4, 18944, 152064, False, 5120,
             8_291_375_616, 675_759_104, 544_997_376, 544_997_376, 6_525_621_760),
            ("Qwen2-VL-72B", 80, 8192, 64, 8, 29568, 152064, False, 5120,
             73_405_560_320, 699_356_672, 1_245_708_288, 1_245_708_288, 70_214_787_072),
        ),
        *_rows(
            "qwen2_5_vl",
            ("Qwen2.5-VL-3B", 36, 2048, 16, 2, 11008, 151936, True, 3420,
             3_754_622_976, 668_684_288, 311_164_928, 0, 2_774_773_760),
            ("Qwen2.5-VL-7B", 28, 3584, 28, 4, 18944, 152064, False, 3420,
             8_292_166_656, 676_550_144, 544_997_376, 544_997_376, 6_525_621_760),
            ("Qwen2.5-VL-32B", 64, 5120, 40, 8, 27648, 152064, False, 3456,
             33_452_718_336, 688_841_984, 778_567_680, 778_567_680, 31_206_740_992),
            ("Qwen2.5-VL-72B", 80, 8192, 64, 8, 29568, 152064, False, 3456,
             73_410_777_344, 704_573_696, 1_245_708_288, 1_245_708_288, 70_214_787_072),
        ),
        *_rows(
            "qwen3_vl",
            ("Qwen3-VL-2B", 28, 2048, 16, 8, 6144, 151936, True, 4096,
             2_127_532_032, 406_957_056, 311_164_928, 0, 1_409_410_048),
            ("Qwen3-VL-4B", 36, 2560, 32, 8, 9728, 151936, True, 4096,
             4_437_815_808, 415_347_712, 388_956_160, 0, 3_633_511_936),
            ("Qwen3-VL-8B", 36, 4096, 32, 8, 12288, 151936, False, 4304,
             8_767_123_696, 576_388_336, 622_329_856, 622_329_856, 6_946_075_648),
            ("Qwen3-VL-32B", 64, 5120, 64, 8, 25600, 151936, False, 4304,
             33_357_390_064, 595_266_800, 777_912_320, 777_912_320, 31_206_298_624),
        ),
        *_rows(
            "qwen3_vl_moe",
            ("Qwen3-VL-30B-A3B", 48, 2048, 32, 4, 768, 151936, False, 4304,
             31_070_754_032, 538_631_408, 311_164_928, 311_164_928, 29_909_792_768),
            ("Qwen3-VL-235B-A22B", 94, 4096, 64, 4, 1536, 151936, False, 4304,
             235_670_022_896, 576_388_336, 622_329_856, 622_329_856, 233_848_974_848),
        ),
    )
}  # fmt: skip
"""By the name on the hub without "-Instruct". `intermediate` of the MoE models is that of one expert."""

_TOKENS = {
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
    "image_token_id": 151655,
    "video_token_id": 151656,
}


def _qwen2(model: Published) -> dict[str, Any]:
    return {
        "architectures": [KNOWN_FAMILIES[model.model_type].architecture],
        "attention_dropout": 0.0,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        **_TOKENS,
        "vision_token_id": 151654,
        "hidden_act": "silu",
        "hidden_size": model.hidden,
        "initializer_range": 0.02,
        "intermediate_size": model.intermediate,
        "max_position_embeddings": 32768,
        "max_window_layers": model.layers,
        "model_type": model.model_type,
        "num_attention_heads": model.heads,
        "num_hidden_layers": model.layers,
        "num_key_value_heads": model.kv_heads,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": 32768,
        "tie_word_embeddings": model.tied,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.41.2",
        "use_cache": True,
        "use_sliding_window": False,
        "vision_config": {
            "depth": 32,
            "embed_dim": 1280,
            "mlp_ratio": 4,
            "num_heads": 16,
            "in_chans": 3,
            "hidden_size": model.hidden,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "spatial_patch_size": 14,
            "temporal_patch_size": 2,
        },
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        "vocab_size": model.vocab,
    }


def _qwen2_5(model: Published) -> dict[str, Any]:
    vision = {
        "depth": 32,
        "hidden_act": "silu",
        "hidden_size": 1280,
        "intermediate_size": model.vision_mlp,
        "num_heads": 16,
        "in_chans": 3,
        "out_hidden_size": model.hidden,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "spatial_patch_size": 14,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
        "tokens_per_second": 2,
        "temporal_patch_size": 2,
    }
    return {**_qwen2(model), "max_position_embeddings": 128000, "vision_config": vision}


def _qwen3(model: Published) -> dict[str, Any]:
    small, moe = model.vision_mlp == 4096, model.model_type == "qwen3_vl_moe"
    text = {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 151643,
        "dtype": "bfloat16",
        "eos_token_id": 151645,
        "head_dim": 128,
        "hidden_act": "silu",
        "hidden_size": model.hidden,
        "initializer_range": 0.02,
        "intermediate_size": 3 * model.hidden if moe else model.intermediate,
        "max_position_embeddings": 262144,
        "model_type": f"{model.model_type}_text",
        "num_attention_heads": model.heads,
        "num_hidden_layers": model.layers,
        "num_key_value_heads": model.kv_heads,
        "rms_norm_eps": 1e-06,
        "rope_scaling": {"mrope_interleaved": True, "mrope_section": [24, 20, 20], "rope_type": "default"},
        "rope_theta": 5000000,
        "use_cache": True,
        "vocab_size": model.vocab,
    }
    if model.tied:
        text["tie_word_embeddings"] = True  # transformers 4.57 and vLLM look here, and not at the outer one
    experts = {"decoder_sparse_step": 1, "mlp_only_layers": [], "norm_topk_prob": True}
    experts |= {"num_experts": 128, "num_experts_per_tok": 8}
    vision = {
        "deepstack_visual_indexes": [5, 11, 17] if small else [8, 16, 24],
        "depth": 24 if small else 27,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_size": 1024 if small else 1152,
        "in_channels": 3,
        "initializer_range": 0.02,
        "intermediate_size": model.vision_mlp,
        "model_type": model.model_type,
        "num_heads": 16,
        "num_position_embeddings": 2304,
        "out_hidden_size": model.hidden,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    }
    return {
        "architectures": [KNOWN_FAMILIES[model.model_type].architecture],
        **_TOKENS,
        "model_type": model.model_type,
        "text_config": {**text, **experts, "moe_intermediate_size": model.intermediate} if moe else text,
        "tie_word_embeddings": model.tied,
        "transformers_version": "4.57.0.dev0",
        "vision_config": vision,
    }


_CLIP = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}


def preprocessor(model_type: str) -> dict[str, Any]:
    """preprocessor_config.json."""
    if model_type.startswith("qwen3"):
        return {
            "size": {"longest_edge": 16777216, "shortest_edge": 65536},
            "patch_size": 16,
            "temporal_patch_size": 2,
            "merge_size": 2,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "processor_class": "Qwen3VLProcessor",
            "image_processor_type": "Qwen2VLImageProcessorFast",
        }
    return {
        "min_pixels": 3136,
        "max_pixels": 12845056,
        "patch_size": 14,
        "temporal_patch_size": 2,
        "merge_size": 2,
        **_CLIP,
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2VLProcessor" if model_type == "qwen2_vl" else "Qwen2_5_VLProcessor",
    }


def tokenizer() -> dict[str, Any]:
    """tokenizer_config.json, but for its list of added tokens."""
    return {
        "add_prefix_space": False,
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"],
        "bos_token": None,
        "chat_template": "{% for message in messages %}{{ message.content }}{% endfor %}",
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 32768,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }


def shapes(model: Published) -> Shapes:
    """The tensors of the bfloat16 release; a head that is tied to the embedding is not stored."""
    weights = expected(model.config, KNOWN_FAMILIES[model.model_type])
    return {weight.name: ("BF16", weight.shape) for weight in weights if not weight.optional}


def write(folder: Path, config: Mapping[str, Any], tensors: Shapes, shard_bytes: int = SHARD_BYTES) -> Path:
    """A checkpoint of zeros with these tensors: real headers, an index, and files that are holes. Returns `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, Any] = {
        "config.json": dict(config),
        "preprocessor_config.json": preprocessor(str(config["model_type"])),
        "tokenizer_config.json": tokenizer(),
        "tokenizer.json": {"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {}, "merges": []}},
        "generation_config.json": {"eos_token_id": [151645, 151643], "pad_token_id": 151643, "do_sample": True},
        "vocab.json": {},
    }
    shards = list(_shards(tensors, shard_bytes))
    places: dict[str, str] = {}
    for number, part in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors" if len(shards) > 1 else "model.safetensors"
        _write_shard(folder / name, part)
        places |= dict.fromkeys(part, name)
    if len(shards) > 1:
        total = sum(_bytes(tensor) for tensor in tensors.values())
        files["model.safetensors.index.json"] = {"metadata": {"total_size": total}, "weight_map": places}
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2), encoding="utf-8")
    return folder


def _bytes(tensor: tuple[str, tuple[int, ...]]) -> int:
    return math.prod(tensor[1]) * BITS[tensor[0]] // 8


def _shards(tensors: Shapes, shard_bytes: int) -> Iterable[Shapes]:
    part: Shapes = {}
    filled = 0
    for name, tensor in tensors.items():
        if part and filled + _bytes(tensor) > shard_bytes:
            yield part
            part, filled = {}, 0
        part[name] = tensor
        filled += _bytes(tensor)
    yield part


def _write_shard(file: Path, tensors: Shapes) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + _bytes(tensor)
        header[name] = {"dtype": tensor[0], "shape": tensor[1], "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        stream.truncate(8 + len(text) + end)
