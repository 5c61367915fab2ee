"""A folder that looks to vLLM like the checkpoint of a config.json: the configuration and headers, no weights."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlfleet.plan.oracle.weight_formats import headers


def folder_of(model: Path | Mapping[str, Any], scratch: Path) -> Path:
    """The folder to name to vLLM: `model` itself if it has headers, else one below `scratch`, the same for the same.

    Raises:
        OSError, ValueError: config.json cannot be read, or the folder not be written.
        VlfleetError: config.json lacks a size.
    """
    if isinstance(model, Path):
        if any(model.glob("*.safetensors")):
            return model
        config: Mapping[str, Any] = json.loads((model / "config.json").read_text(encoding="utf-8"))
    else:
        config = model
    text = json.dumps(config)
    made = scratch / hashlib.sha256(text.encode()).hexdigest()[:16]
    if not made.exists():
        tensors = headers(config)
        made.mkdir(parents=True)
        (made / "config.json").write_text(text, encoding="utf-8")
        if tensors:
            (made / "model.safetensors").write_bytes(_empty_tensors(tensors))
    return made


def _empty_tensors(dtypes: Mapping[str, str]) -> bytes:
    """A safetensors file of these names and dtypes, each without an element."""
    entries = {name: {"dtype": dtype, "shape": [0], "data_offsets": [0, 0]} for name, dtype in dtypes.items()}
    header = json.dumps(entries).encode()
    return struct.pack("<Q", len(header)) + header
