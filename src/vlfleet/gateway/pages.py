"""What the gateway answers by itself: models, health, readiness, metrics, version."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

import vlfleet
from vlfleet.fleet.replica import Phase, Replica
from vlfleet.gateway.access import ACCESS
from vlfleet.gateway.admission import refusal
from vlfleet.gateway.all_metrics import all_metrics
from vlfleet.gateway.pool import get
from vlfleet.gateway.state import GATEWAY, Gateway
from vlfleet.gateway.wire import WireError
from vlfleet.media.addresses import Urls

CARD_SECONDS, CARD_BYTES = 1.0, 1 << 20
"""To wait for, and to read of, what a replica says of itself."""


def json_response(payload: dict[str, Any], status: int = 200) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(payload), headers={"Content-Type": "application/json"})


async def models(request: web.Request) -> web.Response:
    """The one model that this fleet serves, whether or not a replica is ready. `vlfleet` tells clients what they need
    to count visual tokens and to bring pictures to the model's own size; `max_model_len` is there while a replica is
    ready that tells it."""
    gateway = request.app[GATEWAY]
    name = gateway.served_model_name
    card = {"id": name, "object": "model", "created": int(gateway.started_at), "owned_by": "vlfleet", "root": name}
    length = await max_model_len(gateway)
    told = {**card, "max_model_len": length, "vlfleet": vision_card(gateway)}
    return json_response({"object": "list", "data": [told]})


def vision_card(gateway: Gateway) -> dict[str, Any]:
    """How the engines see media, as `vlfleet.client.ModelInfo` reads it."""
    vision, fetcher = gateway.media.vision, gateway.fetcher
    return {
        "family": vision.family.model_type,
        "factor": vision.family.factor,
        "min_pixels": vision.image.min_pixels,
        "max_pixels": vision.image.max_pixels,
        "video_min_pixels": vision.video.min_pixels,
        "video_max_pixels": vision.video.max_pixels,
        "num_frames": vision.sampling.num_frames,
        "fps": vision.sampling.fps,
        "cap_pixels_per_frame": vision.cap_pixels_per_frame,
        "engine": gateway.replicas[0].engine if gateway.replicas else "",
        "fetches_urls": fetcher is not None and fetcher.policy.urls is Urls.PUBLIC,
    }


async def max_model_len(gateway: Gateway) -> int | None:
    """The shortest context that a ready replica says it has; None where none says so. Replicas differ after one was
    started again with less."""
    lengths = await asyncio.gather(*(context_of(gateway, each) for each in gateway.ready(())))
    return min((length for length in lengths if length), default=None)


async def context_of(gateway: Gateway, replica: Replica) -> int | None:
    try:
        _, page = await get(gateway.pool, replica.port, "/v1/models", replica.api_key, CARD_SECONDS, CARD_BYTES)
        length = orjson.loads(page)["data"][0]["max_model_len"]
    except (TimeoutError, WireError, ValueError, LookupError, TypeError):
        return None
    return length if isinstance(length, int) else None


async def health(request: web.Request) -> web.Response:
    """200 while the gateway lives; whether the fleet can answer is for /ready to say."""
    return web.Response()


async def ready(request: web.Request) -> web.Response:
    """200 when a request would be taken now, else 503; why, and the state of every replica, for those with a key."""
    gateway = request.app[GATEWAY]
    refused = refusal(gateway.replicas, draining=gateway.draining.is_set())
    now = time.time()
    payload: dict[str, Any] = {"ready": refused is None}
    if request.app[ACCESS].knows(request):
        payload["reason"] = refused.message if refused else ""
        payload["replicas"] = [replica_state(replica, now) for replica in gateway.replicas]
    response = json_response(payload, 503 if refused else 200)
    response.headers.update(refused.headers if refused else {})
    return response


def replica_state(replica: Replica, now: float) -> dict[str, Any]:
    since = replica.unhealthy_at or (replica.ready_at if replica.phase is Phase.READY else replica.started_at)
    return {
        "name": replica.name,
        "phase": replica.phase,
        "cordoned": replica.cordoned,
        "detail": replica.detail,
        "seconds": round(max(0.0, now - since), 1) if since else None,
        "restarts": replica.restarts,
        "error": replica.error,
        "in_flight": replica.in_flight,
    }


async def metrics(request: web.Request) -> web.Response:
    text = await all_metrics(request.app[GATEWAY])
    return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})


async def version(request: web.Request) -> web.Response:
    return json_response({"version": vlfleet.__version__})


def side_of(fleet: str, served_model_name: str) -> Callable[[web.Request], dict[str, Any]]:
    """What the page is told first. Where a key is asked for, whoever has none learns that, and no names."""

    def side(request: web.Request) -> dict[str, Any]:
        access = request.app[ACCESS]
        known = access.knows(request)
        return {
            "admin": False,
            "version": vlfleet.__version__ if known else "",
            "fleet": fleet if known else "",
            "served_model_name": served_model_name if known else "",
            "keyed": access.keyed,
        }

    return side
