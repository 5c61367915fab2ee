"""A checkpoint in the form of the hub, which every engine from vLLM 0.6, transformers 4.49 and SGLang on reads.

Nothing is computed: tensors get other names by another header before the same bytes, and shards that are as they should
be are shared with the source. What has the form already comes back byte for byte.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vlfleet import __version__
from vlfleet.checkpoint.destination import Destination, building
from vlfleet.checkpoint.destination_sink import Report, ignore
from vlfleet.checkpoint.headers import read_header
from vlfleet.checkpoint.info import read_json
from vlfleet.checkpoint.layout import adapter_tensors, hub_name
from vlfleet.checkpoint.layout_files import INDEX, Contents, duplicates, needs_index, read, section
from vlfleet.checkpoint.lint_files import PREPROCESSOR, PROCESSOR, TOKENIZER
from vlfleet.checkpoint.lint_tensors import FORMATS
from vlfleet.checkpoint.normalise_config import normal_config
from vlfleet.checkpoint.normalise_files import normal_preprocessor, normal_tokenizer, without_nested
from vlfleet.checkpoint.verify_manifest import JOURNAL, NAME
from vlfleet.checkpoint.writer import Planned, copied, metadata_of, write_shard
from vlfleet.checkpoint.writer_checkpoint import is_taken
from vlfleet.errors import VlfleetError

VIDEO_PREPROCESSOR = "video_preprocessor_config.json"


@dataclass(frozen=True)
class NormalisePlan:
    """What the new folder will hold."""

    source: Path
    changes: tuple[str, ...]
    """What differs from the source, one line each."""
    shards: tuple[Path, ...]
    rewritten: frozenset[Path] = field(repr=False)
    """Shards that get another header."""
    contents: dict[str, dict[str, Any]] = field(repr=False)
    """JSON files that differ from the source's, or are not there."""
    copied: tuple[Path, ...] = field(repr=False)
    """Small files that stay as they are."""
    names: dict[str, str] = field(repr=False)
    """The new name of every tensor that gets one."""

    @property
    def total_bytes(self) -> int:
        return sum(shard.stat().st_size for shard in self.shards)

    @property
    def written_bytes(self) -> int:
        """Of the shards that are written anew."""
        return sum(shard.stat().st_size for shard in self.rewritten)


@dataclass(frozen=True)
class Normalised:
    """How the shards came into the new folder."""

    linked: int
    """Hard-linked: the same file under two names."""
    cloned: int
    """Files of their own; on a filesystem with reflinks they share their blocks."""
    copied: int
    """Onto another filesystem."""
    rewritten: int


def plan_normalise(model: str | Path) -> NormalisePlan:
    """What has to change. Reads headers and small files only.

    Raises:
        VlfleetError: no checkpoint, none of a Qwen-VL model, a broken shard, an adapter that was not merged, or two
            tensors that would get the same name.
    """
    found = read(model)
    if adapters := adapter_tensors(tensor.name for tensor in found.tensors):
        cause = f"{adapters[0]} belongs to an adapter that was not merged"
        raise VlfleetError(cause, "merge_and_unload() of PEFT, then save_pretrained()")
    if twice := duplicates(found):
        cause = f"two tensors would be called {twice[0]}"
        raise VlfleetError(cause, "this folder mixes two checkpoints: download it again")
    names = {
        tensor.name: new for tensor in found.tensors if (new := hub_name(tensor.name, found.family)) != tensor.name
    }
    rewritten = {tensor.file for tensor in found.tensors if tensor.name in names}
    unmarked = {shard for shard in found.shards if _lacks_format(shard)}
    contents = _contents(found, names)
    changes = [f"{name}: {_told(found.path / name, content)}" for name, content in contents.items()]
    if names:
        old, new = next(iter(names.items()))
        changes.append(f"{len(names)} tensors get the hub's names: {old} -> {new}, ...")
    if unmarked:
        changes.append(f"{len(unmarked)} shards get the format into their header that transformers 4 asks for")
    return NormalisePlan(
        source=found.path,
        changes=tuple(changes),
        shards=found.shards,
        rewritten=frozenset(rewritten | unmarked),
        contents=contents,
        copied=tuple(_small_files(found, contents)),
        names=names,
    )


