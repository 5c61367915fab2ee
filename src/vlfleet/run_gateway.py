"""The two ports of a running fleet: the gateway's for clients, and the admin's for its owner."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING

from aiohttp import web

from vlfleet import gateway
from vlfleet.checkpoint import preflight
from vlfleet.engine.launch import Engine
from vlfleet.errors import VlfleetError
from vlfleet.families import PixelLimits
from vlfleet.fleet.control import Control
from vlfleet.fleet.folder import FleetFolder
from vlfleet.fleet.spec import FleetSpec, is_loopback
from vlfleet.fleet.supervisor import Supervisor
from vlfleet.gateway import EngineMedia
from vlfleet.gateway.access import Access
from vlfleet.gateway.keys import Keyring
from vlfleet.gateway.route.cost import Coefficients
from vlfleet.gateway.state import GATEWAY
from vlfleet.media import Vision
from vlfleet.media.addresses import FetchPolicy, Urls
from vlfleet.run_admin import admin_of
from vlfleet.watch.alerts import all_rules
from vlfleet.watch.alerts_fleet import Slo
from vlfleet.watch.sinks import LogSink, WebhookSink
from vlfleet.watch.watcher import Watcher

if TYPE_CHECKING:
    from vlfleet.media.fit import Fit


async def open_gateway(
    supervisor: Supervisor,
    engine: Engine,
    control: Control,
    folder: FleetFolder,
    keyring: Keyring,
    draining: asyncio.Event,
    say: Callable[[str], None],
) -> list[web.AppRunner]:
    """Opens the gateway's port and the admin's, and writes into the spec which ones they got when asked for port 0."""
    spec = supervisor.spec
    app = gateway.build_app(
        supervisor.replicas,
        served_model_name=spec.served_model_name,
        on_unreachable=supervisor.probe_now,
        draining=draining,
        media=_media(spec, engine),
        policy=gateway.Policy(spec.policy),
        urls=_urls(spec),
        secret=folder.media_secret(),
        access=Access(keyring),
        batches=folder.path / "batches",
        fleet=spec.name,
    )

    watcher = Watcher(
        supervisor.replicas,
        lambda: app[GATEWAY].metrics.text(),
        lambda: app[GATEWAY].pages,
        folder.path,
        rules=all_rules(Slo(spec.slo_ttft_seconds, spec.slo_share)),
        sinks=[LogSink(), *([WebhookSink(spec.alert_webhook)] if spec.alert_webhook else [])],
        say=say,
    )

    async def watched(app: web.Application) -> AsyncIterator[None]:
        app[GATEWAY].also = watcher.metrics
        async with watcher:
            yield

    app.cleanup_ctx.append(watched)
    runner = await gateway.serve(app, spec.host, spec.port)
    admin = admin_of(folder, supervisor, engine, app, watcher, control.orders)
    try:
        beside = await gateway.serve(admin, "127.0.0.1", admin_port_of(spec, int(runner.addresses[0][1])))
    except VlfleetError as error:
        await runner.cleanup()
        raise VlfleetError(error.cause, "take another with --admin-port") from None
    supervisor.at_port(int(runner.addresses[0][1]), int(beside.addresses[0][1]))
    return [runner, beside]


def _media(spec: FleetSpec, engine: Engine) -> EngineMedia:
    """What the gateway needs to know of how the engines see pictures: the checkpoint's limits, under the fleet's."""
    info = preflight(spec.model, weights=False)
    limits = PixelLimits(info.min_pixels, info.max_pixels)
    most = spec.options.max_pixels
    vision = Vision.of(info.family, {"max_pixels": most} if most else None, image=limits)
    fit = _fit(spec, vision) if spec.fit else None
    return EngineMedia(vision, engine.media_cache_gb(spec.engine_spec), fit, Coefficients.of(spec.route_seed))


def _fit(spec: FleetSpec, vision: Vision) -> Fit:
    """How the gateway resizes: by the arithmetic of the engine.

    Raises:
        VlfleetError: it is not at hand.
    """
    from vlfleet.media.fit import Fit, Maths

    maths = Maths.of(spec.engine)
    if maths is Maths.TORCHVISION and not find_spec("torch"):
        raise VlfleetError("--fit needs torch: vLLM resizes with its arithmetic", "pip install torch, or leave it out")
    return Fit.of(vision, maths)


def _urls(spec: FleetSpec) -> FetchPolicy:
    """Where media may be fetched from. Private addresses never are, whatever a name or a redirect leads to."""
    said = spec.media_urls or ("public" if is_loopback(spec.host) else "deny")
    if said in (Urls.PUBLIC, Urls.DENY):
        return FetchPolicy(Urls(said))
    return FetchPolicy(Urls.ALLOWLIST, frozenset(host.strip().lower() for host in said.split(",") if host.strip()))


def admin_port_of(spec: FleetSpec, port: int) -> int:
    """Where the admin of a gateway at `port` listens: where the spec says; else on the next port, so that a page has
    the same address tomorrow; 0, for any free one, where that is taken."""
    if spec.admin_port is not None:
        return spec.admin_port
    if port == 65535:
        return 0
    try:
        socket.create_server(("127.0.0.1", port + 1)).close()
    except OSError:
        return 0
    return port + 1
