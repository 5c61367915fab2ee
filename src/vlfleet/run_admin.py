"""What the admin port of a running fleet answers, put together from its supervisor, its gateway and its watcher."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

import vlfleet
from vlfleet.fleet.facts import facts_of
from vlfleet.fleet.spec import FleetSpec
from vlfleet.fleet.supervisor import Supervisor
from vlfleet.gateway.access import ACCESS
from vlfleet.gateway.admin import build_admin
from vlfleet.gateway.all_metrics import all_metrics
from vlfleet.gateway.assets import installed, side_routes
from vlfleet.gateway.flights import in_hand
from vlfleet.gateway.live import Live
from vlfleet.gateway.pages import json_response
from vlfleet.gateway.state import GATEWAY
from vlfleet.watch.glance import glance
from vlfleet.watch.watcher import Watcher


def admin_of(
    token: str, supervisor: Supervisor, app: web.Application, watcher: Watcher, orders: Mapping[str, Handler]
) -> web.Application:
    """The admin of the fleet before which the gateway `app` stands; `orders` are POST paths and what takes them."""
    facts = lambda: facts_of(supervisor.state)  # noqa: E731
    live = Live(lambda: glance(facts(), watcher.window, watcher.book, in_hand(app[GATEWAY]), time.time()))
    routes = [
        *told(facts, lambda: all_metrics(app[GATEWAY])),
        *live.routes(),
        *(web.post(path, handler) for path, handler in orders.items()),
    ]
    side = lambda request: side_of(supervisor.spec, keyed=app[ACCESS].keyed)  # noqa: E731
    opened = [*installed().routes(), *side_routes(side, supervisor.spec.served_model_name)]
    admin = build_admin(token, routes, opened)
    admin.on_shutdown.append(live.close)
    return admin


def side_of(spec: FleetSpec, *, keyed: bool) -> dict[str, Any]:
    """What the page is told first."""
    return {
        "admin": True,
        "version": vlfleet.__version__,
        "fleet": spec.name,
        "served_model_name": spec.served_model_name,
        "keyed": keyed,
    }


def told(facts: Callable[[], dict[str, Any]], metrics: Callable[[], Awaitable[bytes]]) -> list[web.RouteDef]:
    """GET /fleet, as `vlfleet status --json`, and GET /metrics."""

    async def fleet(request: web.Request) -> web.Response:
        return json_response(facts())

    async def measures(request: web.Request) -> web.Response:
        return web.Response(body=await metrics(), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    return [web.get("/fleet", fleet), web.get("/metrics", measures)]
