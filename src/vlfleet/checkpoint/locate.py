"""From what a person calls a model to the folder that holds it."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from vlfleet.errors import ExitCode, VlfleetError

_HUB_NAME = re.compile(r"^[\w.-]+/[\w.-]+$")


def locate(model: str | Path) -> Path:
    """The folder of a checkpoint: a path, or a name on the Hugging Face hub, which is downloaded unless it is cached.

    Raises:
        VlfleetError: no such folder, or the hub did not give it.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if folder.is_file():
        raise VlfleetError(f"{model} is a file", "give the folder that holds config.json", ExitCode.USAGE)
    if not _HUB_NAME.match(str(model)):
        raise VlfleetError(f"{model} does not exist", "give a checkpoint folder or a hub name", ExitCode.USAGE)
    return _from_hub(str(model))


def _from_hub(name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ImportError:
        remedy = "give a folder, or pip install 'vlfleet[embedded]' to download from the hub"
        raise VlfleetError(f"{name} is no folder here", remedy, ExitCode.USAGE) from None
    try:
        with contextlib.suppress(LocalEntryNotFoundError):
            return Path(snapshot_download(name, local_files_only=True))
        return Path(snapshot_download(name, ignore_patterns=["*.bin", "*.pth", "original/*"]))
    except Exception as error:  # the hub client raises its own, requests' and OS errors; each is one line for a person
        cause = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        remedy = "check the name and the network, log in with `hf auth login` if it is gated, or give a local folder"
        raise VlfleetError(f"{name} is neither a folder here nor to be had from the hub: {cause}", remedy) from None
