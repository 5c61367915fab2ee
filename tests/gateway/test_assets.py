"""The page's files on the gateway's port: open, cached by content, and no way to any other file."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import orjson
import pytest
from aiohttp import web
from yarl import URL

from tests.gateway.rig import MODEL, rig
from vlfleet.gateway.access import Access
from vlfleet.gateway.assets import CONTENT_SECURITY_POLICY, ROOT, Assets, in_checkout, installed
from vlfleet.gateway.keys import KeyFile, Keyring
from vlfleet.gateway.serve import serve

SCRIPT = b"export const answer = 42;\n" * 50


@pytest.fixture
def files(tmp_path: Path) -> Path:
    root = tmp_path / "web"
    (root / "lib").mkdir(parents=True)
    (root / "index.html").write_bytes(b"<!doctype html><title>x</title>")
    (root / "lib" / "a.js").write_bytes(SCRIPT)
    (root / "odd.bin").write_bytes(b"\x00\x01")
    (root / ".hidden").write_bytes(b"no")
    (tmp_path / "secret").write_bytes(b"no")
    return root


@asynccontextmanager
async def served(files: Path, *, changing: bool = False) -> AsyncIterator[aiohttp.ClientSession]:
    app = web.Application()
    app.add_routes(Assets(files, changing=changing).routes())
    runner = await serve(app, "127.0.0.1", 0)
    base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with aiohttp.ClientSession(base, headers={"Accept-Encoding": "identity"}, auto_decompress=False) as session:
        try:
            yield session
        finally:
            await session.close()
            await runner.cleanup()


async def test_the_page_and_its_parts(files: Path) -> None:
    async with served(files) as session:
        async with session.get("/") as answer:
            assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
            assert answer.headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
            assert await answer.read() == b"<!doctype html><title>x</title>"
        async with session.get("/web/lib/a.js") as answer:
            assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"
            assert "Content-Security-Policy" not in answer.headers
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Cache-Control"] == "no-cache"
            assert await answer.read() == SCRIPT
        async with session.get("/web/odd.bin") as answer:
            assert answer.headers["Content-Type"] == "application/octet-stream"
            assert answer.headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
        async with session.head("/web/lib/a.js") as answer:
            assert (answer.status, answer.headers["Content-Length"]) == (200, str(len(SCRIPT)))


@pytest.mark.parametrize(
    ("accepts", "packs"),
    [
        ("gzip", True),
        ("gzip, deflate, br", True),
        ("br;q=1.0, GZIP;q=0.8", True),
        ("gzip;q=0", False),
        ("gzip;q=0.0, br", False),
        ("xgzip", False),
        ("", False),
    ],
)
async def test_packed_for_who_can_unpack(files: Path, accepts: str, packs: bool) -> None:
    async with served(files) as session, session.get("/web/lib/a.js", headers={"Accept-Encoding": accepts}) as answer:
        body = await answer.read()
        assert answer.headers.get("Content-Encoding") == ("gzip" if packs else None)
        assert answer.headers["Vary"] == "Accept-Encoding"
        assert (gzip.decompress(body) if packs else body) == SCRIPT
        assert (len(body) < len(SCRIPT)) is packs


async def test_what_is_known_is_not_sent_again(files: Path) -> None:
    async with served(files) as session:
        async with session.get("/web/lib/a.js") as answer:
            tag = answer.headers["ETag"]
        for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
            async with session.get("/web/lib/a.js", headers={"If-None-Match": known}) as answer:
                assert (answer.status, await answer.read()) == (304, b"")
                assert answer.headers["ETag"] == tag
                assert answer.headers["Cache-Control"] == "no-cache"
        packed = {"If-None-Match": tag, "Accept-Encoding": "gzip"}
        async with session.get("/web/lib/a.js", headers=packed) as answer:
            assert answer.status == 200, "the packed form is another one"
            assert answer.headers["ETag"] != tag


@pytest.mark.parametrize(
    "path",
    [
        "/web/../secret",
        "/web/%2e%2e/secret",
        "/web/..%2fsecret",
        "/web//etc/passwd",
        "/web/lib/../../secret",
        "/web/.hidden",
        "/web/lib",
        "/web/",
        "/web/lib/a.js%00",
        "/web/lib%5ca.js",
    ],
)
@pytest.mark.parametrize("changing", [False, True])
async def test_no_path_leads_elsewhere(files: Path, path: str, changing: bool) -> None:
    async with served(files, changing=changing) as session, session.get(raw(session, path)) as answer:
        assert answer.status == 404


def raw(session: aiohttp.ClientSession, path: str) -> URL:
    """As it stands: no client makes another path of it."""
    assert session._base_url
    return URL(f"{session._base_url.origin()}{path}", encoded=True)


async def test_edits_are_seen_in_a_checkout(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlfleet.gateway.assets.LOOK_SECONDS", 0.0)
    async with served(files, changing=True) as session:
        async with session.get("/web/lib/a.js") as answer:
            tag = answer.headers["ETag"]
        (files / "lib" / "a.js").write_bytes(b"export const answer = 43;")
        (files / "new.css").write_bytes(b"body {}")
        (files / "odd.bin").unlink()
        async with session.get("/web/lib/a.js") as answer:
            assert answer.headers["ETag"] != tag
            assert await answer.read() == b"export const answer = 43;"
        async with session.get("/web/new.css") as answer:
            assert answer.headers["Content-Type"] == "text/css; charset=utf-8"
        async with session.get("/web/odd.bin") as answer:
            assert answer.status == 404


async def test_what_is_installed_is_read_once(files: Path) -> None:
    async with served(files) as session:
        (files / "lib" / "a.js").unlink()
        async with session.get("/web/lib/a.js") as answer:
            assert await answer.read() == SCRIPT
    assert in_checkout(ROOT)
    assert not in_checkout(files)


def test_every_file_of_the_page_has_a_type_that_a_browser_knows() -> None:
    assets = installed()
    names = [path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*") if path.is_file()]
    assert "index.html" in names
    for name in names:
        found = assets.find(name)
        assert found, name
        assert name.endswith("LICENSE") or found.content_type != "application/octet-stream", name


async def test_the_gateway_shows_the_page_to_everybody_and_names_to_those_with_a_key(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "keys.json")
    secret = keys.add("alice")
    async with rig(1, access=Access(Keyring(keys))) as made:
        for path in ("/", "/web/app.js", "/side.json", "/tasks.json"):
            async with made.http.get(made.url + path) as answer:
                assert answer.status == 200, path
            async with made.http.head(made.url + path) as answer:
                assert answer.status == 200, path
        for path in ("/v1/models", "/metrics", "/version", "/web", "/glance", "/fleet"):
            async with made.http.get(made.url + path) as answer:
                assert answer.status == 401, path
        async with made.http.get(made.url + "/side.json") as answer:
            nothing = {"admin": False, "version": "", "fleet": "", "served_model_name": "", "keyed": True}
            assert await answer.json() == nothing
        key = {"Authorization": f"Bearer {secret}"}
        async with made.http.get(made.url + "/side.json", headers=key) as answer:
            told = await answer.json()
            assert (told["served_model_name"], told["keyed"], told["admin"]) == (MODEL, True, False)


async def test_without_keys_everybody_is_told() -> None:
    async with rig(1) as made:
        async with made.http.get(made.url + "/side.json") as answer:
            told = await answer.json()
            assert (told["served_model_name"], told["keyed"], told["fleet"]) == (MODEL, False, "default")
        async with made.http.get(made.url + "/tasks.json") as answer:
            names = [each["name"] for each in orjson.loads(await answer.read())]
            assert "ocr" in names
        async with made.http.get(made.url + "/glance") as answer:
            assert answer.status == 404
