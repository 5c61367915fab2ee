"""The model that a plan is made for, from a folder, a config.json or the name of a published one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlfleet.checkpoint.quantization import Format, Scheme, Strategy
from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.families import KNOWN_FAMILIES, Family
from vlfleet.plan import legality, published
from vlfleet.plan.quantized import Quantized
from vlfleet.plan.shape import ModelShape, read_shape

_FORMATS = {
    "awq": Format.AWQ,
    "gptq": Format.GPTQ,
    "packed": Format.PACKED,
    "fp8": Format.FP8,
    "int8": Format.INT8,
    "bnb4": Format.BNB_4BIT,
    "bnb8": Format.BNB_8BIT,
}


@dataclass(frozen=True)
class Model:
    """Everything that a plan asks of a checkpoint."""

    name: str
    """What `vlfleet up` is called with."""
    config: dict[str, Any]
    family: Family
    shape: ModelShape
    """As the checkpoint is."""
    scheme: Scheme | None
    """How its linear layers are stored; None: 16 bits."""
    max_pixels: int
    """Of its processor."""
    source: str
    """Where this is from, for a person."""
    path: Path | None = None

    @property
    def rules(self) -> legality.Shape:
        """What the rules of tensor parallelism ask for."""
        return legality.Shape.of(self.config, self.family)

    @property
    def quantised(self) -> str:
        """A word for how the weights are stored: "bf16", "awq 4 bits", "fp8"."""
        found = self.shape.quantized
        if found is None:
            return "bf16"
        return found.kind if found.bits == 8 else f"{found.kind} {found.bits} bits"

    def shaped(self, quantization: str | None) -> ModelShape:
        """With --quantization; the checkpoint's own for None."""
        return read_shape(self.config, quantization) if quantization else self.shape


def read_model(text: str) -> Model:
    """A folder (its headers are read), a config.json, or the name of a published model (see `published`).

    Raises:
        VlfleetError: it is none of these, or not of a Qwen-VL model.
    """
    path = Path(text).expanduser()
    if path.is_dir():
        return _from_folder(text, path)
    if path.is_file():
        folder = str(path.parent) if path.name == "config.json" else text
        return of_config(folder, _read(path), f"{path.name} alone: no weights were looked at")
    name, config = published.find(text)
    return of_config(name, config, "the published configuration: no weights were looked at")


def of_config(name: str, config: dict[str, Any], source: str) -> Model:
    """The model that config.json describes.

    Raises:
        VlfleetError: it is not of a Qwen-VL model, or lacks a size.
    """
    shape = read_shape(config)
    family = KNOWN_FAMILIES[shape.model_type]
    return Model(name, config, family, shape, scheme_of(shape.quantized), family.max_pixels, source)


def scheme_of(found: Quantized | None) -> Scheme | None:
    """The planner's scheme in the words of `checkpoint.quantization`."""
    if found is None:
        return None
    strategy = Strategy.CHANNEL
    if found.group_size:
        strategy = Strategy.GROUP
    elif found.block[0]:
        strategy = Strategy.BLOCK
    elif found.per_tensor:
        strategy = Strategy.TENSOR
    return Scheme(_FORMATS[found.kind], found.bits, strategy, found.group_size, found.block, found.symmetric)


def _from_folder(text: str, path: Path) -> Model:
    from vlfleet.checkpoint.inspection import inspect

    found = inspect(path)
    shape = read_shape(found.config)
    pixels = found.max_pixels or found.family.max_pixels
    scheme = found.scheme or scheme_of(shape.quantized)
    return Model(text, found.config, found.family, shape, scheme, pixels, "its headers", found.path)


def _read(file: Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("it holds no JSON object")
    except (OSError, ValueError) as error:
        raise VlfleetError(f"{file} is no config.json: {error}", "give a model's config.json", ExitCode.USAGE) from None
    return config
