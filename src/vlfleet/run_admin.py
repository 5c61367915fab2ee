"""What the admin port of a running fleet answers, put together from its supervisor, its gateway and its watcher."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

import vlfleet
from vlfleet.engine.launch import Engine
from vlfleet.fleet.chosen import kept
from vlfleet.fleet.facts import facts_of
from vlfleet.fleet.folder import FleetFolder
from vlfleet.fleet.running import running
from vlfleet.fleet.spec import FleetSpec
from vlfleet.fleet.supervisor import Supervisor
from vlfleet.gateway.access import ACCESS
from vlfleet.gateway.admin import build_admin, new_token
from vlfleet.gateway.admin_alerts import alert_routes
from vlfleet.gateway.admin_forward import Forward
from vlfleet.gateway.admin_logs import logs_route
from vlfleet.gateway.admin_plan import plan_routes
from vlfleet.gateway.admin_report import report_route
from vlfleet.gateway.all_metrics import all_metrics
from vlfleet.gateway.assets import installed, side_routes
from vlfleet.gateway.flights import in_hand
from vlfleet.gateway.live import Live
from vlfleet.gateway.pages import json_response
from vlfleet.gateway.state import GATEWAY
from vlfleet.watch.glance import glance
from vlfleet.watch.watcher import Watcher


def admin_of(
    folder: FleetFolder,
    supervisor: Supervisor,
    engine: Engine,
    app: web.Application,
    watcher: Watcher,
    orders: Mapping[str, Handler],
) -> web.Application:
    """The admin of the fleet before which the gateway `app` stands, with a token of its own in `folder`; `orders` are
    POST paths and what takes them.

    Raises:
        OSError: the token cannot be kept.
    """
    spec = supervisor.spec

    def facts() -> dict[str, Any]:
        return facts_of(supervisor.state)

    live = Live(lambda: glance(facts(), watcher.window, watcher.book, in_hand(app[GATEWAY]), time.time()))
    forward = Forward(app, lambda: supervisor.spec.url)
    routes = [
        *told(facts, lambda: all_metrics(app[GATEWAY])),
        *live.routes(),
        *forward.routes(),
        *alert_routes(lambda: watcher.book, watcher.acknowledge, watcher.silence),
        *plan_routes(str(spec.model), lambda why: running(supervisor.state, engine, why), lambda: kept(folder, spec)),
        logs_route(lambda: {replica.name for replica in supervisor.replicas}, folder.log),
        report_route(spec.name),
        *(web.post(path, handler) for path, handler in orders.items()),
    ]
    side = lambda request: side_of(supervisor.spec, keyed=app[ACCESS].keyed)  # noqa: E731
    opened = [*installed().routes(), *side_routes(side, spec.served_model_name)]
    admin = build_admin(new_token(folder.admin_token), routes, opened)
    admin.cleanup_ctx.append(forward.context)
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
