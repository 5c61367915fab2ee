"""Pictures behind URLs: the server's business where it fetches them, else the client's."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from tests.client.test_any_server import whole
from tests.client.test_images import animated, encoded
from tests.client.test_retries import serving
from tests.gateway.rig import Rig, rig
from vlfleet.client import AsyncClient
from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.media.addresses import FetchPolicy, Urls

PICTURE = encoded(size=(280, 280))


@asynccontextmanager
async def pictures() -> AsyncIterator[tuple[str, list[web.Request]]]:
    """A server of pictures on loopback, and what it was asked."""
    asked: list[web.Request] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request)
        name = request.match_info["name"]
        if name == "moved.png":
            raise web.HTTPFound("/a.png")
        contents = {
            "a.png": PICTURE,
            "page.html": b"<html>" * 20,
            "anim.gif": animated("GIF"),
            "large": bytes(17 << 20),
        }
        if name not in contents:
            raise web.HTTPNotFound
        return web.Response(body=contents[name], content_type="application/octet-stream")

    app = web.Application()
    app.router.add_get("/{name}", answer)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", asked
    finally:
        await runner.cleanup()


def sent(fleet: Rig) -> str:
    url: str = json.loads(fleet.engines[0].bodies[-1])["messages"][0]["content"][0]["image_url"]["url"]
    return url


async def test_a_fleet_that_fetches_nothing_gets_the_picture() -> None:
    async with pictures() as (url, asked), rig(1) as fleet, AsyncClient(fleet.url, "secret") as client:
        for path in ("a.png", "moved.png", "a.png?x=*[1]"):
            await client.ask("what?", f"{url}/{path}")
            assert sent(fleet).startswith("data:image/png;base64,")
        assert all("Authorization" not in request.headers for request in asked)
        parts = await client.parts([encoded(), f"{url}/a.png", encoded(size=(30, 30))])
        sizes = [len(part["image_url"]["url"]) for part in parts]
        assert sizes.index(max(sizes)) == 1


async def test_a_server_that_fetches_gets_the_url() -> None:
    async with pictures() as (url, asked):
        async with serving(whole) as server, AsyncClient(server.url) as client:
            (part,) = await client.parts(f"{url}/a.png")
            assert part["image_url"]["url"] == f"{url}/a.png"
        async with rig(1, urls=FetchPolicy(Urls.PUBLIC)) as fleet, AsyncClient(fleet.url) as client:
            (part,) = await client.parts(f"{url}/a.png")
            assert part["image_url"]["url"] == f"{url}/a.png"
        async with rig(1, urls=FetchPolicy(Urls.ALLOWLIST)) as fleet, AsyncClient(fleet.url) as client:
            (part,) = await client.parts(f"{url}/a.png")
            assert part["image_url"]["url"].startswith("data:")
        assert len(asked) == 1


async def test_what_must_be_here_is_fetched() -> None:
    async with pictures() as (url, asked), rig(1, urls=FetchPolicy(Urls.PUBLIC)) as fleet:
        async with AsyncClient(fleet.url) as client:
            assert (await client.count(f"{url}/a.png")).media == (100,)
        async with AsyncClient(fleet.url, fit=True) as client:
            (part,) = await client.parts(f"{url}/a.png")
            assert part["image_url"]["url"].startswith("data:image/png;base64,")
        assert len(asked) == 2


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("missing.png", "answers 404"),
        ("page.html", "it looks like HTML"),
        ("anim.gif", "is an animated GIF"),
        ("large", "more than 16 MiB"),
    ],
)
async def test_what_is_no_picture_is_named_by_its_url(path: str, words: str) -> None:
    async with pictures() as (url, _), rig(1) as fleet, AsyncClient(fleet.url) as client:
        with pytest.raises(VlfleetError) as caught:
            await client.ask("what?", f"{url}/{path}")
        assert caught.value.exit_code == ExitCode.USAGE
        assert f"{url}/{path} " in caught.value.cause
        assert words in caught.value.cause
        assert fleet.engines[0].seen.requests == 0


async def test_nobody_there() -> None:
    async with pictures() as (url, _):
        pass
    async with rig(1) as fleet, AsyncClient(fleet.url) as client:
        with pytest.raises(VlfleetError, match="cannot be fetched"):
            await client.ask("what?", f"{url}/a.png")
