"""An admin port without a fleet behind it: the page's own files, and whatever glances, plans and reports a test wants.

What the page orders is kept in `orders`. `python -m tests.web.views.admin_double sick` serves a scenario to look at.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import mimetypes
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.web.views import glances
from tests.web.views.answers import answers

WEB = Path(__file__).resolve().parents[3] / "src/vlfleet/web"
TOKEN = "t" * 43
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "manifest-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
Look = Callable[[float], dict[str, Any]]


class AdminDouble:
    """`look(at)` makes a glance; `answers` are JSON bodies by path, or functions of the query or the body asked; a log
    grows by a line each time it is read."""

    def __init__(self, look: Look, answers: dict[str, Any] | None = None, tick_seconds: float = 1.0) -> None:
        self.look, self.answers, self.tick_seconds = look, answers or {}, tick_seconds
        self.orders: list[tuple[str, dict[str, Any]]] = []
        self.sent_bytes = 0
        """Of static files, as they travel."""
        self.log_lines = [
            f"(EngineCore pid=41000) INFO 11-21 16:42:{n:02d} [loggers.py:257] Engine 000" for n in range(40)
        ]
        self.refuse = ""
        """With a reason: orders fail."""
        self.url = ""
        self._runner: web.AppRunner | None = None
        self._listeners: set[asyncio.Task[Any]] = set()

    async def start(self, port: int = 0) -> str:
        """Serves on loopback; returns the address of the fleet view."""
        app = web.Application(middlewares=[self._guard])
        app.router.add_get("/", self._file)
        app.router.add_get("/web/{path:.+}", self._file)
        app.router.add_get("/side.json", self._side)
        app.router.add_get("/live", self._live)
        app.router.add_get("/logs", self._logs)
        app.router.add_get("/fleet", self._fleet)
        app.router.add_post("/{path:restart|drain|cordon|uncordon|alerts/acknowledge|alerts/silence}", self._order)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self.page("fleet")

    def page(self, view: str) -> str:
        """The address of a view, with the token."""
        return f"{self.url}/#token={TOKEN}&/{view}"

    async def stop(self) -> None:
        for task in tuple(self._listeners):
            task.cancel()
        if self._runner:
            await self._runner.cleanup()
        self._runner = None

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        public = request.path in ("/", "/side.json", "/tasks.json") or request.path.startswith("/web/")
        if not public and request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return _error(401, "no token of this run")
        response: web.StreamResponse = await handler(request)
        return response

    async def _file(self, request: web.Request) -> web.Response:
        path = WEB / request.match_info.get("path", "index.html")
        if not path.is_file():
            return _error(404, "there is no such file")
        body = gzip.compress(path.read_bytes(), 6)
        self.sent_bytes += len(body)
        kind = {".js": "text/javascript"}.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "text/plain"
        headers = {"Content-Type": f"{kind}; charset=utf-8", "Content-Encoding": "gzip", "Content-Security-Policy": CSP}
        return web.Response(body=body, headers=headers)

    async def _side(self, request: web.Request) -> web.Response:
        fleet = self.look(time.time())["fleet"]
        side = {"admin": True, "version": "0.1.0", "fleet": fleet["name"], "keyed": False}
        return web.json_response(side | {"served_model_name": fleet["served_model_name"]})

    async def _fleet(self, request: web.Request) -> web.Response:
        glance = self.look(time.time())
        return web.json_response({**glance["fleet"], "fleet": glance["fleet"]["name"], "replicas": glance["replicas"]})

    async def _live(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        task = asyncio.current_task()
        assert task
        self._listeners.add(task)
        try:
            while True:
                await response.write(b"data: " + json.dumps(self.look(time.time())).encode() + b"\n\n")
                await asyncio.sleep(self.tick_seconds)
        except ConnectionError:
            return response
        finally:
            self._listeners.discard(task)

    async def _logs(self, request: web.Request) -> web.Response:
        text = "".join(f"{line}\n" for line in self.log_lines)
        if after := request.query.get("after"):
            self.log_lines.append(f"(APIServer pid=41001) INFO: request {len(self.log_lines)} 200 OK")
            return web.json_response(
                {"replica": "r0", "text": text[int(after) :], "offset": len(text), "truncated": False}
            )
        return web.json_response({"replica": "r0", "text": text, "offset": len(text), "truncated": True})

    async def _order(self, request: web.Request) -> web.StreamResponse:
        path, body = f"/{request.match_info['path']}", await request.json()
        self.orders.append((path, body))
        if self.refuse:
            return _error(409, self.refuse)
        if path.startswith("/alerts"):
            return web.Response(status=204)
        if path in ("/cordon", "/uncordon"):
            return web.json_response({"cordoned": [body["replica"]] if path == "/cordon" else []})
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        name = body["replica"]
        steps = [{"event": "draining", "replica": name, "in_flight": left} for left in (3, 1)]
        end = (
            [{"event": "drained", "replica": name}]
            if path == "/drain"
            else [
                {"event": "stopping", "replica": name, "cut": 0},
                {"event": "starting", "replica": name, "detail": "load"},
                {"event": "ready", "replica": name, "seconds": 44.0},
            ]
        )
        for event in [*steps, *end, {"event": "done"}]:
            await response.write(json.dumps(event).encode() + b"\n")
            await asyncio.sleep(self.tick_seconds / 4)
        return response

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.json() if request.method == "POST" and request.can_read_body else {}
        if body:
            self.orders.append((request.path, body))
        found = self.answers.get(f"{request.method} {request.path}", self.answers.get(request.path))
        if callable(found):
            found = await asyncio.to_thread(found, body or dict(request.query))
        if found is None:
            return _error(404, f"there is no {request.path}")
        return found if isinstance(found, web.Response) else web.json_response(found)


def _error(status: int, message: str) -> web.Response:
    error = {"message": message, "type": "invalid_request_error", "code": "", "param": None}
    return web.json_response({"error": error}, status=status)


class Doubles:
    """Doubles in an event loop of a thread of its own: whoever drives a browser needs this one."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._all: list[AdminDouble] = []

    def start(self, look: Look, gpus: str = "8xH200", tick_seconds: float = 1.0, port: int = 0) -> AdminDouble:
        """One that serves; with "" as `gpus`, it runs on a CPU."""
        double = AdminDouble(look, answers(gpus, look), tick_seconds)
        self._run(double.start(port))
        self._all.append(double)
        return double

    def stop(self, double: AdminDouble) -> None:
        """A server that is gone."""
        self._run(double.stop())

    def close(self) -> None:
        for double in self._all:
            self.stop(double)
        self._run(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _run(self, coroutine: Coroutine[Any, Any, object]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)


async def _serve(scenario: str, port: int) -> None:
    gpus = "" if scenario == "alone" else "4xH200"
    print(
        await AdminDouble(getattr(glances, scenario), answers(gpus, getattr(glances, scenario))).start(port), flush=True
    )
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0))
