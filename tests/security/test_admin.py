"""S15: the admin port is for its owner, on this machine, and for no page or name of anybody else."""

from __future__ import annotations

import json
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from vlfleet.errors import VlfleetError
from vlfleet.gateway.admin import build_admin, new_token
from vlfleet.gateway.serve import serve
from vlfleet.run_admin import told

TOKEN = "t" * 43
GOOD = {"Authorization": f"Bearer {TOKEN}"}
PATHS = (("GET", "/fleet"), ("GET", "/metrics"), ("POST", "/restart"), ("GET", "/nothing"))


@asynccontextmanager
async def admin(facts: Any = None) -> AsyncIterator[tuple[aiohttp.ClientSession, int]]:
    async def restart(request: web.Request) -> web.Response:
        return web.json_response({"event": "done", "order": await request.json()})

    async def open_to_all(request: web.Request) -> web.Response:
        return web.Response(text="open", headers={"Cache-Control": "no-cache"})

    async def metrics() -> bytes:
        return b"vlfleet:x 1\n"

    routes = told(facts or (lambda: {"fleet": "default"}), metrics)
    app = build_admin(TOKEN, [*routes, web.post("/restart", restart)], [web.get("/web/{path}", open_to_all)])
    runner = await serve(app, "127.0.0.1", 0)
    port = runner.addresses[0][1]
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        try:
            yield session, port
        finally:
            await session.close()
            await runner.cleanup()


async def test_what_it_answers() -> None:
    async with admin() as (session, _):
        async with session.get("/fleet", headers=GOOD) as answer:
            assert (answer.status, await answer.json()) == (200, {"fleet": "default"})
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
            assert answer.headers["Cache-Control"] == "no-store"
        async with session.get("/metrics", headers=GOOD) as answer:
            assert await answer.text() == "vlfleet:x 1\n"
        async with session.post("/restart", headers=GOOD, json={"replica": "r0"}) as answer:
            assert (await answer.json())["order"] == {"replica": "r0"}
        async with session.get("/nothing", headers=GOOD) as answer:
            assert answer.status == 404


async def test_what_is_open_needs_no_token_and_nothing_else_is() -> None:
    async with admin() as (session, port):
        async with session.get("/web/app.js") as answer:
            assert (answer.status, answer.headers["Cache-Control"]) == (200, "no-cache")
            assert answer.headers["Server"] == "vlfleet"
        async with session.get("/web/app.js", headers={"Host": f"evil.example:{port}"}) as answer:
            assert answer.status == 403
        for path in ("/web/../fleet", "/web/%2e%2e/fleet", "/web//fleet", "/web/a/../../fleet"):
            async with session.get(URL(f"http://127.0.0.1:{port}{path}", encoded=True)) as answer:
                assert answer.status == 401
        async with session.post("/web/app.js") as answer:
            assert answer.status == 401


@pytest.mark.parametrize("token", ["", "Bearer", "Bearer wrong", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN])
@pytest.mark.parametrize(("method", "path"), PATHS)
async def test_nothing_without_the_token(token: str, method: str, path: str) -> None:
    async with admin() as (session, _):
        headers = {"Authorization": token} if token else {}
        async with session.request(method, path, headers=headers) as answer:
            assert answer.status == 401
            assert "Set-Cookie" not in answer.headers
            assert TOKEN not in await answer.text()


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:PORT", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example:PORT", "0.0.0.0:PORT"],
)
async def test_a_name_of_somebody_else_gets_nowhere(host: str) -> None:
    """DNS rebinding: the browser believes that evil.example is at 127.0.0.1."""
    async with admin() as (session, port):
        headers = {**GOOD, "Host": host.replace("PORT", str(port))}
        async with session.get("/fleet", headers=headers) as answer:
            assert answer.status == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1:PORT", "http://127.0.0.1:1", ""])
async def test_a_page_of_somebody_else_gets_nowhere(origin: str) -> None:
    async with admin() as (session, port):
        headers = {**GOOD, "Origin": origin.replace("PORT", str(port))}
        async with session.post("/restart", headers=headers, json={}) as answer:
            assert answer.status == 403
        async with session.options("/restart", headers={**headers, "Access-Control-Request-Method": "POST"}) as answer:
            assert answer.status == 403
            assert not [name for name in answer.headers if name.startswith("Access-Control")]


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "LOCALHOST", "[::1]"])
async def test_its_own_page_may(name: str) -> None:
    async with admin() as (session, port):
        headers = {**GOOD, "Host": f"{name}:{port}", "Origin": f"http://{name}:{port}"}
        async with session.get("/fleet", headers=headers) as answer:
            assert answer.status == 200


async def test_a_fault_of_ours_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> dict[str, Any]:
        raise ValueError("canary-7")

    async with admin(fail) as (session, _), session.get("/fleet", headers=GOOD) as answer:
        assert answer.status == 500
        assert "canary-7" not in await answer.text() + caplog.text
        assert "ValueError at security/test_admin.py" in caplog.text


def test_the_token_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "admin.token"
    path.write_text("old")
    path.chmod(0o644)
    one, two = new_token(path), new_token(path)
    assert one != two
    assert len(one) == 43
    assert path.read_text() == two + "\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b'"r0"', b'{"replicas": 1}', b'{"replica": 1}', b'{"drain_timeout_seconds": "a"}']
)
def test_what_is_no_order(body: bytes) -> None:
    from vlfleet.fleet.control import _order
    from vlfleet.fleet.roll import Order

    with pytest.raises(VlfleetError, match="no order"):
        _order(Order, body)
    assert _order(Order, b"").replica == ""
    assert _order(Order, json.dumps({"replica": "r1", "force": True}).encode()).force
