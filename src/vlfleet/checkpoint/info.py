"""What a checkpoint is, from its configuration and headers: the check before anything heavy is loaded."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlfleet.checkpoint.headers import BITS, Tensor, read_header
from vlfleet.checkpoint.locate import locate
from vlfleet.errors import VlfleetError
from vlfleet.families import Family, family_of

_LAYER = re.compile(r"(?:^|\.)(layers|blocks)\.(\d+)\.")


@dataclass(frozen=True)
class CheckpointInfo:
    """A checkpoint that is complete as far as headers tell."""

    path: Path
    family: Family
    config: dict[str, Any]
    """config.json, with the keys of a nested `text_config` (transformers 5) lifted to the top."""
    parameters: int
    bytes: int
    """Of all tensors, on disk."""
    dtype: str
    """That most parameters have, as safetensors names it: BF16, F16, F32, I32 (packed int4), ..."""
    quantization: str
    """`quant_method` of config.json, or empty."""
    min_pixels: int
    max_pixels: int

    @property
    def max_model_len(self) -> int:
        """Tokens that prompt and answer may have together."""
        return int(self.config["max_position_embeddings"])


def preflight(model: str | Path) -> CheckpointInfo:
    """Find `model` and check it by its headers: takes milliseconds, loads no tensor.

    Raises:
        VlfleetError: it is not there, not a Qwen-VL checkpoint, or a file of it is missing or truncated.
    """
    path = locate(model)
    config = _config(path)
    family = family_of(str(config.get("model_type")))
    tensors = [tensor for shard in _shards(path) for tensor in read_header(shard)]
    _check_layers(path, config, tensors)
    for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        if not (path / name).is_file():
            raise VlfleetError(f"{path.name} has no {name}", f"copy {name} from the model's page on the hub")
    parameters: Counter[str] = Counter()
    for tensor in tensors:
        parameters[tensor.dtype] += tensor.elements
    min_pixels, max_pixels = _pixel_limits(path, family)
    return CheckpointInfo(
        path=path,
        family=family,
        config=config,
        parameters=parameters.total(),
        bytes=sum(tensor.end - tensor.start for tensor in tensors),
        dtype=max(parameters, key=lambda dtype: parameters[dtype] * BITS.get(dtype, 8)),
        quantization=str((config.get("quantization_config") or {}).get("quant_method", "")),
        min_pixels=min_pixels,
        max_pixels=max_pixels,
    )


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError:
        raise VlfleetError(f"{file.parent.name} has no {file.name}", "give the folder of a whole checkpoint") from None
    except ValueError as error:
        raise VlfleetError(f"{file.name} is not JSON: {error}", f"download {file.name} again") from None
    if not isinstance(content, dict):
        raise VlfleetError(f"{file.name} is not a JSON object", f"download {file.name} again")
    return content


def _config(path: Path) -> dict[str, Any]:
    config = _json(path / "config.json")
    config = {**config.get("text_config", {}), **config} if "text_config" in config else config
    for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings", "vision_config"):
        if key not in config and config.get("model_type") in ("qwen2_vl", "qwen2_5_vl"):
            raise VlfleetError(f"config.json lacks {key}", "take config.json from the model's page on the hub")
    return config


def _shards(path: Path) -> list[Path]:
    index = path / "model.safetensors.index.json"
    if not index.is_file():
        shards = sorted(path.glob("*.safetensors"))
        if not shards:
            raise VlfleetError(f"{path.name} holds no safetensors file", "give the folder of a whole checkpoint")
        return shards
    names = sorted(set(_json(index).get("weight_map", {}).values()))
    missing = [name for name in names if not (path / name).is_file()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise VlfleetError(f"shard {missing[0]}{more} of {len(names)} is missing", "download the missing files")
    return [path / name for name in names]


def _check_layers(path: Path, config: dict[str, Any], tensors: list[Tensor]) -> None:
    """Without an index a missing shard shows only as layers that no file holds."""
    found: dict[str, set[int]] = {"layers": set(), "blocks": set()}
    for tensor in tensors:
        if match := _LAYER.search(tensor.name):
            found[match[1]].add(int(match[2]))
    vision = config["vision_config"]
    for kind, tower, count in (
        ("layers", "language model", int(config["num_hidden_layers"])),
        ("blocks", "vision tower", int(vision.get("depth", 32))),
    ):
        if missing := sorted(set(range(count)) - found[kind]):
            cause = f"{path.name} lacks layer {missing[0]} of the {tower} ({len(missing)} of {count} missing)"
            raise VlfleetError(cause, "download the missing shard")


def _pixel_limits(path: Path, family: Family) -> tuple[int, int]:
    """As transformers reads them: `min_pixels`/`max_pixels` win over `size`; absent keys mean the class default."""
    processor = _json(path / "preprocessor_config.json")
    size = processor.get("size") or {}
    least = processor.get("min_pixels", size.get("shortest_edge", size.get("min_pixels", family.min_pixels)))
    most = processor.get("max_pixels", size.get("longest_edge", size.get("max_pixels", 1280 * 28 * 28)))
    return int(least), int(most)
