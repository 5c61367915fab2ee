"""Folders that vLLM takes for checkpoints: a config.json of ours beside the files of another folder, no weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vlfleet import demo
from vlfleet.checkpoint.normalise_files import PROCESSORS
from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.families import Family
from vlfleet.plan.model import Model

_TOKENIZER = ("chat_template.jinja", "merges.txt", "tokenizer.json", "tokenizer_config.json", "vocab.json")
_IDS = "_token_id"
_UNSAID = {"hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 1_000_000.0, "use_sliding_window": False}
"""What `plan.published` leaves out of config.json, as all Qwen2-VL and Qwen2.5-VL on the hub have it."""


def write(folder: Path, model: Model, config: dict[str, Any]) -> Path:
    """`folder` with `config`, and all else that an engine asks for as links to the model's own files.

    A model that is known by its name alone gets the tokenizer of the bundled model: what the tokens mean plays no part
    where the weights are made up (--load-format dummy).

    Raises:
        VlfleetError: exit code 2, the bundled tokenizer does not suit this family.
    """
    folder.mkdir(parents=True)
    if model.path is not None:
        for file in model.path.iterdir():
            if file.is_file() and file.name != "config.json":
                (folder / file.name).symlink_to(file.resolve())
        _write(folder / "config.json", config)
        return folder
    if model.family.model_type not in PROCESSORS:
        cause = f"there is no tokenizer here for {model.name}"
        raise VlfleetError(cause, "give its folder; config, tokenizer and processor are enough", ExitCode.USAGE)
    bundled = demo.model_path()
    for name in _TOKENIZER:
        (folder / name).symlink_to(bundled / name)
    ids = {key: value for key, value in _read(bundled / "config.json").items() if key.endswith(_IDS)}
    _write(folder / "config.json", {**_UNSAID, **config, **ids})
    _write(folder / "preprocessor_config.json", _processor(_read(bundled / "preprocessor_config.json"), model.family))
    return folder


def _processor(bundled: dict[str, Any], family: Family) -> dict[str, Any]:
    """With the family's own limits: the bundled model sees small pictures only."""
    size = {"shortest_edge": family.min_pixels, "longest_edge": family.max_pixels}
    limits = {"min_pixels": family.min_pixels, "max_pixels": family.max_pixels, "size": size}
    return {**bundled, **limits, "processor_class": PROCESSORS[family.model_type]}


def _read(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text(encoding="utf-8")))


def _write(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
