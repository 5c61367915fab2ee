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

REQUIRED = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings", "vocab_size",
    "image_token_id", "video_token_id", "vision_config",
)  # fmt: skip
_TAKE = "take {} from the model's page on the hub"
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


def preflight(model: str | Path, *, weights: bool = True) -> CheckpointInfo:
    """Find `model` and check it by its headers: takes milliseconds, loads no tensor.

    Without `weights` only its configuration is read, as for an engine that makes the weights up (--load-format dummy);
    `parameters` and `bytes` are 0 then.

    Raises:
        VlfleetError: it is not there, not a Qwen-VL checkpoint, or a file of it is missing or truncated.
    """
    path = locate(model)
    config, family = _config(path)
    tensors = [tensor for shard in shards_of(path) for tensor in read_header(shard)] if weights else []
    if weights:
        _check_layers(path, config, tensors)
    for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        if not (path / name).is_file():
            raise VlfleetError(f"{path.name} has no {name}", f"copy {name} from the model's page on the hub")
    parameters: Counter[str] = Counter()
    for tensor in tensors:
        parameters[tensor.dtype] += tensor.elements
    min_pixels, max_pixels = pixel_limits(path, family)
    return CheckpointInfo(
        path=path,
        family=family,
        config=config,
        parameters=parameters.total(),
        bytes=sum(tensor.end - tensor.start for tensor in tensors),
        dtype=max(parameters, key=lambda dtype: parameters[dtype] * BITS.get(dtype, 8), default="BF16"),
        quantization=str(_part(config, "quantization_config", "config.json").get("quant_method", "")),
        min_pixels=min_pixels,
        max_pixels=max_pixels,
    )


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file of a checkpoint.

    Raises:
        VlfleetError: no such file, or something else is in it.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError:
        raise VlfleetError(f"{file.parent.name} has no {file.name}", "give the folder of a whole checkpoint") from None
    except (ValueError, RecursionError) as error:
        raise VlfleetError(f"{file.name} is not JSON: {error}", f"download {file.name} again") from None
    if not isinstance(content, dict):
        raise VlfleetError(f"{file.name} is not a JSON object", f"download {file.name} again")
    return content


def _config(path: Path) -> tuple[dict[str, Any], Family]:
    config = read_json(path / "config.json")
    config = {**_part(config, "text_config", "config.json"), **config}
    family = family_of(str(config.get("model_type")))
    for key in REQUIRED:
        if key not in config:
            raise VlfleetError(f"config.json lacks {key}", _TAKE.format("config.json"))
        if key != "vision_config":
            _size(config[key], key, "config.json")
    return config, family


def _part(config: dict[str, Any], key: str, file: str) -> dict[str, Any]:
    """An object in a JSON file; empty when it is absent or null."""
    part = config.get(key) or {}
    if not isinstance(part, dict):
        raise VlfleetError(f"{key} in {file} is no object", _TAKE.format(file))
    return part


def _size(value: object, key: str, file: str) -> int:
    if type(value) is not int or value < 1:
        raise VlfleetError(f"{key} in {file} is {value!r:.50}, no positive whole number", _TAKE.format(file))
    return value


def shards_of(path: Path) -> list[Path]:
    """The safetensors files that the index names; without an index, those in the folder.

    Raises:
        VlfleetError: there is none, or one that the index names is missing.
    """
    index = path / "model.safetensors.index.json"
    if not index.is_file():
        shards = sorted(path.glob("*.safetensors"))
        if not shards:
            raise VlfleetError(f"{path.name} holds no safetensors file", "give the folder of a whole checkpoint")
        return shards
    names = sorted({str(name) for name in _part(read_json(index), "weight_map", index.name).values()})
    if not names:
        raise VlfleetError(f"{index.name} lists no shard", _TAKE.format(index.name))
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
    vision = _part(config, "vision_config", "config.json")
    for kind, tower, count in (
        ("layers", "language model", int(config["num_hidden_layers"])),
        ("blocks", "vision tower", _size(vision.get("depth", 32), "depth", "config.json")),
    ):
        present = sum(number < count for number in found[kind])
        if present < count:
            first = next(number for number in range(count) if number not in found[kind])
            cause = f"{path.name} lacks layer {first} of the {tower} ({count - present:,} of {count:,} missing)"
            raise VlfleetError(cause, "download the missing shard")


def pixel_limits(path: Path, family: Family) -> tuple[int, int]:
    """As transformers reads them: `min_pixels`/`max_pixels` win over `size`; absent keys mean the class default."""
    name = "preprocessor_config.json"
    processor = read_json(path / name)
    size = _part(processor, "size", name) or {"shortest_edge": family.min_pixels, "longest_edge": 1280 * 28 * 28}
    limits = []
    for key, edge in (("min_pixels", "shortest_edge"), ("max_pixels", "longest_edge")):
        value = processor.get(key)
        limits.append(_size(size.get(edge, size.get(key)) if value is None else value, key, name))
    least, most = limits
    if least > most:
        raise VlfleetError(f"min_pixels in {name} is more than max_pixels", _TAKE.format(name))
    return least, most
