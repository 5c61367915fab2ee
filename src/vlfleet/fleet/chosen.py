"""The plan that chose what a fleet runs, kept in its folder: a supervisor that takes a fleet over knows it, too."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import orjson

from vlfleet.files import replace_private
from vlfleet.fleet.folder import FleetFolder
from vlfleet.fleet.spec import FleetSpec

FILE = "plan.json"


def keep(folder: FleetFolder, spec: FleetSpec, plan: dict[str, Any], why: str, memory_svg: str) -> None:
    """Keeps `plan`, as `vlfleet plan --json` has it, as the one that led to `spec`.

    Raises:
        OSError: it cannot be written.
    """
    kept = {**plan, "why": why, "memory_svg": memory_svg, "chose": _digest(spec)}
    replace_private(folder.path / FILE, orjson.dumps(kept))


def kept(folder: FleetFolder, spec: FleetSpec) -> dict[str, Any] | None:
    """The plan, with its `why` and `memory_svg`; None where no plan chose what runs now."""
    try:
        found = orjson.loads((folder.path / FILE).read_bytes())
        if isinstance(found, dict) and found.pop("chose") == _digest(spec):
            return found
    except (OSError, ValueError, KeyError):
        pass
    return None


def _digest(spec: FleetSpec) -> str:
    """Of what a plan decides; threads are none of it."""
    engine, replicas, engine_spec = spec.engine_part
    part = (engine, replicas, replace(engine_spec, threads=0))
    return hashlib.blake2b(orjson.dumps(part, default=str), digest_size=16).hexdigest()
