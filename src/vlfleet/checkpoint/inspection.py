"""What a checkpoint is, from its headers alone: parameters by part, quantisation, images, size on disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vlfleet.checkpoint.headers import Tensor
from vlfleet.checkpoint.info import pixel_limits
from vlfleet.checkpoint.layout import Part, part_of
from vlfleet.checkpoint.layout_expected import Weight, expected, is_tied, separate_experts
from vlfleet.checkpoint.layout_files import Contents, read, size
from vlfleet.checkpoint.quantization import Module, Quantization, Scheme, detect, owner, parameters_in
from vlfleet.checkpoint.quantization_claim import completed, disagreements, read_claim
from vlfleet.errors import VlfleetError
from vlfleet.families import Family


@dataclass(frozen=True)
class PartSize:
    """One part of the model."""

    part: Part
    parameters: int
    """As the model computes with them: a packed int4 weight counts each number, scales and zero points count none."""
    bytes: int
    """On disk, scales and zero points included."""
    dtypes: tuple[str, ...]
    """As safetensors names them, the largest first."""
    quantised_layers: int
    linear_layers: int


@dataclass(frozen=True)
class Inspection:
    """Everything that headers and configuration tell."""

    path: Path
    family: Family
    config: dict[str, Any]
    """config.json as it is."""
    parts: tuple[PartSize, ...]
    shards: int
    tensors: int
    tensor_bytes: int
    disk_bytes: int
    """Of all files in the folder."""
    quantization: Quantization | None
    scheme: Scheme | None
    """That of most quantised layers, completed by what only config.json knows."""
    disagreements: tuple[str, ...]
    """Where config.json and the headers contradict each other."""
    tied: bool
    min_pixels: int
    max_pixels: int
    """0 when preprocessor_config.json cannot be read."""
    max_position_embeddings: int
    kv_bytes_per_token: int
    """Of a key-value cache of 2 bytes a number, all ranks together."""

    @property
    def from_config(self) -> tuple[str, ...]:
        """Fields of `scheme` that the headers do not tell: they are what config.json says."""
        if self.quantization is None or self.scheme is None:
            return ()
        told, all_told = asdict(self.quantization.scheme), asdict(self.scheme)
        return tuple(name for name in all_told if told[name] is None and all_told[name] is not None)

    @property
    def parameters(self) -> int:
        return sum(part.parameters for part in self.parts)

    @property
    def min_visual_tokens(self) -> int:
        return self.min_pixels // self.family.factor**2

    @property
    def max_visual_tokens(self) -> int:
        """Of one picture, without the two markers around it."""
        return self.max_pixels // self.family.factor**2


def inspect(model: str | Path) -> Inspection:
    """Look into a checkpoint: a folder, or a name on the hub. Milliseconds, whatever the model's size.

    Raises:
        VlfleetError: no checkpoint, none of a Qwen-VL model, or a shard that is missing or truncated.
    """
    contents = read(model)
    weights = expected_weights(contents)
    quantization = detect(contents.by_hub_name, {name: weight.shape for name, weight in weights.items()})
    claim = read_claim(contents.quantization_config)
    text = contents.text
    heads = size(text, "num_attention_heads")
    kv_heads = size(text, "num_key_value_heads", heads)
    head_dim = size(text, "head_dim", size(text, "hidden_size") // heads)
    try:
        min_pixels, max_pixels = pixel_limits(contents.path, contents.family)
    except VlfleetError:  # lint says what is wrong with that file
        min_pixels = max_pixels = 0
    return Inspection(
        path=contents.path,
        family=contents.family,
        config=contents.config,
        parts=_parts(contents, quantization, weights),
        shards=len(contents.shards),
        tensors=len(contents.tensors),
        tensor_bytes=sum(tensor.end - tensor.start for tensor in contents.tensors),
        disk_bytes=sum(file.stat().st_size for file in contents.path.iterdir() if file.is_file()),
        quantization=quantization,
        scheme=completed(quantization.scheme, claim) if quantization else None,
        disagreements=tuple(disagreements(quantization, claim)),
        tied=is_tied(contents.config),
        min_pixels=min_pixels,
        max_pixels=max_pixels,
        max_position_embeddings=size(text, "max_position_embeddings"),
        kv_bytes_per_token=2 * size(text, "num_hidden_layers") * kv_heads * head_dim * 2,
    )


def expected_weights(contents: Contents) -> dict[str, Weight]:
    """The weights of config.json before quantisation; experts one by one where the files hold them so.

    Raises:
        VlfleetError: config.json lacks a size.
    """
    found: dict[str, Weight] = {}
    for weight in expected(contents.config, contents.family):
        one_by_one = ".experts." in weight.name and weight.name not in contents.by_hub_name
        found |= {each.name: each for each in (separate_experts(weight) if one_by_one else [weight])}
    return found


def _parts(
    contents: Contents, quantization: Quantization | None, weights: Mapping[str, Weight]
) -> tuple[PartSize, ...]:
    modules = {module.name: module for module in quantization.modules} if quantization else {}
    members: dict[Part, list[tuple[str, Tensor]]] = {part: [] for part in Part}
    for name, tensor in contents.by_hub_name.items():
        members[part_of(name)].append((name, tensor))
    return tuple(_part(part, tensors, modules, weights) for part, tensors in members.items() if tensors)


def _part(
    part: Part, tensors: list[tuple[str, Tensor]], modules: Mapping[str, Module], weights: Mapping[str, Weight]
) -> PartSize:
    sizes: Counter[str] = Counter()
    for _, tensor in tensors:
        sizes[tensor.dtype] += tensor.end - tensor.start
    quantised = sum(module.part is part for module in modules.values())
    plain = sum(name in weights and weights[name].linear and owner(name)[0] not in modules for name, _ in tensors)
    return PartSize(
        part=part,
        parameters=sum(parameters_in(name, tensor, modules) for name, tensor in tensors),
        bytes=sizes.total(),
        dtypes=tuple(dtype for dtype, _ in sizes.most_common()),
        quantised_layers=quantised,
        linear_layers=quantised + plain,
    )