def write_normalised(plan: NormalisePlan, target: Path, report: Report = ignore) -> Normalised:
    """Write it as folder `target`, which must not exist. The source stays as it is.

    A crash leaves only a hidden folder beside `target`, from which the same call goes on.

    Raises:
        VlfleetError: see `building`.
    """
    elsewhere = target.expanduser().absolute().parent
    same_disk = elsewhere.is_dir() and elsewhere.stat().st_dev == plan.shards[0].stat().st_dev
    needed = plan.written_bytes if same_disk else plan.total_bytes
    recipe = {"command": "normalise", "version": __version__}
    with building(target, plan.source, recipe, needed, report) as destination:
        for shard in plan.shards:
            if shard not in plan.rewritten:
                destination.carry(shard)
            elif not destination.has(shard.name, shard):
                with destination.writing(shard.name, shard) as sink:
                    write_shard(sink, shard, _planned(shard, plan.names), _metadata(shard))
        for file in plan.copied:
            destination.copy(file)
        for name, content in plan.contents.items():
            destination.write_text(name, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        how = Counter(_how(shard, destination) for shard in plan.shards if shard not in plan.rewritten)
        destination.publish()
    return Normalised(how["linked"], how["cloned"], how["copied"], len(plan.rewritten))


def _how(shard: Path, destination: Destination) -> str:
    then, now = shard.stat(), (destination.files / shard.name).stat()
    if then.st_dev != now.st_dev:
        return "copied"
    return "linked" if then.st_ino == now.st_ino else "cloned"


def _planned(shard: Path, names: dict[str, str]) -> list[Planned]:
    return [replace(copied(tensor), name=names.get(tensor.name, tensor.name)) for tensor in read_header(shard)]


def _lacks_format(shard: Path) -> bool:
    metadata = metadata_of(shard)
    return bool(metadata) and metadata.get("format") not in FORMATS


def _metadata(shard: Path) -> dict[str, str]:
    return {**metadata_of(shard), **({"format": "pt"} if _lacks_format(shard) else {})}


def _contents(found: Contents, names: dict[str, str]) -> dict[str, dict[str, Any]]:
    """The JSON files that have to differ from what is there."""
    made: dict[str, dict[str, Any] | None] = {"config.json": _config(found), **_processor_files(found)}
    if (found.path / TOKENIZER).is_file():
        made[TOKENIZER] = normal_tokenizer(read_json(found.path / TOKENIZER), _template(found.path))
    if needs_index(found):
        made[INDEX] = _index(found, names)
    return {
        name: content
        for name, content in made.items()
        if content is not None and content != (read_json(found.path / name) if (found.path / name).is_file() else None)
    }


def _config(found: Contents) -> dict[str, Any]:
    sizes: Counter[str] = Counter()
    for tensor in found.tensors:
        sizes[tensor.dtype] += tensor.end - tensor.start
    return normal_config(found.config, found.family, sizes.most_common(1)[0][0] if sizes else "")


def _processor_files(found: Contents) -> dict[str, dict[str, Any] | None]:
    """transformers 5 puts image and video processor into processor_config.json, where older versions do not look."""
    processor = read_json(found.path / PROCESSOR) if (found.path / PROCESSOR).is_file() else {}
    made: dict[str, dict[str, Any] | None] = {}
    preprocessor = read_json(found.path / PREPROCESSOR) if (found.path / PREPROCESSOR).is_file() else None
    if preprocessor is None:
        preprocessor = section(processor, "image_processor") or None
    if preprocessor is not None:
        made[PREPROCESSOR] = normal_preprocessor(preprocessor, found.family)
    video = section(processor, "video_processor")
    if video and not (found.path / VIDEO_PREPROCESSOR).is_file():
        made[VIDEO_PREPROCESSOR] = video
    if processor:
        made[PROCESSOR] = without_nested(processor)
    return made


def _template(folder: Path) -> str:
    """The chat template in a file of its own."""
    if (folder / "chat_template.jinja").is_file():
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    if (folder / "chat_template.json").is_file():
        return str(read_json(folder / "chat_template.json").get("chat_template", ""))
    return ""


def _index(found: Contents, names: dict[str, str]) -> dict[str, Any]:
    """As it is when it is right; else with every tensor where it is."""
    index = read_json(found.path / INDEX) if (found.path / INDEX).is_file() else {}
    places = {names.get(tensor.name, tensor.name): tensor.file.name for tensor in found.tensors}
    if section(index, "weight_map") == places:
        return index
    total = sum(tensor.end - tensor.start for tensor in found.tensors)
    metadata = {**section(index, "metadata"), "total_size": total}
    return {**index, "metadata": metadata, "weight_map": dict(sorted(places.items()))}


def _small_files(found: Contents, contents: dict[str, dict[str, Any]]) -> list[Path]:
    """What lies beside the shards and stays as it is; other weights, hidden files and the old checksums do not."""
    left = {*contents, NAME, NAME + JOURNAL}
    return sorted(file for file in found.path.iterdir() if is_taken(file) and file.name not in left)


def _told(file: Path, content: dict[str, Any]) -> str:
    """Which keys change, for a person."""
    if not file.is_file():
        return "written"
    old = read_json(file)
    gone = [key for key in old if key not in content]
    new = [key for key in content if key not in old]
    other = [key for key in content if key in old and content[key] != old[key]]
    parts = (("without", gone), ("with", new), ("other", other))
    return "; ".join(f"{word} {', '.join(keys[:8])}{', ...' * (len(keys) > 8)}" for word, keys in parts if keys)
