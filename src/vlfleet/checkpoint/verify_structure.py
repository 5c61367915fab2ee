"""Whether a checkpoint's headers are what its index and its configuration promise. Reads nothing but headers."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from vlfleet.checkpoint.headers import BITS, Tensor, read_header
from vlfleet.checkpoint.inspection import expected_weights
from vlfleet.checkpoint.layout_expected import Weight
from vlfleet.checkpoint.layout_files import INDEX, Contents, duplicates
from vlfleet.checkpoint.quantization import Module, Quantization, detect
from vlfleet.checkpoint.quantization_layout import FLOATS, stored
from vlfleet.errors import VlfleetError


class Kind(enum.StrEnum):
    """What is wrong."""

    SHARD = "shard"
    OFFSETS = "offsets"
    INDEX = "index"
    DUPLICATE = "duplicate"
    MISSING = "missing"
    EXTRA = "extra"
    SHAPE = "shape"
    DTYPE = "dtype"
    NUMBERS = "numbers"
    ZEROS = "zeros"
    CHECKSUM = "checksum"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a checkpoint."""

    kind: Kind
    where: str
    """A file or a tensor."""
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def read_shards(shards: tuple[Path, ...]) -> tuple[dict[Path, list[Tensor]], list[Problem]]:
    """The tensors of every shard that is whole, and one problem for each that is not."""
    tensors: dict[Path, list[Tensor]] = {}
    problems = []
    for shard in shards:
        try:
            tensors[shard] = read_header(shard)
        except VlfleetError as error:
            problems.append(Problem(Kind.SHARD, shard.name, f"{error.cause}; {error.remedy}"))
    return tensors, problems


def check_shard(file: Path, tensors: list[Tensor]) -> Iterator[Problem]:
    """Whether the tensors lie one behind the other from the header's end to the file's."""
    with file.open("rb") as stream:
        end = 8 + int.from_bytes(stream.read(8), "little")
    for tensor in tensors:
        if tensor.dtype not in BITS:
            yield Problem(Kind.DTYPE, tensor.name, f"{tensor.dtype} in {file.name} is no dtype of safetensors")
        if tensor.start != end:
            how = "overlaps the one before" if tensor.start < end else f"leaves {tensor.start - end} bytes before it"
            yield Problem(Kind.OFFSETS, tensor.name, f"{how}, in {file.name}")
        end = max(end, tensor.end)


def check_index(contents: Contents, weight_map: Mapping[str, str]) -> Iterator[Problem]:
    """Whether the index names every tensor where it is, and none that is nowhere."""
    places = {tensor.name: tensor.file.name for tensor in contents.tensors}
    for name, file in weight_map.items():
        if name not in places:
            yield Problem(Kind.INDEX, name, f"{INDEX} puts it in {file}, no file has it")
        elif places[name] != file:
            yield Problem(Kind.INDEX, name, f"{INDEX} puts it in {file}, it is in {places[name]}")
    for name in places.keys() - weight_map.keys():
        yield Problem(Kind.INDEX, name, f"is in {places[name]}, but not in {INDEX}: engines do not load it")


def check_tensors(contents: Contents) -> Iterator[Problem]:
    """Whether there is every tensor of the configuration, and no other, each with its shape and a dtype that fits.

    Raises:
        VlfleetError: config.json lacks a size.
    """
    weights = expected_weights(contents)
    found = contents.by_hub_name
    for name in duplicates(contents):
        yield Problem(Kind.DUPLICATE, name, "is there more than once")
    quantization = detect(found, {name: weight.shape for name, weight in weights.items()})
    modules = {module.name: module for module in quantization.modules} if quantization else {}
    known: set[str] = set()
    for weight in weights.values():
        module = modules.get(weight.name.removesuffix(".weight")) if weight.linear else None
        known.add(weight.name)
        if module is None:
            yield from _check_weight(weight, found)
        else:
            yield from _check_quantised(weight, _as_most(module, quantization), found, known)
    for name in found.keys() - known:
        if not name.endswith(".rotary_emb.inv_freq"):  # a constant that old versions saved; engines leave it out
            yield Problem(Kind.EXTRA, found[name].name, "is no tensor of this model")


def _as_most(module: Module, quantization: Quantization | None) -> Module:
    """A layer without zero points among layers with them has lost its own."""
    if quantization is None or quantization.scheme.format is not module.scheme.format:
        return module
    return replace(module, scheme=replace(module.scheme, symmetric=quantization.scheme.symmetric))


def _check_weight(weight: Weight, found: Mapping[str, Tensor]) -> Iterator[Problem]:
    tensor = found.get(weight.name)
    if tensor is None:
        if not weight.optional:
            yield Problem(Kind.MISSING, weight.name, f"is in no file; it should have {_sizes(weight.shape)}")
    elif tensor.shape != weight.shape:
        yield _wrong_shape(tensor, weight.shape)
    elif tensor.dtype not in (*FLOATS, "F64"):
        yield Problem(Kind.DTYPE, tensor.name, f"is {tensor.dtype}, which nothing here says how to read")


def _check_quantised(weight: Weight, module: Module, found: Mapping[str, Tensor], known: set[str]) -> Iterator[Problem]:
    """Against the shape of config.json. Names that may be there are added to `known`."""
    for part in stored(module.scheme, *weight.shape):
        name = f"{module.name}.{part.suffix}"
        known.add(name)
        tensor = found.get(name)
        if tensor is None:
            if not part.optional:
                yield Problem(Kind.MISSING, name, "is in no file; its layer is quantised and cannot be read without")
        elif part.shapes and tensor.shape not in part.shapes:
            yield _wrong_shape(tensor, part.shapes[0])
        elif tensor.dtype not in part.dtypes:
            yield Problem(Kind.DTYPE, tensor.name, f"is {tensor.dtype}, {module.scheme} has {' or '.join(part.dtypes)}")


def _wrong_shape(tensor: Tensor, shape: tuple[int, ...]) -> Problem:
    return Problem(Kind.SHAPE, tensor.name, f"has {_sizes(tensor.shape)}, config.json says {_sizes(shape)}")


def _sizes(shape: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"
