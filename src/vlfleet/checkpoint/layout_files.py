"""A checkpoint's configuration and headers, read but not judged: what inspect, verify, lint, normalise share."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from vlfleet.checkpoint.headers import Tensor, read_header
from vlfleet.checkpoint.info import read_json, shards_of
from vlfleet.checkpoint.layout import hub_name
from vlfleet.checkpoint.locate import locate
from vlfleet.errors import VlfleetError
from vlfleet.families import KNOWN_FAMILIES, Family

INDEX = "model.safetensors.index.json"
_OWN = frozenset(("model_type", "architectures", "auto_map", "transformers_version"))
"""Keys of a nested text_config that say something about that part only."""


@dataclass(frozen=True)
class Contents:
    """What is in a checkpoint folder."""

    path: Path
    family: Family
    config: dict[str, Any]
    """config.json as it is."""
    shards: tuple[Path, ...]
    tensors: tuple[Tensor, ...]
    """Of all shards, in the order of the files, under the names that the files have."""

    @cached_property
    def text(self) -> dict[str, Any]:
        """The language model's configuration, wherever it stands."""
        return text_of(self.config)

    @cached_property
    def by_hub_name(self) -> dict[str, Tensor]:
        """Tensors by the name that they have on the hub; the last of those that share one."""
        return {hub_name(tensor.name, self.family): tensor for tensor in self.tensors}

    @property
    def quantization_config(self) -> dict[str, Any]:
        """What the checkpoint says of its own quantisation, wherever engines look for it; empty if nothing."""
        for found in (self.config, self.text):
            for key in ("quantization_config", "compression_config"):
                if part := section(found, key):
                    return part
        for name in ("quantize_config.json", "quant_config.json"):  # AutoGPTQ's and AutoAWQ's own files
            if (self.path / name).is_file():
                found = read_json(self.path / name)
                return {"quant_method": "gptq" if name == "quantize_config.json" else "awq", **found}
        return {}


def read(model: str | Path) -> Contents:
    """Everything but the tensors' data; headers of a 72B model take some milliseconds.

    Raises:
        VlfleetError: no checkpoint, none of a Qwen-VL model, or a shard that is missing or truncated.
    """
    path = locate(model)
    config, family = config_of(path)
    shards = tuple(shards_of(path))
    for shard in shards:
        if shard.parent != path:
            raise VlfleetError(f"{INDEX} names {shard.name} in another folder", "take it from the model's page")
    tensors = tuple(tensor for shard in shards for tensor in read_header(shard))
    return Contents(path, family, config, shards, tensors)


def config_of(path: Path) -> tuple[dict[str, Any], Family]:
    """config.json of the folder, and the family that it names.

    Raises:
        VlfleetError: there is none, or it is not of a Qwen-VL model.
    """
    if not (path / "config.json").is_file() and (path / "adapter_config.json").is_file():
        cause = f"{path.name} is an adapter (PEFT), not a model"
        raise VlfleetError(cause, "merge it into its base model: merge_and_unload() of PEFT, then save_pretrained()")
    config = read_json(path / "config.json")
    model_type = str(config.get("model_type"))
    if model_type not in KNOWN_FAMILIES:
        names = ", ".join(family.name for family in KNOWN_FAMILIES.values())
        cause = f"model_type {model_type!r} in config.json is no Qwen-VL"
        raise VlfleetError(cause, f"give a checkpoint of {names}")
    return config, KNOWN_FAMILIES[model_type]


def text_of(config: dict[str, Any]) -> dict[str, Any]:
    """The language model's fields. Where both forms are there, transformers >= 4.52 and vLLM read the nested one."""
    nested = section(config, "text_config")
    return {**config, **{key: value for key, value in nested.items() if value is not None and key not in _OWN}}


def section(config: dict[str, Any], key: str) -> dict[str, Any]:
    """An object within `config`; empty when it is absent, null or something else."""
    found = config.get(key)
    return found if isinstance(found, dict) else {}


def size(config: dict[str, Any], key: str, default: int | None = None) -> int:
    """A positive whole number of config.json.

    Raises:
        VlfleetError: it is absent without a default, or something else.
    """
    value = config.get(key, default)
    if type(value) is not int or value < 1:
        what = "lacks" if value is None else f"says {value!r:.50} for"
        raise VlfleetError(f"config.json {what} {key}", "take config.json from the model's page on the hub")
    return value


def duplicates(contents: Contents) -> list[str]:
    """Names on the hub that more than one tensor has."""
    counts = Counter(hub_name(tensor.name, contents.family) for tensor in contents.tensors)
    return [name for name, count in counts.items() if count > 1]


def needs_index(contents: Contents) -> bool:
    """Whether transformers finds the tensors only through an index: it looks for one file of one name without."""
    alone = len(contents.shards) == 1 and contents.shards[0].name == "model.safetensors"
    return (contents.path / INDEX).is_file() or not alone
