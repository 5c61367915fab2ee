"""Writes a checkpoint that differs from its source in some tensors: shards, configuration, index, and all the rest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlfleet import __version__
from vlfleet.checkpoint.destination import Destination, building
from vlfleet.checkpoint.destination_sink import Report, ignore
from vlfleet.checkpoint.info import read_json
from vlfleet.checkpoint.layout_files import INDEX
from vlfleet.checkpoint.verify_manifest import NAME as MANIFEST
from vlfleet.checkpoint.writer import Planned, aligned, header, metadata_of, write_shard

_OTHER_WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".gguf", ".onnx", ".h5", ".msgpack"}


@dataclass(frozen=True)
class Rewrite:
    """What a new checkpoint will hold."""

    source: Path
    config: Mapping[str, Any] = field(repr=False)
    """config.json."""
    shards: Mapping[Path, tuple[Planned, ...]] = field(repr=False)
    """Every safetensors file of the source, with the tensors that the file of that name will hold."""
    changed: frozenset[Path] = field(repr=False)
    """Those that are written anew; the others are shared with the source."""

    @property
    def written_bytes(self) -> int:
        """Of the shards that are written anew: the room that they take."""
        return sum(_size(shard, tensors) for shard, tensors in self.shards.items() if shard in self.changed)

    @property
    def total_bytes(self) -> int:
        """Of all shards: what the progress counts up to."""
        return sum(_size(shard, tensors) for shard, tensors in self.shards.items())

    @property
    def left_out(self) -> list[str]:
        """What lies in the source's folder and is not taken along: folders, and weights that no index names."""
        return [file.name for file in _others(self) if not is_taken(file)]


def write_checkpoint(plan: Rewrite, target: Path, recipe: Mapping[str, object], report: Report = ignore) -> None:
    """Write it as folder `target`, which must not exist; the source stays as it is.

    Streams: at most a few MiB of any tensor are in memory. A crash leaves only a hidden folder beside `target`, from
    which the same call, with the same `recipe`, goes on.

    Raises:
        VlfleetError: see `building`.
    """
    recipe = {"version": __version__, **recipe}
    with building(target, plan.source, recipe, plan.written_bytes, report) as destination:
        for shard, tensors in plan.shards.items():
            if shard not in plan.changed:
                destination.carry(shard)
            elif not destination.has(shard.name, shard):
                with destination.writing(shard.name, shard) as sink:
                    write_shard(sink, shard, tensors, metadata_of(shard))
        _write_small_files(plan, destination)
        destination.publish()


def _write_small_files(plan: Rewrite, destination: Destination) -> None:
    destination.write_text("config.json", json.dumps(plan.config, indent=2) + "\n")
    if (plan.source / INDEX).is_file():
        metadata = read_json(plan.source / INDEX).get("metadata") or {}
        total = sum(tensor.bytes for tensors in plan.shards.values() for tensor in tensors)
        places = {tensor.name: shard.name for shard, tensors in plan.shards.items() for tensor in tensors}
        index = {"metadata": {**metadata, "total_size": total}, "weight_map": dict(sorted(places.items()))}
        destination.write_text(INDEX, json.dumps(index, indent=2) + "\n")
    for file in _others(plan):
        if is_taken(file):
            destination.copy(file)


def _others(plan: Rewrite) -> list[Path]:
    """What is in the folder besides shards, configuration and index; hidden entries are not the checkpoint's."""
    known = {shard.name for shard in plan.shards} | {"config.json", INDEX, MANIFEST}  # whose checksums are the source's
    return sorted(file for file in plan.source.iterdir() if file.name not in known and not file.name.startswith("."))


def is_taken(file: Path) -> bool:
    """Whether a file besides shards, configuration and index belongs to the checkpoint: all but other weights."""
    return not file.name.startswith(".") and file.is_file() and file.suffix not in _OTHER_WEIGHTS


def _size(shard: Path, tensors: tuple[Planned, ...]) -> int:
    return sum(tensor.bytes for tensor in tensors) + len(header(aligned(tensors), metadata_of(shard)))
