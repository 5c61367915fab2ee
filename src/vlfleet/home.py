"""Where vlfleet keeps what outlives a command: fleets, and what was asked before."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """$VLFLEET_HOME, else $XDG_STATE_HOME/vlfleet, else ~/.local/state/vlfleet."""
    if value := os.environ.get("VLFLEET_HOME"):
        return Path(value).expanduser().absolute()
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser().absolute() / "vlfleet"
