"""The state file: what a fleet is, for its next supervisor and for every other command."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import orjson

from vlfleet.engine.launch import EngineOptions, EngineSpec, Placement
from vlfleet.files import replace_private
from vlfleet.fleet.folder import FleetFolder
from vlfleet.fleet.processes import EngineProcess, ProcessId
from vlfleet.fleet.replica import Phase, Replica
from vlfleet.fleet.spec import FleetSpec

SCHEMA = 5
Status = Literal["serving", "draining", "stopped", "failed"]
Record = TypeVar("Record")
Spec = TypeVar("Spec", FleetSpec, EngineSpec)


@dataclass
class FleetState:
    """One fleet as its supervisor sees it. Holds the replicas' keys: the file is for its owner only."""

    spec: FleetSpec
    supervisor: ProcessId
    started_at: float
    """Seconds since the epoch."""
    status: Status = "serving"
    error: str = ""
    """Why it ended, when `status` is failed."""
    replicas: list[Replica] = field(default_factory=list)
    processes: dict[str, EngineProcess] = field(default_factory=dict)
    """By the replica's name; one that does not run has none."""
    healed: dict[str, EngineSpec] = field(default_factory=dict)
    """By the replica's name: what it is started with, where that had to be smaller than the fleet's own."""

    def to_json(self) -> bytes:
        return orjson.dumps({"schema": SCHEMA, **{f.name: getattr(self, f.name) for f in fields(self)}}, default=str)


def save(folder: FleetFolder, state: bytes, *, durable: bool = True) -> None:
    """Replaces the state file at once: a reader sees the old one or the new one. `durable` survives a power cut."""
    replace_private(folder.state, state, durable=durable)


def load(folder: FleetFolder) -> FleetState | None:
    """The fleet's state, or None when there is none.

    Raises:
        ValueError: the file is damaged or of another version; the text is one line that says so.
    """
    try:
        raw = folder.state.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        facts = orjson.loads(raw)
        if facts.pop("schema") != SCHEMA:
            raise ValueError("written by another version of vlfleet")
        return _read(facts)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        why = str(error) if type(error) is ValueError else "damaged"
        raise ValueError(f"{folder.state} is {why}; it is treated as no fleet") from None


def _read(facts: dict[str, Any]) -> FleetState:
    spec = _record(FleetSpec, facts["spec"])
    replicas = [_record(Replica, each) for each in facts["replicas"]]
    for replica, each in zip(replicas, facts["replicas"], strict=True):
        replica.phase = Phase(replica.phase)
        replica.placement = _record(Placement, {**each["placement"], "gpus": tuple(each["placement"]["gpus"])})
    processes = {
        name: EngineProcess(_record(ProcessId, each["engine"]), _record(ProcessId, each["shim"]), str(each["mark"]))
        for name, each in facts["processes"].items()
    }
    return FleetState(
        spec=_typed(spec),
        supervisor=_record(ProcessId, facts["supervisor"]),
        started_at=float(facts["started_at"]),
        status=facts["status"],
        error=str(facts["error"]),
        replicas=replicas,
        processes=processes,
        healed={name: _typed(_record(EngineSpec, each)) for name, each in facts["healed"].items()},
    )


def _typed(spec: Spec) -> Spec:
    """A spec whose fields are what JSON makes of them, made whole again."""
    options: Any = spec.options
    return replace(
        spec, model=Path(spec.model), engine_args=tuple(spec.engine_args), options=_record(EngineOptions, options)
    )


def _record(kind: type[Record], facts: dict[str, Any]) -> Record:
    """A dataclass from what `orjson` made of it; a field that is missing or unknown is a TypeError."""
    return kind(**facts)
