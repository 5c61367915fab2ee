"""What a fleet tells of itself: to `vlfleet status`, and to whoever asks its admin port."""

from __future__ import annotations

import time
from typing import Any

import vlfleet
from vlfleet.fleet.replica import Replica
from vlfleet.fleet.startup import so_far
from vlfleet.fleet.state import FleetState


def facts_of(state: FleetState, *, supervised: bool = True) -> dict[str, Any]:
    """Everything that may be shown: no key is among it."""
    spec = state.spec
    replicas = [_replica(replica) for replica in state.replicas]
    ready = sum(replica.in_rotation for replica in state.replicas) if supervised else 0
    return {
        "fleet": spec.name,
        "status": state.status if supervised else "abandoned",
        "url": f"{spec.url}/v1",
        "admin_url": f"http://127.0.0.1:{spec.admin_port}" if supervised and spec.admin_port else None,
        "model": str(spec.model),
        "served_model_name": spec.served_model_name,
        "engine": spec.engine,
        "version": vlfleet.__version__,
        "policy": spec.policy,
        "threads": spec.threads,
        "supervisor_pid": state.supervisor.pid if supervised else None,
        "started_at": state.started_at,
        "ready": ready,
        "replicas": replicas,
    }


def _replica(replica: Replica) -> dict[str, Any]:
    now = time.time()
    return {
        "name": replica.name,
        "phase": replica.phase.value,
        "cordoned": replica.cordoned,
        "engine": replica.engine,
        "detail": replica.detail,
        "pid": replica.pid or None,
        "port": replica.port or None,
        "gpus": list(replica.placement.gpus),
        "started_at": replica.started_at,
        "start_seconds": round(replica.ready_at - replica.started_at, 1) if replica.ready_at else None,
        "up_seconds": round(now - replica.ready_at, 1) if replica.phase == "ready" else None,
        "unhealthy_seconds": round(now - replica.unhealthy_at, 1) if replica.unhealthy_at else None,
        "restarts": replica.restarts,
        "in_flight": replica.in_flight,
        "served": replica.served,
        "error": replica.error,
        "adjusted": replica.adjusted,
        "phases": {name: round(seconds, 1) for name, seconds in so_far(replica, now).items()},
        "decisions": replica.decisions,
    }
