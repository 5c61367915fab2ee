"""What the gateway answers by itself: models, health, readiness, metrics, version."""

from __future__ import annotations

import time
from typing import Any

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

import vlfleet
from vlfleet.fleet.replica import Phase, Replica
from vlfleet.gateway.admission import refusal
from vlfleet.gateway.state import GATEWAY


def json_response(payload: dict[str, Any], status: int = 200) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(payload), headers={"Content-Type": "application/json"})


async def models(request: web.Request) -> web.Response:
    """The one model that this fleet serves, whether or not a replica is ready."""
    gateway = request.app[GATEWAY]
    name = gateway.served_model_name
    card = {"id": name, "object": "model", "created": int(gateway.started_at), "owned_by": "vlfleet", "root": name}
    return json_response({"object": "list", "data": [card]})


async def health(request: web.Request) -> web.Response:
    """200 while the gateway lives; whether the fleet can answer is for /ready to say."""
    return web.Response()


async def ready(request: web.Request) -> web.Response:
    """200 when a request would be taken now, else 503; the state of every replica in both cases."""
    gateway = request.app[GATEWAY]
    refused = refusal(gateway.replicas, draining=gateway.draining.is_set())
    now = time.time()
    payload: dict[str, Any] = {
        "ready": refused is None,
        "reason": refused.message if refused else "",
        "replicas": [replica_state(replica, now) for replica in gateway.replicas],
    }
    response = json_response(payload, 503 if refused else 200)
    response.headers.update(refused.headers if refused else {})
    return response


def replica_state(replica: Replica, now: float) -> dict[str, Any]:
    since = replica.unhealthy_at or (replica.ready_at if replica.phase is Phase.READY else replica.started_at)
    return {
        "name": replica.name,
        "phase": replica.phase,
        "detail": replica.detail,
        "seconds": round(max(0.0, now - since), 1) if since else None,
        "restarts": replica.restarts,
        "error": replica.error,
        "in_flight": replica.in_flight,
    }


async def metrics(request: web.Request) -> web.Response:
    text = request.app[GATEWAY].metrics.text()
    return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})


async def version(request: web.Request) -> web.Response:
    return json_response({"version": vlfleet.__version__})
