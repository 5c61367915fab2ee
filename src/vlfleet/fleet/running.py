"""What a fleet runs, for a person who wants to see or repeat it: no key is among it."""

from __future__ import annotations

from typing import Any

from vlfleet.engine.launch import Engine, EngineSpec
from vlfleet.fleet.replica import Replica
from vlfleet.fleet.state import FleetState

MASK = "***"


def running(state: FleetState, engine: Engine, why: str) -> dict[str, Any]:
    """The layout, what was said of the engine, and each replica's command; `why` is the line of the plan that chose it,
    empty where none did."""
    spec = state.spec
    options = {name: value for name, value in vars(spec.options).items() if value is not None}
    said = bool(options or spec.engine_args)
    size = spec.tensor_parallel_size, spec.pipeline_parallel_size
    return {
        "engine": spec.engine,
        "model": str(spec.model),
        "served_model_name": spec.served_model_name,
        "layout": f"{spec.replicas} x TP{size[0]}" + (f" x PP{size[1]}" if size[1] > 1 else ""),
        "tensor_parallel_size": size[0],
        "pipeline_parallel_size": size[1],
        "options": options,
        "engine_args": list(spec.engine_args),
        "chosen_by": "plan" if why else "person" if said else "default",
        "why": why,
        "replicas": [_replica(each, state.healed.get(each.name, spec.engine_spec), engine) for each in state.replicas],
    }


def _replica(replica: Replica, spec: EngineSpec, engine: Engine) -> dict[str, Any]:
    launch = engine.launch(spec, replica.placement, replica.port, MASK)
    env = {name: MASK if name in launch.secrets else value for name, value in launch.env.items()}
    return {
        "name": replica.name,
        "gpus": list(replica.placement.gpus),
        "command": list(launch.argv),
        "env": env,
        "adjusted": replica.adjusted,
    }
